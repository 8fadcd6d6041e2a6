from .loss_terms import ClassTerm, IoUTerm, L1Term, LossTerm, MatchedPairs
from .mask_dino_head import MaskDINOHead
from .mask_dino_predictor import MaskDINOPredictor, MaskPredictions
from .mask_inference import ImagePredictions, ImageSizes, MaskInference
from .set_loss import SetLoss
from .set_loss_head import SetLossHead
from .stable_heads import (
    StableConditionalDETRHead,
    StableDABDETRHead,
    StableDeformableDETRHead,
    StableDETRHead,
    StableDINOHead,
)

__all__ = [
    'ClassTerm',
    'ImagePredictions',
    'ImageSizes',
    'IoUTerm',
    'L1Term',
    'LossTerm',
    'MaskDINOHead',
    'MaskDINOPredictor',
    'MaskInference',
    'MaskPredictions',
    'MatchedPairs',
    'SetLoss',
    'SetLossHead',
    'StableConditionalDETRHead',
    'StableDABDETRHead',
    'StableDETRHead',
    'StableDINOHead',
    'StableDeformableDETRHead',
]
