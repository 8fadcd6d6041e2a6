from .dab_deformable_detr import DABDeformableDETR, DNDeformableDETR
from .dn_detr import DNDETR, DNConditionalDETR
from .mask_dino import MaskDINO
from .stable_ddq_detr import StableDDQDETR
from .stable_deformable_detr import HDeformableDETR, StableDeformableDETR
from .stable_dino import StableDINO

__all__ = [
    'DNDETR',
    'DABDeformableDETR',
    'DNConditionalDETR',
    'DNDeformableDETR',
    'HDeformableDETR',
    'MaskDINO',
    'StableDDQDETR',
    'StableDINO',
    'StableDeformableDETR',
]
