from .mask_dino_predictor import MaskDINOPredictor, MaskPredictions
from .set_loss import LossGroup, SetLoss
from .set_loss_head import SetLossHead
from .stable_heads import (
    StableConditionalDETRHead,
    StableDABDETRHead,
    StableDeformableDETRHead,
    StableDETRHead,
    StableDINOHead,
)

__all__ = [
    'LossGroup',
    'MaskDINOPredictor',
    'MaskPredictions',
    'SetLoss',
    'SetLossHead',
    'StableConditionalDETRHead',
    'StableDABDETRHead',
    'StableDETRHead',
    'StableDINOHead',
    'StableDeformableDETRHead',
]
