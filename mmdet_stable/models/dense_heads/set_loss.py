"""The one set loss of this package: decoder layers, encoder and denoising queries all go through it."""
from typing import Dict, Optional, Tuple, Union

import torch
from mmdet.models.losses import QualityFocalLoss
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmdet.utils import reduce_mean
from mmengine.dist import is_distributed
from torch import Tensor, nn

from mmdet_stable.models.losses import PositionSupervisedLoss, rescale_targets
from mmdet_stable.models.task_modules import Pairwise
from mmdet_stable.structures import BatchTargets, Branches, Matches

TARGET_RESCALES = (None, 'one', 'max_iou')


class SetLoss:
    """Class, L1 and IoU loss of S branches whose matches are known, computed for all branches together.

    Args:
        loss_cls: any mmdet classification loss with sigmoid. A subclass of ``QualityFocalLoss`` receives (labels, IoU), as in
            mmdet's own heads.
        loss_bbox: loss on normalised cxcywh boxes, e.g. ``L1Loss``.
        loss_iou: loss on absolute xyxy boxes, e.g. ``GIoULoss``.
        target_rescale: what the largest target of an image (and branch) is raised to: ``'one'``, ``'max_iou'`` (the largest IoU
            of any of its query and ground-truth pairs), or None for no rescaling. Needs ``PositionSupervisedLoss``.
        sync_cls_avg_factor: average the divisor of the class loss over all processes, as the box losses always do.

    Raises:
        ValueError: for an unknown ``target_rescale``, or one that ``loss_cls`` cannot use.

    Source: arXiv:2304.04742 Sec. 3.1; the box losses are DETR's.
    """

    def __init__(self,
                 loss_cls: nn.Module,
                 loss_bbox: nn.Module,
                 loss_iou: nn.Module,
                 target_rescale: Optional[str] = None,
                 sync_cls_avg_factor: bool = False) -> None:
        if target_rescale not in TARGET_RESCALES:
            raise ValueError(f'target_rescale={target_rescale!r}: known are {TARGET_RESCALES}')
        if target_rescale is not None and not isinstance(loss_cls, PositionSupervisedLoss):
            raise ValueError(f'target_rescale={target_rescale!r} rescales the targets of PositionSupervisedLoss, but loss_cls is '
                             f'{type(loss_cls).__name__}; set target_rescale=None or use PositionSupervisedLoss')
        self.loss_cls = loss_cls
        self.loss_bbox = loss_bbox
        self.loss_iou = loss_iou
        self.target_rescale = target_rescale
        self.sync_cls_avg_factor = sync_cls_avg_factor

    def __call__(self, branches: Branches, targets: BatchTargets, matches: Matches) -> Dict[str, Tensor]:
        """The weighted losses ``{prefix}loss_cls``, ``{prefix}loss_bbox`` and ``{prefix}loss_iou`` of every branch, in float32.

        Class losses are divided by the number of positives, box losses by its mean over all processes; both at least 1.
        """
        with torch.autocast(branches.logits.device.type, enabled=False):
            branches = Branches(branches.logits.float(), branches.boxes_cxcywh.float(), branches.prefixes)
            pos_cxcywh = branches.boxes_cxcywh[matches.branch_inds, matches.image_inds, matches.query_inds]
            pos_xyxy = bbox_cxcywh_to_xyxy(pos_cxcywh) * targets.whwh[matches.image_inds]
            gt_cxcywh = targets.boxes_cxcywh[matches.image_inds, matches.gt_inds]
            gt_xyxy = targets.boxes_xyxy[matches.image_inds, matches.gt_inds]

            cls = self._classification_loss(branches, targets, matches, pos_xyxy, gt_xyxy)
            bbox = self.loss_bbox(pos_cxcywh, gt_cxcywh, reduction_override='none').sum(-1)
            iou = self.loss_iou(pos_xyxy, gt_xyxy, reduction_override='none')

            local, over_ranks = self._avg_factors(matches.num_per_branch, cls)
            shape = (matches.num_branches, matches.num_per_branch)
            terms = dict(
                loss_cls=cls / (over_ranks if self.sync_cls_avg_factor else local),
                loss_bbox=bbox.view(shape).sum(1) / over_ranks,
                loss_iou=iou.view(shape).sum(1) / over_ranks)
        return {prefix + name: loss for name, term in terms.items() for prefix, loss in zip(branches.prefixes, term)}

    def _classification_loss(self, branches: Branches, targets: BatchTargets, matches: Matches, pos_xyxy: Tensor,
                             gt_xyxy: Tensor) -> Tensor:
        """(S,) class loss, summed over images and queries."""
        logits = branches.logits
        num_branches, num_images, num_queries, num_classes = logits.shape
        at_matches = (matches.branch_inds, matches.image_inds, matches.query_inds)
        gt_labels = targets.labels[matches.image_inds, matches.gt_inds]
        labels = gt_labels.new_full(logits.shape[:3], num_classes).index_put(at_matches, gt_labels).flatten()
        rows = logits.reshape(-1, num_classes)
        if isinstance(self.loss_cls, QualityFocalLoss):
            quality = bbox_overlaps(pos_xyxy.detach(), gt_xyxy, is_aligned=True)
            loss_fn = self.loss_cls
            if isinstance(self.loss_cls, PositionSupervisedLoss):
                scores = logits.detach()[(*at_matches, gt_labels)].sigmoid()
                quality = self._rescaled(self.loss_cls.f1(quality, scores), branches, targets, matches)
                loss_fn = self.loss_cls.loss_for_targets
            loss = loss_fn(rows, labels, logits.new_zeros(logits.shape[:3]).index_put(at_matches, quality).flatten(),
                           reduction_override='none')
        else:
            loss = self.loss_cls(rows, labels, reduction_override='none')
        return loss.reshape(num_branches, num_images * num_queries, -1).sum((1, 2))

    def _rescaled(self, quality: Tensor, branches: Branches, targets: BatchTargets, matches: Matches) -> Tensor:
        """(M,) targets, rescaled per image and branch as configured."""
        if self.target_rescale is None:
            return quality
        num_branches, num_images = branches.logits.shape[:2]
        ceilings = quality.new_ones(num_branches * num_images)
        if self.target_rescale == 'max_iou':
            detached = Branches(branches.logits.detach(), branches.boxes_cxcywh.detach(), branches.prefixes)
            ious = Pairwise(detached, targets).iou.masked_fill(~targets.valid[None, :, :, None], 0)
            ceilings = ious.flatten(2).amax(2).flatten() if ious.numel() else ceilings
        return rescale_targets(quality, matches.branch_inds * num_images + matches.image_inds, ceilings)

    @staticmethod
    def _avg_factors(num_positives: int, like: Tensor) -> Tuple[int, Union[int, Tensor]]:
        """Divisors of the losses: this process's positives, and their mean over all processes; both at least 1."""
        local = max(num_positives, 1)
        if not is_distributed():
            return local, local
        return local, reduce_mean(like.new_full((1, ), num_positives)).clamp(min=1)
