from .any_width_dino_decoder import AnyWidthDinoDecoder
from .dab_deformable_decoder import DABDeformableDecoder
from .denoising import DNQueryGenerator, denoising_attention_mask
from .look_forward_twice_decoder import LookForwardTwiceDecoder
from .memory_fusion_encoder import MemoryFusionEncoder
from .proposals import with_enough_tokens

__all__ = [
    'AnyWidthDinoDecoder',
    'DABDeformableDecoder',
    'DNQueryGenerator',
    'LookForwardTwiceDecoder',
    'MemoryFusionEncoder',
    'denoising_attention_mask',
    'with_enough_tokens',
]
