from .memory_fusion import DenseMemoryFusion, FusionProjection, MemoryFusion, SimpleMemoryFusion, UShapedMemoryFusion

__all__ = ['DenseMemoryFusion', 'FusionProjection', 'MemoryFusion', 'SimpleMemoryFusion', 'UShapedMemoryFusion']
