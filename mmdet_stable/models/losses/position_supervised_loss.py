"""Position-supervised loss: classification whose positive target is how well the box is placed."""
import math
from typing import Callable, Dict, NamedTuple, Optional, Tuple

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor


class PositionTarget(NamedTuple):
    """``f1``: ``curve(s ** iou_power * p ** score_power)`` of the matched box's IoU s and its score p, all in [0, 1]."""

    iou_power: float
    score_power: float = 0.0
    curve: Callable[[Tensor], Tensor] = lambda t: t

    def __call__(self, ious: Tensor, scores: Tensor) -> Tensor:
        """Targets in [0, 1], detached, of the common shape of ``ious`` and ``scores``."""
        targets = ious.detach().pow(self.iou_power)
        if self.score_power:
            targets = targets * scores.detach().pow(self.score_power)
        return self.curve(targets)


def exponential(t: Tensor) -> Tensor:
    """``(e^t - 1) / (e - 1)``."""
    return torch.expm1(t) / math.expm1(1)


def sine(t: Tensor) -> Tensor:
    """``sin(pi * t / 2)``."""
    return torch.sin(t * (math.pi / 2))


# Every f1 of Table 7, under the paper's notation. Those with p are ablations that must lose: only position may supervise.
POSITION_TARGETS: Dict[str, PositionTarget] = {
    '1': PositionTarget(0),
    's^0.5': PositionTarget(0.5),
    's': PositionTarget(1),
    's^2': PositionTarget(2),
    's^3': PositionTarget(3),
    's*p^0.25': PositionTarget(1, 0.25),
    's*p': PositionTarget(1, 1),
    's^2*p': PositionTarget(2, 1),
    '(e^s-1)/(e-1)': PositionTarget(1, curve=exponential),
    'sin(pi*s/2)': PositionTarget(1, curve=sine),
}


def position_supervised_loss(logits: Tensor,
                             labels: Tensor,
                             targets: Tensor,
                             *,
                             gamma: float = 2.0,
                             alpha: float = 0.25) -> Tensor:
    """Focal loss whose positive target is a localisation quality instead of 1.

    ``alpha * |t - p|^gamma * BCE(p, t)`` for the class of a positive, ``(1 - alpha) * p^gamma * BCE(p, 0)`` everywhere else.

    Args:
        logits: (N, C) raw scores.
        labels: (N,) int64 in [0, C]; C means background.
        targets: (N,) in [0, 1], detached; ignored where the label is background.

    Returns:
        (N, C) unreduced loss in float32, finite for any finite logits, also in float16.

    Raises:
        ValueError: if the shapes disagree.

    Source: arXiv:2304.04742 Eq. 3; the released code evaluates log(p) without protection, here it is taken from the logits.
    """
    if logits.dim() != 2 or labels.shape != logits.shape[:1] or targets.shape != labels.shape:
        raise ValueError(f'expected logits (N, C), labels (N,) and targets (N,), got {tuple(logits.shape)}, '
                         f'{tuple(labels.shape)} and {tuple(targets.shape)}')
    logits = logits.float()
    scores = logits.sigmoid()
    background = F.softplus(logits) * scores.pow(gamma) * (1 - alpha)
    # One class per row may be positive. Replacing that one for every row, by itself where the row is background, needs no
    # list of the positives, whose length the host would have to wait for.
    column = labels.clamp(max=logits.shape[1] - 1)[:, None]
    logit, score, target = logits.gather(1, column), scores.gather(1, column), targets[:, None].to(scores.dtype)
    distance = (target - score).abs()
    positive = F.binary_cross_entropy_with_logits(logit, target, reduction='none') * distance.pow(gamma) * alpha
    is_positive = (labels < logits.shape[1])[:, None]
    return background.scatter(1, column, torch.where(is_positive, positive, background.gather(1, column)))


@MODELS.register_module()
class PositionSupervisedLoss(QualityFocalLoss):
    """Position-supervised loss (PSL) as a ``loss_cls`` of any mmdet DETR head.

    mmdet's heads hand (labels, IoU) to every subclass of ``QualityFocalLoss``; the target is ``f1(IoU)``. Rescaling the
    targets of an image needs to know where the image ends, which a loss on flattened queries does not: it is the option
    ``target_rescale`` of :class:`StableDINOHead`.

    Args:
        f1: one of :data:`POSITION_TARGETS`, e.g. ``'s^2'`` (default) or ``'1'``, which is the focal loss.
        gamma, alpha: as in the focal loss.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.
        loss_weight: factor of the loss.

    Raises:
        ValueError: if ``f1`` is unknown.

    Source: arXiv:2304.04742 Eq. 3, Table 7 (f1) and Table 8 (loss_weight).
    """

    def __init__(self,
                 f1: str = 's^2',
                 gamma: float = 2.0,
                 alpha: float = 0.25,
                 use_sigmoid: bool = True,
                 reduction: str = 'mean',
                 loss_weight: float = 1.0) -> None:
        super().__init__(use_sigmoid=use_sigmoid, beta=gamma, reduction=reduction, loss_weight=loss_weight)
        if f1 not in POSITION_TARGETS:
            raise ValueError(f'PositionSupervisedLoss: unknown f1={f1!r}; known are {", ".join(map(repr, POSITION_TARGETS))}')
        self.f1 = POSITION_TARGETS[f1]
        self.gamma = gamma
        self.alpha = alpha

    def forward(self,
                pred: Tensor,
                target: Tuple[Tensor, Tensor],
                weight: Optional[Tensor] = None,
                avg_factor: Optional[float] = None,
                reduction_override: Optional[str] = None) -> Tensor:
        """mmdet's interface.

        Args:
            pred: (N, C) logits.
            target: labels (N,) in [0, C], C for background, and IoU (N,) of the matched boxes.
            weight: (N,) factor of each query.
            avg_factor: divisor of the sum; only with reduction ``'mean'``.

        Returns:
            The reduced loss, or (N,) with reduction ``'none'``.
        """
        labels, ious = target
        column = labels.clamp(max=pred.shape[1] - 1)[:, None]
        scores = pred.detach().gather(1, column)[:, 0].float().sigmoid()
        targets = self.f1(ious.float(), scores)
        return self.loss_for_targets(pred, labels, targets, weight, avg_factor, reduction_override)

    def loss_for_targets(self,
                         pred: Tensor,
                         labels: Tensor,
                         targets: Tensor,
                         weight: Optional[Tensor] = None,
                         avg_factor: Optional[float] = None,
                         reduction_override: Optional[str] = None) -> Tensor:
        """As :meth:`forward`, for targets (N,) in [0, 1] to which f1 and a rescaling were already applied."""
        loss = position_supervised_loss(pred, labels, targets, gamma=self.gamma, alpha=self.alpha).sum(1)
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction_override or self.reduction, avg_factor)


def rescale_targets(targets: Tensor, groups: Tensor, ceilings: Tensor) -> Tensor:
    """Raise the targets of each group so that the largest becomes the group's ceiling; never lower one.

    Args:
        targets: (M,) in [0, 1].
        groups: (M,) int64 in [0, K): the image (and branch) of each target.
        ceilings: (K,) in [0, 1]: 1, or the largest IoU of any (query, ground truth) pair of the image.

    Returns:
        (M,) in [0, 1].

    Source: arXiv:2304.04742 Sec. 3.1 describes both ceilings; the released R50 config uses 1.
    """
    largest = torch.zeros_like(ceilings).scatter_reduce(0, groups, targets, 'amax')
    factors = (ceilings / (largest + 1e-8)).clamp(min=1)
    return (targets * factors[groups]).clamp(max=1)
