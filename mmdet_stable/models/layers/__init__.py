from .any_width_dino_decoder import AnyWidthDinoDecoder
from .dab_deformable_decoder import DABDeformableDecoder
from .denoising import DNQueryGenerator, denoising_attention_mask
from .memory_fusion_encoder import MemoryFusionEncoder

__all__ = [
    'AnyWidthDinoDecoder',
    'DABDeformableDecoder',
    'DNQueryGenerator',
    'MemoryFusionEncoder',
    'denoising_attention_mask',
]
