from .mask_pairwise import MaskPairwise, MaskSamples, random_points, with_stuff_costs
from .match_costs import PositionModulatedFocalCost, add_costs, focal_cost, position_modulator
from .pairwise import Pairwise, aligned_iou_and_giou
from .position_metric import metric_modulator, position_quality
from .stable_hungarian_assigner import StableHungarianAssigner

__all__ = [
    'MaskPairwise',
    'MaskSamples',
    'Pairwise',
    'PositionModulatedFocalCost',
    'StableHungarianAssigner',
    'add_costs',
    'aligned_iou_and_giou',
    'focal_cost',
    'metric_modulator',
    'position_modulator',
    'position_quality',
    'random_points',
    'with_stuff_costs',
]
