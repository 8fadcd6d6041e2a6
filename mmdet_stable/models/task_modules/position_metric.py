"""What "position" means where predictions have boxes and masks: the quantity that supervises and modulates scores.

arXiv:2304.04742 defines position by boxes and reports Stable-MaskDINO without saying more (Table 4), so that the
choices here are this package's own:

========  =======================================  ==========================================
metric    quality s of a matched pair, for         modulator of any pair, before its exponent,
          ``PositionSupervisedLoss``               for ``PositionModulatedFocalCost``
========  =======================================  ==========================================
box       IoU of the boxes                         (GIoU of the boxes + 1) / 2
mask      IoU of the masks                         1 - dice cost of the masks
mean      mean of both                             mean of both
========  =======================================  ==========================================

Boxes are the default: the paper's own quantity, exact, and at hand.
"""

from typing import Callable, Optional

from torch import Tensor

from .match_costs import position_modulator

POSITION_METRICS = ('box', 'mask', 'mean')
Values = Callable[[], Tensor]


def check_position_metric(metric: str) -> str:
    """The metric; raises ValueError for an unknown one."""
    if metric not in POSITION_METRICS:
        raise ValueError(f'position_metric={metric!r}: known are {POSITION_METRICS}')
    return metric


def uses_masks(metric: str) -> bool:
    """Whether masks must be compared for it."""
    return check_position_metric(metric) != 'box'


def position_quality(metric: str, box: Values, mask: Values) -> Tensor:
    """Values in [0, 1] of the metric, from those of boxes and masks.

    Args:
        metric: one of :data:`POSITION_METRICS`.
        box, mask: give the values when called, of one shape; that which the metric does not need is not called.
    """
    check_position_metric(metric)
    if metric == 'box':
        return box()
    return mask() if metric == 'mask' else (box() + mask()) / 2


def metric_modulator(
    metric: str, giou: Values, dice: Values, power: float = 0.5, valid: Optional[Tensor] = None
) -> Tensor:
    """Modulator of the class cost, as :func:`position_modulator`, for any metric.

    Args:
        giou: gives the GIoU in [-1, 1] of the boxes, (..., G, Q).
        dice: gives the dice cost in [0, 1] of the masks, (..., G, Q).
        power, valid: see :func:`position_modulator`.

    Returns:
        (..., G, Q) in [0, 1]; the best pair of each image (and layer) has 1.
    """
    position = position_quality(metric, lambda: (giou() + 1) / 2, lambda: 1 - dice())
    return position_modulator(2 * position - 1, power, valid)
