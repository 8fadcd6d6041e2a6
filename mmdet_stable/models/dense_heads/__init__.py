from .set_loss import LossGroup, SetLoss
from .stable_dino_head import StableDINOHead

__all__ = ['LossGroup', 'SetLoss', 'StableDINOHead']
