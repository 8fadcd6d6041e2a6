from .dn_detr import DNDETR
from .stable_dino import StableDINO

__all__ = ['DNDETR', 'StableDINO']
