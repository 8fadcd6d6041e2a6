from .match_costs import PositionModulatedFocalCost, batched_cost, focal_cost, position_modulator
from .pairwise import Pairwise
from .stable_hungarian_assigner import StableHungarianAssigner

__all__ = [
    'Pairwise', 'PositionModulatedFocalCost', 'StableHungarianAssigner', 'batched_cost', 'focal_cost', 'position_modulator'
]
