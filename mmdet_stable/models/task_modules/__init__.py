from .match_costs import PositionModulatedFocalCost, add_costs, focal_cost, position_modulator
from .pairwise import Pairwise, aligned_iou_and_giou
from .stable_hungarian_assigner import StableHungarianAssigner

__all__ = [
    'Pairwise',
    'PositionModulatedFocalCost',
    'StableHungarianAssigner',
    'add_costs',
    'aligned_iou_and_giou',
    'focal_cost',
    'position_modulator',
]
