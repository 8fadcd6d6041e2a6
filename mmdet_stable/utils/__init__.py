from .cache import cache_sized_parts
from .checkpoint import CheckedLoading, check_state_dict_shapes, mismatched_shapes

__all__ = ['CheckedLoading', 'cache_sized_parts', 'check_state_dict_shapes', 'mismatched_shapes']
