"""Position-modulated matching cost, and the batched form of mmdet's costs."""

from functools import singledispatch
from typing import Optional

from mmdet.models.task_modules.assigners.match_cost import (
    BaseMatchCost,
    BBoxL1Cost,
    CrossEntropyLossCost,
    DiceCost,
    FocalLossCost,
    IoUCost,
)
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_stable.models.settings import check_weights

from .pairwise import Pairwise
from .position_metric import check_position_metric, metric_modulator, position_modulator, uses_masks


def focal_cost(scores: Tensor, alpha: float = 0.25, gamma: float = 2.0, eps: float = 1e-12) -> Tensor:
    """Focal loss of calling a query positive, minus that of calling it background.

    Args:
        scores: any shape, probabilities in [0, 1] of the ground truth's class, float32.

    Returns:
        The cost, of the same shape; finite for every score in [0, 1].

    Source: arXiv:2304.04742 Eq. 4; with unmodulated scores it is the class cost of Deformable-DETR and DINO.
    """
    background = 1 - scores
    positive = (scores + eps).log_().mul_(background.pow(gamma)).mul_(-alpha)
    negative = (background + eps).log_().mul_(scores.pow(gamma)).mul_(alpha - 1)
    return positive.sub_(negative)


@TASK_UTILS.register_module()
class PositionModulatedFocalCost(FocalLossCost):
    """Focal class cost of the score times a function of the position: ``q = p * f2((giou + 1) / 2)`` (PMC).

    Works in mmdet's ``HungarianAssigner`` and, batched, in :class:`StableHungarianAssigner`.

    Args:
        alpha, gamma, eps: as in mmdet's ``FocalLossCost``.
        f2_power: exponent of ``f2(x) = x ** f2_power``, at least 0. 0 switches the modulation off and leaves
            ``FocalLossCost``.
        weight: factor of the cost.
        position_metric: whether ``'box'``, ``'mask'`` or their ``'mean'`` says how well a query is placed; see
            :mod:`~mmdet_stable.models.task_modules.position_metric`. Masks need :class:`StableHungarianAssigner`.
        num_things: classes from this number on are stuff, which masks place whatever the metric; None for no stuff.

    Raises:
        ValueError: if ``f2_power`` or ``weight`` is negative, or for an unknown ``position_metric``.

    Source: arXiv:2304.04742 Eq. 4 and Table 9.
    """

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        eps: float = 1e-12,
        f2_power: float = 0.5,
        weight: float = 1.0,
        position_metric: str = 'box',
        num_things: Optional[int] = None,
    ) -> None:
        check_weights(type(self).__name__, [('weight', weight)])
        super().__init__(alpha=alpha, gamma=gamma, eps=eps, weight=weight)
        if f2_power < 0:
            raise ValueError(
                f'f2_power={f2_power}: a negative power would prefer badly placed queries; use 0 (off) or more'
            )
        self.f2_power = f2_power
        self.position_metric = check_position_metric(position_metric)
        self.num_things = num_things

    def __call__(
        self, pred_instances: InstanceData, gt_instances: InstanceData, img_meta: Optional[dict] = None, **kwargs
    ) -> Tensor:
        """Cost of one image.

        Args:
            pred_instances: ``scores`` (Q, C) logits and ``bboxes`` (Q, 4) absolute xyxy.
            gt_instances: ``labels`` (G,) and ``bboxes`` (G, 4) absolute xyxy. Boxes are not needed where ``f2_power``
                is 0.

        Returns:
            (Q, G) float32.

        Raises:
            ValueError: without boxes, or where masks are to be compared.
        """
        if self.f2_power > 0 and 'bboxes' not in pred_instances:
            raise ValueError(
                'PositionModulatedFocalCost looks at predicted boxes, but this head, as that of Mask2Former, predicts '
                "none: take 'ClassificationCost' in match_costs, or set f2_power=0 where scores are sigmoids"
            )
        if compares_masks(self):
            raise ValueError(
                f'position_metric={self.position_metric!r}, num_things={self.num_things}: only batches of a head that '
                "predicts masks, e.g. MaskDINOHead, are matched by masks; set 'box' and None"
            )
        logits = pred_instances.scores.float()[:, gt_instances.labels].T
        modulator = None
        if self.f2_power > 0:
            giou = bbox_overlaps(gt_instances.bboxes.float(), pred_instances.bboxes.float(), mode='giou')
            modulator = position_modulator(giou, self.f2_power)
        return self.modulated(logits, modulator).T * self.weight

    def modulated(self, logits: Tensor, modulator: Optional[Tensor]) -> Tensor:
        """Unweighted cost from the logits of the ground truths' classes and the modulator; all (..., G, Q)."""
        scores = logits.sigmoid()
        if modulator is not None:
            scores = scores * modulator
        return focal_cost(scores, self.alpha, self.gamma, self.eps)

    def batched(self, pairwise: Pairwise) -> Tensor:
        """(K, B, G, Q) weighted cost of all layers and images."""
        targets = pairwise.targets
        modulator = None
        if self.f2_power > 0:
            modulator = metric_modulator(
                self.position_metric,
                giou=lambda: pairwise.giou,
                dice=lambda: pairwise.masks.dice,
                power=self.f2_power,
                valid=targets.valid if targets.is_padded else None,
                is_thing=None if self.num_things is None else targets.labels < self.num_things,
            )
        return self.modulated(pairwise.logits, modulator).mul_(self.weight)


def batched_cost(cost: BaseMatchCost, pairwise: Pairwise) -> Tensor:
    """The weighted cost of all layers and images.

    A cost of one's own gets a batched form by a method ``batched(pairwise)``; mmdet's costs have theirs here. Any other
    cost of boxes and scores is called image by image, as mmdet would.

    Returns:
        (K, B, G, Q) float32, finite and meaningless in padded ground truths.

    Raises:
        ValueError: if a ``batched`` of one's own returns another shape.
    """
    if not has_batched_form(cost):
        return _one_by_one(cost, pairwise)
    if not hasattr(cost, 'batched'):
        return _mmdet_cost(cost, pairwise)
    values = cost.batched(pairwise)
    num_layers, num_images, num_queries = pairwise.predictions.logits.shape[:3]
    expected = (num_layers, num_images, pairwise.targets.labels.shape[1], num_queries)
    if values.shape != expected:
        raise ValueError(
            f'{type(cost).__name__}.batched returned {tuple(values.shape)}, but (layers, images, ground truths, '
            f'queries) are {expected}'
        )
    return values


def has_batched_form(cost: BaseMatchCost) -> bool:
    """Whether :func:`batched_cost` computes it at once.

    The batched form of a parent class does not count for a subclass with a ``__call__`` of its own.
    """
    if hasattr(cost, 'batched'):
        return issubclass(_definer(cost, 'batched'), _definer(cost, '__call__'))
    known = _mmdet_cost.dispatch(type(cost)) is not _mmdet_cost.dispatch(object)
    return known and _definer(cost, '__call__') in _mmdet_cost.registry and _has_usual_options(cost)


def compares_masks(cost: BaseMatchCost) -> bool:
    """Whether it needs predicted masks."""
    if isinstance(cost, PositionModulatedFocalCost):
        return cost.f2_power > 0 and (uses_masks(cost.position_metric) or cost.num_things is not None)
    return isinstance(cost, (CrossEntropyLossCost, DiceCost))


def _definer(cost: BaseMatchCost, method: str) -> type:
    """The class that gives a cost its method."""
    return next(parent for parent in type(cost).__mro__ if method in vars(parent))


def _has_usual_options(cost: BaseMatchCost) -> bool:
    """Whether the options of one of mmdet's costs are those that its batched form computes."""
    return (
        not getattr(cost, 'binary_input', False)
        and getattr(cost, 'box_format', 'xywh') == 'xywh'
        and getattr(cost, 'iou_mode', 'giou') in ('iou', 'giou')
        and getattr(cost, 'use_sigmoid', True)
        and (getattr(cost, 'pred_act', True), getattr(cost, 'naive_dice', True)) == (True, True)
        and (not isinstance(cost, DiceCost) or cost.eps == 1)
    )


@singledispatch
def _mmdet_cost(cost: BaseMatchCost, pairwise: Pairwise) -> Tensor:
    """Weighted, for the costs of mmdet that the DETR family uses."""
    raise TypeError(f'{type(cost).__name__} has no batched form')


@_mmdet_cost.register
def _(cost: FocalLossCost, pairwise: Pairwise) -> Tensor:
    return focal_cost(pairwise.logits.sigmoid(), cost.alpha, cost.gamma, cost.eps).mul_(cost.weight)


@_mmdet_cost.register
def _(cost: BBoxL1Cost, pairwise: Pairwise) -> Tensor:
    return pairwise.l1 * cost.weight


@_mmdet_cost.register
def _(cost: IoUCost, pairwise: Pairwise) -> Tensor:
    return (pairwise.giou if cost.iou_mode == 'giou' else pairwise.iou) * -cost.weight


@_mmdet_cost.register
def _(cost: CrossEntropyLossCost, pairwise: Pairwise) -> Tensor:
    return pairwise.masks.cross_entropy * cost.weight


@_mmdet_cost.register
def _(cost: DiceCost, pairwise: Pairwise) -> Tensor:
    return pairwise.masks.dice * cost.weight


def _one_by_one(cost: BaseMatchCost, pairwise: Pairwise) -> Tensor:
    """Any cost of mmdet's interface, image by image and layer by layer."""
    logits, boxes_cxcywh, targets = pairwise.predictions.logits, pairwise.predictions.boxes_cxcywh, pairwise.targets
    boxes_xyxy = bbox_cxcywh_to_xyxy(boxes_cxcywh) * targets.whwh[:, None]
    num_layers, num_images, num_queries = boxes_xyxy.shape[:3]
    costs = logits.new_zeros(num_layers, num_images, targets.labels.shape[1], num_queries)
    for image, (num, img_shape) in enumerate(zip(targets.num_gts, targets.img_shapes)):
        gts = InstanceData(labels=targets.labels[image, :num], bboxes=targets.boxes_xyxy[image, :num])
        for layer in range(num_layers):
            preds = InstanceData(scores=logits[layer, image], bboxes=boxes_xyxy[layer, image])
            if pairwise.has_masks:
                preds.masks, gts.masks = pairwise.masks.at_points(layer, image)
            costs[layer, image, :num] = cost(preds, gts, dict(img_shape=img_shape)).T
    return costs
