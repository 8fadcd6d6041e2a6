from .match_costs import PositionModulatedFocalCost, add_costs, focal_cost, position_modulator
from .pairwise import Pairwise, iou_and_giou
from .stable_hungarian_assigner import StableHungarianAssigner

__all__ = [
    'Pairwise',
    'PositionModulatedFocalCost',
    'StableHungarianAssigner',
    'add_costs',
    'focal_cost',
    'iou_and_giou',
    'position_modulator',
]
