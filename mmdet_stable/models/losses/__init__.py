from .mask_point_loss import MaskPairs, PointSampler, mask_ious, mask_losses, mask_point_losses, pairs_by_image
from .position_supervised_loss import (
    POSITION_TARGETS,
    PositionSupervisedLoss,
    PositionTarget,
    exponential,
    position_supervised_loss,
    position_target,
    rescale_targets,
    sine,
)

__all__ = [
    'POSITION_TARGETS',
    'MaskPairs',
    'PointSampler',
    'PositionSupervisedLoss',
    'PositionTarget',
    'exponential',
    'mask_ious',
    'mask_losses',
    'mask_point_losses',
    'pairs_by_image',
    'position_supervised_loss',
    'position_target',
    'rescale_targets',
    'sine',
]
