from .match_costs import PositionModulatedFocalCost, batched_cost, focal_cost, position_modulator
from .pairwise import Pairwise, aligned_iou_and_giou, of_gt_classes
from .stable_hungarian_assigner import StableHungarianAssigner

__all__ = [
    'Pairwise',
    'PositionModulatedFocalCost',
    'StableHungarianAssigner',
    'aligned_iou_and_giou',
    'batched_cost',
    'focal_cost',
    'of_gt_classes',
    'position_modulator',
]
