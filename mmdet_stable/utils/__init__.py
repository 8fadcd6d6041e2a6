from .checkpoint import check_state_dict_shapes, mismatched_shapes

__all__ = ['check_state_dict_shapes', 'mismatched_shapes']
