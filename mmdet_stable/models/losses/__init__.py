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
    'PositionSupervisedLoss',
    'PositionTarget',
    'exponential',
    'position_supervised_loss',
    'position_target',
    'rescale_targets',
    'sine',
]
