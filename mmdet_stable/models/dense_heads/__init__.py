from .dn_detr_head import DNConditionalDETRHead, DNDeformableDETRHead, DNDETRHead
from .set_loss import LossGroup, SetLoss
from .set_loss_head import SetLossHead
from .stable_dino_head import StableDINOHead

__all__ = [
    'DNConditionalDETRHead',
    'DNDETRHead',
    'DNDeformableDETRHead',
    'LossGroup',
    'SetLoss',
    'SetLossHead',
    'StableDINOHead',
]
