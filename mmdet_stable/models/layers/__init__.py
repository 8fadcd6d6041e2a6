from .any_width_dino_decoder import AnyWidthDinoDecoder
from .memory_fusion_encoder import MemoryFusionEncoder

__all__ = ['AnyWidthDinoDecoder', 'MemoryFusionEncoder']
