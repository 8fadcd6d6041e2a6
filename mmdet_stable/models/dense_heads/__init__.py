from .set_loss import SetLoss
from .stable_dino_head import StableDINOHead

__all__ = ['SetLoss', 'StableDINOHead']
