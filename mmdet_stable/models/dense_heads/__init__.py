from .mask_dino_predictor import MaskDINOPredictor, MaskPredictions
from .mask_inference import ImagePredictions, ImageSizes, MaskInference
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
    'ImagePredictions',
    'ImageSizes',
    'LossGroup',
    'MaskDINOPredictor',
    'MaskInference',
    'MaskPredictions',
    'SetLoss',
    'SetLossHead',
    'StableConditionalDETRHead',
    'StableDABDETRHead',
    'StableDETRHead',
    'StableDINOHead',
    'StableDeformableDETRHead',
]
