from .cache import cache_sized_parts
from .checkpoint import check_state_dict_shapes, mismatched_shapes
from .host_syncs import HostSyncCounter

__all__ = ['HostSyncCounter', 'cache_sized_parts', 'check_state_dict_shapes', 'mismatched_shapes']
