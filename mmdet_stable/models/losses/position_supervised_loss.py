"""Position-supervised loss: classification whose positive target is how well the box is placed."""

import math
from typing import Callable, Dict, NamedTuple, Optional, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmdet_stable.models.settings import check_weights
from mmdet_stable.utils import cache_sized_parts


def identity(t: Tensor) -> Tensor:
    """``t``."""
    return t


class PositionTarget(NamedTuple):
    """``f1``: ``curve(s ** iou_power * p ** score_power)``, of the IoU s and the score p of the matched box.

    Attributes:
        iou_power, score_power: exponents, from 0 up.
        curve: from [0, 1] to [0, 1].
    """

    iou_power: float
    score_power: float = 0.0
    curve: Callable[[Tensor], Tensor] = identity  # by name, as a lambda cannot be pickled

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


# Every f1 of Table 7, under the paper's notation. Those with p are ablations that must lose: only position may
# supervise.
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


def position_target(f1: Union[str, Dict[str, float]]) -> PositionTarget:
    """The target function of a config: one of :data:`POSITION_TARGETS` by name, or the exponents of
    :class:`PositionTarget`, e.g. ``dict(iou_power=4)``.

    Raises:
        ValueError: for an unknown name or exponent, or a negative one.
    """
    if isinstance(f1, str):
        if f1 not in POSITION_TARGETS:
            raise ValueError(f'unknown f1={f1!r}; known are {", ".join(map(repr, POSITION_TARGETS))}, and exponents')
        return POSITION_TARGETS[f1]
    if 'iou_power' not in f1 or f1.keys() - {'iou_power', 'score_power'} or min(f1.values()) < 0:
        raise ValueError(f'f1={f1}: give iou_power and, if you like, score_power, from 0 up')
    return PositionTarget(f1['iou_power'], f1.get('score_power', 0.0))


def position_supervised_loss(
    logits: Tensor, labels: Tensor, targets: Tensor, *, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """Focal loss whose positive target is a localisation quality instead of 1, summed over classes.

    ``alpha * |t - p|^gamma * BCE(p, t)`` for the class of a positive, ``(1 - alpha) * p^gamma * BCE(p, 0)`` everywhere
    else.

    Args:
        logits: (..., C) raw scores.
        labels: (...) int64 in [0, C]; C means background.
        targets: (...) in [0, 1], detached; ignored where the label is background.
        gamma: 0, or 1 or more; with others, gradients may not be finite.

    Returns:
        (...) loss of each query in float32, finite for any finite logits, also in float16.

    Raises:
        ValueError: if the shapes disagree.

    Source: arXiv:2304.04742 Eq. 3; the released code evaluates log(p) without protection, here it is taken from the
        logits.
    """
    if labels.shape != logits.shape[:-1] or targets.shape != labels.shape:
        raise ValueError(
            f'expected logits (..., C), labels (...) and targets (...), got {tuple(logits.shape)}, '
            f'{tuple(labels.shape)} and {tuple(targets.shape)}'
        )
    logits = logits.float()
    num_classes = logits.shape[-1]
    # The column of the positive class, corrected after all columns were taken for background. Doing so in every row, by
    # zero where the row is background, needs no list of positives, for whose length the host would have to wait.
    logit = logits.gather(-1, labels.clamp(max=num_classes - 1)[..., None])[..., 0]
    score, target = logit.sigmoid(), targets.to(logit.dtype)
    positive = (
        F.binary_cross_entropy_with_logits(logit, target, reduction='none') * (target - score).abs().pow(gamma) * alpha
    )
    as_background = F.softplus(logit) * score.pow(gamma) * (1 - alpha)
    correction = torch.where(labels < num_classes, positive - as_background, 0)
    return _BackgroundFocalLoss.apply(logits, gamma, alpha) + correction


class _BackgroundFocalLoss(torch.autograd.Function):
    """``(1 - alpha) * p^gamma * BCE(p, 0)`` of all classes, summed over classes: (..., C) -> (...).

    This runs over every query and class, and is most of the set loss's work. Value and derivative share their terms, so
    both are computed in one go; autograd would keep four tensors of the logits' size and visit each again.
    """

    @staticmethod
    def forward(ctx, logits: Tensor, gamma: float, alpha: float) -> Tensor:
        losses = logits.new_empty(logits.shape[:-1])
        derivatives = torch.empty_like(logits, memory_format=torch.contiguous_format)
        parts = cache_sized_parts(logits.shape, logits.device)
        for x, loss, derivative in zip(logits.split(parts), losses.split(parts), derivatives.split(parts)):
            scores, cross_entropy = x.sigmoid(), F.softplus(x)
            weights = scores.pow(gamma).mul_(1 - alpha)
            loss.copy_((weights * cross_entropy).sum(-1))
            # d/dx [p^gamma * softplus(x)] = p^gamma * (gamma * (1 - p) * softplus(x) + p)
            slope = cross_entropy.addcmul_(cross_entropy, scores, value=-1).mul_(gamma).add_(scores)
            torch.mul(weights, slope, out=derivative)
        ctx.save_for_backward(derivatives)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> Tuple[Tensor, None, None]:
        (derivatives,) = ctx.saved_tensors
        return derivatives * grad[..., None], None, None


@MODELS.register_module()
class PositionSupervisedLoss(QualityFocalLoss):
    """Position-supervised loss (PSL): a classification loss whose positive target is ``f1(IoU)`` of the matched box.

    It is a ``QualityFocalLoss`` because mmdet's DETR heads hand (labels, IoU) to every subclass of that, all but those
    of DDQ-DETR and Grounding-DINO. Rescaling the targets of an image needs to know where the image ends, which a loss
    on flattened queries does not: it is the option ``target_rescale`` of this package's heads.

    Args:
        f1: a name, e.g. ``'s^2'`` (default) or ``'1'``, which is the focal loss, or exponents, e.g.
            ``dict(iou_power=4, score_power=0)``; see :func:`position_target`.
        gamma: as in the focal loss: 0, or 1 or more. Between these, its gradient grows without bound where the score
            meets the target.
        alpha: as in the focal loss.
        reduction: ``'mean'``, ``'sum'`` or ``'none'``.
        loss_weight: factor of the loss.

    Raises:
        ValueError: for an unknown ``f1``, another ``gamma``, or a negative ``loss_weight``.

    Source: arXiv:2304.04742 Eq. 3, Table 7 (f1) and Table 8 (loss_weight).
    """

    def __init__(
        self,
        f1: Union[str, Dict[str, float]] = 's^2',
        gamma: float = 2.0,
        alpha: float = 0.25,
        use_sigmoid: bool = True,
        reduction: str = 'mean',
        loss_weight: float = 1.0,
    ) -> None:
        check_weights(type(self).__name__, [('loss_weight', loss_weight)])
        if not (gamma == 0 or 1 <= gamma < math.inf):
            raise ValueError(
                f'gamma={gamma}: set it to 0, or to a number from 1 up, as 2.0; otherwise the gradient is not finite '
                'where the score meets the target'
            )
        super().__init__(use_sigmoid=use_sigmoid, beta=gamma, reduction=reduction, loss_weight=loss_weight)
        if not hasattr(type(self), 'f1'):  # a subclass may have one of its own
            self.f1 = position_target(f1)
        self.gamma = gamma
        self.alpha = alpha

    def forward(
        self,
        pred: Tensor,
        target: Tuple[Tensor, Tensor],
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """The loss of N queries, as mmdet's heads call it.

        Args:
            pred: (N, C) logits.
            target: labels (N,) in [0, C], C for background, and IoU (N,) of the matched boxes.
            weight: (N,) factor of each query.
            avg_factor: divisor of the sum; only with reduction ``'mean'``.

        Returns:
            The reduced loss, or (N,) with reduction ``'none'``.

        Raises:
            ValueError: for labels alone.
        """
        if isinstance(target, Tensor):
            raise ValueError(
                'PositionSupervisedLoss supervises by the IoU of matched boxes, but this head hands its loss_cls '
                'labels only, as those of DDQ-DETR and Grounding-DINO do; use another head, or another loss in this one'
            )
        labels, ious = target
        column = labels.clamp(max=pred.shape[1] - 1)[:, None]
        scores = pred.detach().gather(1, column)[:, 0].float().sigmoid()
        targets = self.f1(ious.float(), scores)
        return self.loss_for_targets(pred, labels, targets, weight, avg_factor, reduction_override)

    def loss_for_targets(
        self,
        pred: Tensor,
        labels: Tensor,
        targets: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """The loss for targets in [0, 1] to which f1 and any rescaling are already applied; any leading shape."""
        loss = position_supervised_loss(pred, labels, targets, gamma=self.gamma, alpha=self.alpha)
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
