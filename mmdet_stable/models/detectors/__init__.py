from .dab_deformable_detr import DABDeformableDETR
from .dn_deformable_detr import DNDeformableDETR
from .dn_detr import DNDETR, DNConditionalDETR
from .stable_deformable_detr import HDeformableDETR, StableDDQDETR, StableDeformableDETR
from .stable_dino import StableDINO

__all__ = [
    'DNDETR',
    'DABDeformableDETR',
    'DNConditionalDETR',
    'DNDeformableDETR',
    'HDeformableDETR',
    'StableDDQDETR',
    'StableDINO',
    'StableDeformableDETR',
]
