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

import torch
from torch import Tensor

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


def position_quality(metric: str, box: Values, mask: Values, is_thing: Optional[Tensor] = None) -> Tensor:
    """Values in [0, 1] of the metric, from those of boxes and masks.

    Args:
        metric: one of :data:`POSITION_METRICS`.
        box, mask: give the values when called, of one shape; that which the metric does not need is not called.
        is_thing: bool, broadcast to the values: where False, masks count whatever the metric. None where all are
            things.
    """
    combined = dict(box=box, mask=mask, mean=lambda: (box() + mask()) / 2)
    values = combined[check_position_metric(metric)]()
    return values if is_thing is None else torch.where(is_thing, values, mask())


def position_modulator(giou: Tensor, power: float = 0.5, valid: Optional[Tensor] = None) -> Tensor:
    """``((giou + 1) / 2) ** power``, rescaled so that the best pair of each image (and branch) has 1.

    Args:
        giou: (..., G, Q) in [-1, 1], one image (and layer) per leading index.
        power: exponent of f2; the paper's best is 0.5, and 0 gives 1 everywhere.
        valid: (..., G) bool, True for ground truth and False for padding; None where there is no padding.

    Returns:
        (..., G, Q) in [0, 1]; rescaling never lowers a value.

    Source: arXiv:2304.04742 Eq. 4. The released code shares one modulator per class over the batch; the paper's
    formula, and this one, is per (query, ground truth) pair and per image.
    """
    modulator = ((giou + 1) / 2).clamp_(0, 1).pow_(power)
    if modulator.numel() == 0:
        return modulator
    counted = modulator if valid is None else modulator.masked_fill(~valid[..., None], 0)
    return modulator.div_(counted.amax(dim=(-2, -1), keepdim=True).clamp_(min=1e-8)).clamp_(max=1)


def metric_modulator(
    metric: str,
    giou: Values,
    dice: Values,
    power: float = 0.5,
    valid: Optional[Tensor] = None,
    is_thing: Optional[Tensor] = None,
) -> Tensor:
    """Modulator of the class cost, as :func:`position_modulator`, for any metric.

    Args:
        giou: gives the GIoU in [-1, 1] of the boxes, (..., G, Q).
        dice: gives the dice cost in [0, 1] of the masks, (..., G, Q).
        power, valid: see :func:`position_modulator`.
        is_thing: (..., G) bool; where False, masks count whatever the metric. None where all are things.

    Returns:
        (..., G, Q) in [0, 1]; the best pair of each image (and layer) has 1.
    """
    kinds = None if is_thing is None else is_thing[..., None]
    position = position_quality(metric, lambda: (giou() + 1) / 2, lambda: 1 - dice(), kinds)
    return position_modulator(2 * position - 1, power, valid)
