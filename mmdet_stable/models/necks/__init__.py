from .memory_fusion import DenseMemoryFusion, FusionProjection, MemoryFusion, SimpleMemoryFusion, UShapedMemoryFusion
from .simple_feature_pyramid import SimpleFeaturePyramid

__all__ = [
    'DenseMemoryFusion',
    'FusionProjection',
    'MemoryFusion',
    'SimpleFeaturePyramid',
    'SimpleMemoryFusion',
    'UShapedMemoryFusion',
]
