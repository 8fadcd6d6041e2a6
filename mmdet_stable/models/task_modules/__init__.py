from .mask_pairwise import MaskPairwise, random_points
from .match_costs import PositionModulatedFocalCost, batched_cost, focal_cost
from .pairwise import Pairwise, aligned_iou_and_giou, of_gt_classes
from .position_metric import metric_modulator, position_modulator, position_quality, uses_masks
from .stable_hungarian_assigner import StableHungarianAssigner
from .things_only_cost import ThingsOnlyCost, with_stuff_costs

__all__ = [
    'MaskPairwise',
    'Pairwise',
    'PositionModulatedFocalCost',
    'StableHungarianAssigner',
    'ThingsOnlyCost',
    'aligned_iou_and_giou',
    'batched_cost',
    'focal_cost',
    'metric_modulator',
    'of_gt_classes',
    'position_modulator',
    'position_quality',
    'random_points',
    'uses_masks',
    'with_stuff_costs',
]
