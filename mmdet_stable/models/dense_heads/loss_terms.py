"""The terms of the set loss, and the matched pairs that they are made of."""

from functools import cached_property
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Tuple, TypeVar

import torch
from mmdet.models.losses import GIoULoss, QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from mmdet_stable.models.losses import PositionSupervisedLoss, rescale_targets
from mmdet_stable.models.task_modules import Pairwise, aligned_iou_and_giou
from mmdet_stable.structures import BatchTargets, Supervised

Result = TypeVar('Result')
TARGET_RESCALES = (None, 'one', 'max_iou')
IOU_EPS = 1e-6  # smallest area in square pixels, as in mmdet's GIoULoss


class MatchedPairs:
    """The M matched pairs of all groups of a training step, and what loss terms ask of them.

    Every quantity is computed in float32, once, for all groups together, and only when asked for: pairs are few, and
    each call has its price.

    Args:
        groups: predictions with their matches; half precision is raised to float32.
        targets: padded ground truth of the same B images.
    """

    def __init__(self, groups: Sequence[Supervised], targets: BatchTargets) -> None:
        self.groups = [group._replace(predictions=group.predictions.float()) for group in groups]
        self.targets = targets
        self._results: Dict[Callable, Any] = {}

    def once(self, function: Callable[['MatchedPairs'], Result]) -> Result:
        """What a function makes of these pairs, computed when first asked for: terms share it by sharing the
        function."""
        if function not in self._results:
            self._results[function] = function(self)
        return self._results[function]

    @cached_property
    def sizes(self) -> List[int]:
        """Pairs of each group; M in all."""
        return [len(group.matches.query_inds) for group in self.groups]

    @cached_property
    def ground_truth(self) -> Tuple[Tensor, Tensor]:
        """Index of the pairs' ground truths, (M,) and (M,), in a tensor of (B, G, ...)."""
        images, gts = zip(*(group.matches.ground_truth for group in self.groups))
        return torch.cat(images), torch.cat(gts)

    @cached_property
    def pred_cxcywh(self) -> Tensor:
        """(M, 4) predicted boxes, normalised."""
        return torch.cat([group.predictions.boxes_cxcywh[group.matches.query] for group in self.groups])

    @cached_property
    def gt_cxcywh(self) -> Tensor:
        """(M, 4) boxes of the ground truth, normalised."""
        return self.targets.boxes_cxcywh[self.ground_truth]

    @cached_property
    def pred_xyxy(self) -> Tensor:
        """(M, 4) predicted boxes in pixels."""
        return bbox_cxcywh_to_xyxy(self.pred_cxcywh) * self.targets.whwh[self.ground_truth[0]]

    @cached_property
    def gt_xyxy(self) -> Tensor:
        """(M, 4) boxes of the ground truth in pixels."""
        return self.targets.boxes_xyxy[self.ground_truth]

    @cached_property
    def iou_and_giou(self) -> Tuple[Tensor, Tensor]:
        """(M,) IoU in [0, 1] and (M,) generalised IoU in [-1, 1] of the boxes, with gradient."""
        return aligned_iou_and_giou(self.pred_xyxy, self.gt_xyxy, IOU_EPS)

    @property
    def quality(self) -> Tensor:
        """(M,) in [0, 1]: how well each query is placed, without gradient."""
        return self.iou_and_giou[0].detach()

    def layer_sums(self, values: Tensor) -> List[Tensor]:
        """For a value of each pair, (M,): the sum of every layer, (K,), of every group."""
        shapes = [(group.matches.num_layers, group.matches.num_per_layer) for group in self.groups]
        return [part.view(shape).sum(1) for part, shape in zip(values.split(self.sizes), shapes)]


class LossTerm(Protocol):
    """One term of the set loss.

    Attributes:
        name: its key, behind the prefix of the layer, e.g. ``'loss_cls'``.
        sync_avg_factor: whether its divisor is averaged over all processes; otherwise it is the process's own. None
            for a term of means, which is divided by nothing.
    """

    name: str
    sync_avg_factor: Optional[bool]

    def __call__(self, pairs: MatchedPairs) -> Sequence[Optional[Tensor]]:
        """The weighted loss of every layer, (K,), of every group, summed over pairs (or queries); None for groups which
        do not have this loss."""


class PairTerm:
    """A term that is the sum of a loss of each pair."""

    name: str
    sync_avg_factor: Optional[bool] = True

    def __call__(self, pairs: MatchedPairs) -> Sequence[Optional[Tensor]]:
        return pairs.layer_sums(self.values(pairs))

    def values(self, pairs: MatchedPairs) -> Tensor:
        """(M,) weighted loss of each pair."""
        raise NotImplementedError


class L1Term(PairTerm):
    """L1 loss, or any other of mmdet's, on normalised cxcywh boxes."""

    name = 'loss_bbox'

    def __init__(self, loss_bbox: nn.Module) -> None:
        self.loss_bbox = loss_bbox

    def values(self, pairs: MatchedPairs) -> Tensor:
        values = pairs.pred_cxcywh
        if len(values):  # without pairs, mmdet's losses would return scalars
            values = self.loss_bbox(values, pairs.gt_cxcywh, reduction_override='none')
        return values.sum(-1)


class IoUTerm(PairTerm):
    """GIoU loss, or any other of mmdet's, on boxes in pixels."""

    name = 'loss_iou'

    def __init__(self, loss_iou: Any) -> None:
        self.loss_iou = loss_iou

    def values(self, pairs: MatchedPairs) -> Tensor:
        if type(self.loss_iou) is GIoULoss and self.loss_iou.eps == IOU_EPS:
            # The same in effect, where mmdet's waits for the device and computes the IoU again.
            return (1 - pairs.iou_and_giou[1]) * self.loss_iou.loss_weight
        if not len(pairs.pred_xyxy):
            return pairs.pred_xyxy.sum(-1)
        return self.loss_iou(pairs.pred_xyxy, pairs.gt_xyxy, reduction_override='none')


class ClassTerm:
    """Classification loss of every query and class.

    Args:
        loss_cls: any of mmdet's classification losses with sigmoid. As in mmdet's own heads, a subclass of
            ``QualityFocalLoss`` receives (labels, IoU of the matched box).
        dn_loss_cls: that of denoising queries.
        target_rescale: what the largest target of an image (and layer) is raised to: ``'one'``, ``'max_iou'`` (the
            largest IoU of any of its query and ground-truth pairs), or None for no rescaling. For
            ``PositionSupervisedLoss`` only.
        sync_avg_factor: average the divisor over all processes, as box losses always do.

    Raises:
        ValueError: for an unknown ``target_rescale``.

    Source: arXiv:2304.04742 Sec. 3.1.
    """

    name = 'loss_cls'

    def __init__(
        self,
        loss_cls: nn.Module,
        dn_loss_cls: Optional[nn.Module] = None,
        target_rescale: Optional[str] = None,
        sync_avg_factor: bool = False,
    ) -> None:
        if target_rescale not in TARGET_RESCALES:
            raise ValueError(f'target_rescale={target_rescale!r}: known are {TARGET_RESCALES}')
        self.loss_cls = loss_cls
        self.dn_loss_cls = dn_loss_cls or loss_cls
        self.target_rescale = target_rescale
        self.sync_avg_factor: Optional[bool] = sync_avg_factor

    def __call__(self, pairs: MatchedPairs) -> List[Tensor]:
        qualities = self.quality(pairs).split(pairs.sizes)
        return [self._group_loss(group, pairs.targets, quality) for group, quality in zip(pairs.groups, qualities)]

    def quality(self, pairs: MatchedPairs) -> Tensor:
        """(M,) in [0, 1]: how well each query is placed."""
        return pairs.quality

    def pairwise_quality(self, pairwise: Pairwise) -> Tensor:
        """(K, B, G, Q) the same of any query and ground truth."""
        return pairwise.iou

    def _group_loss(self, group: Supervised, targets: BatchTargets, quality: Tensor) -> Tensor:
        """(K,) loss of one group, summed over images and queries; ``quality`` is that of its pairs."""
        logits, matches = group.predictions.logits, group.matches
        loss_cls = self.dn_loss_cls if group.is_denoising else self.loss_cls
        num_classes = logits.shape[-1]
        if logits.numel() == 0:  # no denoising queries; mmcv's CUDA focal loss does not take empty tensors
            return logits.sum((1, 2, 3))
        if group.predictions.class_agnostic:
            targets = targets.class_agnostic()
        gt_labels = targets.labels[matches.ground_truth]
        labels = gt_labels.new_full(logits.shape[:3], num_classes).index_put(matches.query, gt_labels)

        def at_matches(values: Tensor) -> Tensor:
            return logits.new_zeros(logits.shape[:3]).index_put(matches.query, values)

        if isinstance(loss_cls, PositionSupervisedLoss):
            scores = logits.detach()[matches.query + (gt_labels,)].sigmoid()
            position_targets = torch.ones_like(quality)
            if not group.predictions.plain_targets:
                position_targets = self._rescaled(loss_cls.f1(quality, scores), group, targets)
            loss = loss_cls.loss_for_targets(logits, labels, at_matches(position_targets), reduction_override='none')
        elif isinstance(loss_cls, QualityFocalLoss):
            target = labels.flatten(), at_matches(quality).flatten()
            loss = loss_cls(logits.reshape(-1, num_classes), target, reduction_override='none')
        else:
            loss = loss_cls(logits.reshape(-1, num_classes), labels.flatten(), reduction_override='none')
        loss = loss.reshape(*logits.shape[:3], -1)  # some losses have summed over classes
        if group.in_loss is not None:
            loss = loss * group.in_loss[..., None]
        return loss.sum((1, 2, 3))

    def _rescaled(self, position_targets: Tensor, group: Supervised, targets: BatchTargets) -> Tensor:
        """The targets of a group's pairs, rescaled per image and layer as configured."""
        if self.target_rescale is None:
            return position_targets
        predictions, matches = group.predictions, group.matches
        num_layers, num_images = predictions.logits.shape[:2]
        ceilings = position_targets.new_ones(num_layers * num_images)
        if self.target_rescale == 'max_iou' and targets.labels.numel():
            ious = self.pairwise_quality(Pairwise(predictions.detach(), targets))
            ious = ious * targets.valid[..., None]
            if group.in_loss is not None:
                ious = ious * group.in_loss[:, None]
            ceilings = ious.flatten(2).amax(2).flatten()
        return rescale_targets(position_targets, matches.layer_inds * num_images + matches.image_inds, ceilings)
