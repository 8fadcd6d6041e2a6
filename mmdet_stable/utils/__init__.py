from .cache import cache_sized_parts
from .checkpoint import check_state_dict_fits, check_state_dict_shapes, mismatched_shapes
from .cpus import own_cpus
from .host_buffer import HostBuffer
from .sample_maps import sample_maps

__all__ = [
    'HostBuffer',
    'cache_sized_parts',
    'check_state_dict_fits',
    'check_state_dict_shapes',
    'mismatched_shapes',
    'own_cpus',
    'sample_maps',
]
