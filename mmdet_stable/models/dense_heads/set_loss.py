"""The one set loss of this package: decoder layers, encoder and denoising queries all go through it."""

from typing import Dict, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmdet.models.losses import GIoULoss, QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import reduce_mean
from mmengine.dist import is_distributed
from torch import Tensor, nn

from mmdet_stable.models.losses import PositionSupervisedLoss, rescale_targets
from mmdet_stable.models.task_modules import Pairwise, aligned_iou_and_giou
from mmdet_stable.structures import BatchTargets, Branches, Matches

TARGET_RESCALES = (None, 'one', 'max_iou')


class LossGroup(NamedTuple):
    """Branches whose matches are known, and the classification loss they get.

    Where ``valid``, (B, Q) bool, is given, queries at which it is False get no class loss.
    """

    branches: Branches
    matches: Matches
    loss_cls: nn.Module
    valid: Optional[Tensor] = None


class SetLoss:
    """Class, L1 and IoU losses of all branches of a training step, computed together.

    Args:
        loss_bbox: loss on normalised cxcywh boxes, e.g. ``L1Loss``.
        loss_iou: loss on absolute xyxy boxes, e.g. ``GIoULoss``.
        target_rescale: what the largest target of an image (and branch) is raised to: ``'one'``, ``'max_iou'`` (the
            largest IoU of any of its query and ground-truth pairs), or None for no rescaling. For
            ``PositionSupervisedLoss`` only.
        sync_cls_avg_factor: average the divisor of the class loss over all processes, as the box losses always do.

    Raises:
        ValueError: for an unknown ``target_rescale``.

    Source: arXiv:2304.04742 Sec. 3.1; the box losses are DETR's.
    """

    def __init__(
        self,
        loss_bbox: nn.Module,
        loss_iou: nn.Module,
        target_rescale: Optional[str] = None,
        sync_cls_avg_factor: bool = False,
    ) -> None:
        if target_rescale not in TARGET_RESCALES:
            raise ValueError(f'target_rescale={target_rescale!r}: known are {TARGET_RESCALES}')
        self.loss_bbox = loss_bbox
        self.loss_iou = loss_iou
        self.target_rescale = target_rescale
        self.sync_cls_avg_factor = sync_cls_avg_factor

    def __call__(self, groups: Sequence[LossGroup], targets: BatchTargets) -> Dict[str, Tensor]:
        """The weighted losses ``{prefix}loss_cls``, ``{prefix}loss_bbox`` and ``{prefix}loss_iou`` of every branch, in
        float32.

        Class losses are divided by the branch's number of positives, box losses by its mean over all processes; both at
        least 1. ``loss_cls`` is any mmdet classification loss with sigmoid; as in mmdet's own heads, a subclass of
        ``QualityFocalLoss`` receives (labels, IoU of the matched box).
        """
        with torch.autocast(targets.whwh.device.type, enabled=False):
            groups = [group._replace(branches=group.branches.float()) for group in groups]
            # The positives of all groups go through the box losses together: they are few, and each call has its price.
            sizes = [len(group.matches.query_inds) for group in groups]
            pos_cxcywh = torch.cat([branches.boxes_cxcywh[matches.query] for branches, matches, *_ in groups])
            image_inds, gt_inds = (torch.cat(inds) for inds in zip(*(group.matches.ground_truth for group in groups)))
            pos_xyxy = bbox_cxcywh_to_xyxy(pos_cxcywh) * targets.whwh[image_inds]
            gt_xyxy = targets.boxes_xyxy[image_inds, gt_inds]
            quality, giou = aligned_iou_and_giou(pos_xyxy, gt_xyxy, getattr(self.loss_iou, 'eps', 1e-6))
            bbox = iou = pos_cxcywh.sum(-1)  # for no positives at all, where mmdet's losses would return scalars
            if len(image_inds):
                gt_cxcywh = targets.boxes_cxcywh[image_inds, gt_inds]
                bbox = self.loss_bbox(pos_cxcywh, gt_cxcywh, reduction_override='none').sum(-1)
                iou = self._iou_loss(pos_xyxy, gt_xyxy, giou)

            losses: Dict[str, Tensor] = {}
            for group, *parts in zip(groups, quality.detach().split(sizes), bbox.split(sizes), iou.split(sizes)):
                losses.update(self._group_losses(group, targets, *parts))
        return losses

    def _iou_loss(self, pos_xyxy: Tensor, gt_xyxy: Tensor, giou: Tensor) -> Tensor:
        """(M,) weighted loss of the matched boxes; mmdet's GIoULoss, which waits for the device, only in effect."""
        if type(self.loss_iou) is GIoULoss:
            return self.loss_iou.loss_weight * (1 - giou)
        return self.loss_iou(pos_xyxy, gt_xyxy, reduction_override='none')

    def _group_losses(
        self, group: LossGroup, targets: BatchTargets, quality: Tensor, bbox: Tensor, iou: Tensor
    ) -> Dict[str, Tensor]:
        """Reduce the per-pair values (M,) of one group, and add its class loss."""
        branches, matches = group.branches, group.matches
        cls = self._classification_loss(group, targets.of(branches), quality)
        local, over_ranks = self._avg_factors(matches.num_per_branch, cls)
        shape = (matches.num_branches, matches.num_per_branch)
        terms = dict(
            loss_cls=cls / (over_ranks if self.sync_cls_avg_factor else local),
            loss_bbox=bbox.view(shape).sum(1) / over_ranks,
            loss_iou=iou.view(shape).sum(1) / over_ranks,
        )
        return {
            prefix + name: loss
            for name, term in terms.items()
            for prefix, loss in zip(branches.prefixes, term * branches.loss_weight)
        }

    def _classification_loss(self, group: LossGroup, targets: BatchTargets, quality: Tensor) -> Tensor:
        """(S,) class loss, summed over images and queries; ``quality`` (M,) is the IoU of the matched boxes."""
        logits, matches, loss_cls = group.branches.logits, group.matches, group.loss_cls
        num_classes = logits.shape[-1]
        if logits.numel() == 0:  # no denoising queries; mmcv's CUDA focal loss does not take empty tensors
            return logits.sum((1, 2, 3))
        gt_labels = targets.labels[matches.ground_truth]
        labels = gt_labels.new_full(logits.shape[:3], num_classes).index_put(matches.query, gt_labels)

        def at_matches(values: Tensor) -> Tensor:
            return logits.new_zeros(logits.shape[:3]).index_put(matches.query, values)

        if isinstance(loss_cls, PositionSupervisedLoss):
            scores = logits.detach()[(*matches.query, gt_labels)].sigmoid()
            quality = self._rescaled(loss_cls.f1(quality, scores), group, targets)
            loss = loss_cls.loss_for_targets(logits, labels, at_matches(quality), reduction_override='none')
        else:
            target = labels.flatten()
            if isinstance(loss_cls, QualityFocalLoss):
                target = (target, at_matches(quality).flatten())
            loss = loss_cls(logits.reshape(-1, num_classes), target, reduction_override='none')
        loss = loss.reshape(*logits.shape[:3], -1)  # QualityFocalLoss has summed over classes
        if group.valid is not None:
            loss = loss * group.valid[..., None]
        return loss.sum((1, 2, 3))

    def _rescaled(self, quality: Tensor, group: LossGroup, targets: BatchTargets) -> Tensor:
        """(M,) targets, rescaled per image and branch as configured."""
        if self.target_rescale is None:
            return quality
        branches, matches = group.branches, group.matches
        num_branches, num_images = branches.logits.shape[:2]
        ceilings = quality.new_ones(num_branches * num_images)
        if self.target_rescale == 'max_iou' and targets.labels.numel() and branches.logits.numel():
            ious = Pairwise(branches.detach(), targets).iou  # 0 in padding, which has no area
            if group.valid is not None:
                ious = ious * group.valid[:, None]
            ceilings = ious.flatten(2).amax(2).flatten()
        return rescale_targets(quality, matches.branch_inds * num_images + matches.image_inds, ceilings)

    @staticmethod
    def _avg_factors(num_positives: int, like: Tensor) -> Tuple[int, Union[int, Tensor]]:
        """Divisors of the losses: this process's positives, and their mean over all processes; both at least 1."""
        local = max(num_positives, 1)
        if not is_distributed():
            return local, local
        return local, reduce_mean(like.new_full((1,), num_positives)).clamp(min=1)
