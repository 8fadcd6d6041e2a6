from .cache import cache_sized_parts
from .checkpoint import CheckedLoading, check_state_dict_shapes, mismatched_shapes
from .mask_targets import MaskTargets, sample_maps

__all__ = [
    'CheckedLoading',
    'MaskTargets',
    'cache_sized_parts',
    'check_state_dict_shapes',
    'mismatched_shapes',
    'sample_maps',
]
