from .loss_terms import ClassTerm, IoUTerm, L1Term, LossTerm, MatchedPairs
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
    'IoUTerm',
    'L1Term',
    'LossTerm',
    'MatchedPairs',
    'SetLoss',
    'SetLossHead',
    'StableConditionalDETRHead',
    'StableDABDETRHead',
    'StableDETRHead',
    'StableDINOHead',
    'StableDeformableDETRHead',
]
