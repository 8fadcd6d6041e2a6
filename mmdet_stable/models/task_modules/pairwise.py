"""Quantities of every (ground truth, query) pair of a batch, shared by the match costs."""

from functools import cached_property
from typing import Sequence, Tuple

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from mmdet_stable.structures import BatchTargets, Predictions

from .mask_pairwise import MaskPairwise


class Pairwise:
    """What match costs ask of K layers and B images, computed in float32, once, and only when asked for.

    All results are (K, B, G, Q): ground truths before queries, because scipy solves that orientation about twice as
    fast, and because elementwise work then runs along the long axis. Values in padded ground truths are finite and
    meaningless.

    Args:
        predictions: of K layers; half precision is raised to float32.
        targets: padded ground truth of the same B images.
    """

    def __init__(self, predictions: Predictions, targets: BatchTargets) -> None:
        self.predictions = predictions.float()
        self.targets = targets

    @cached_property
    def logits(self) -> Tensor:
        """(K, B, G, Q) logit that query q gives to the class of ground truth g."""
        return of_gt_classes(self.predictions.logits, self.targets.labels)

    @cached_property
    def l1(self) -> Tensor:
        """(K, B, G, Q) L1 distance of the normalised cxcywh boxes."""
        preds, gts = self._pred_planes(self.predictions.boxes_cxcywh), self._gt_planes(self.targets.boxes_cxcywh)
        distance = (preds[0] - gts[0]).abs_()
        for pred, gt in zip(preds[1:], gts[1:]):
            distance.add_((pred - gt).abs_())
        return distance

    @cached_property
    def giou(self) -> Tensor:
        """(K, B, G, Q) generalised IoU in [-1, 1], of the boxes in pixels."""
        return self._iou_and_giou[1]

    @cached_property
    def iou(self) -> Tensor:
        """(K, B, G, Q) IoU in [0, 1], of the boxes in pixels."""
        return self._iou_and_giou[0]

    @property
    def has_masks(self) -> bool:
        """Whether masks can be compared."""
        masks = self.predictions.masks
        return masks is not None and masks.samples is not None

    @cached_property
    def masks(self) -> MaskPairwise:
        """The same of masks.

        Raises:
            ValueError: if the head predicts none.
        """
        masks = self.predictions.masks
        if masks is None or masks.samples is None:
            raise ValueError(
                'a match cost compares masks, but the head predicts none: leave it out of '
                'model.train_cfg.assigner.match_costs, or use bbox_head.type="MaskDINOHead"'
            )
        return MaskPairwise(masks.embeddings, masks.samples, masks.first_layer)

    @cached_property
    def _iou_and_giou(self) -> Tuple[Tensor, Tensor]:
        boxes_xyxy = bbox_cxcywh_to_xyxy(self.predictions.boxes_cxcywh) * self.targets.whwh[:, None]
        return iou_and_giou(self._pred_planes(boxes_xyxy), self._gt_planes(self.targets.boxes_xyxy))

    @staticmethod
    def _pred_planes(boxes: Tensor) -> Sequence[Tensor]:
        """(K, B, Q, 4) -> four contiguous planes (K, B, 1, Q)."""
        return boxes.permute(3, 0, 1, 2).contiguous().unsqueeze(3).unbind()

    @staticmethod
    def _gt_planes(boxes: Tensor) -> Sequence[Tensor]:
        """(B, G, 4) -> four contiguous planes (B, G, 1)."""
        return boxes.permute(2, 0, 1).contiguous().unsqueeze(3).unbind()


def of_gt_classes(values: Tensor, labels: Tensor) -> Tensor:
    """What each query gives to the class of each ground truth: (K, B, Q, C), for labels (B, G), -> (K, B, G, Q)."""
    images = torch.arange(len(labels), device=labels.device)[:, None]
    return values.transpose(2, 3)[:, images, labels]


def iou_and_giou(boxes: Sequence[Tensor], others: Sequence[Tensor], eps: float = 1e-6) -> Tuple[Tensor, Tensor]:
    """IoU in [0, 1] and generalised IoU in [-1, 1] of boxes given as planes, without gradient.

    The values are those of mmdet's ``bbox_overlaps``, which needs the coordinates side by side and makes the host wait
    for a GPU at every call.

    Args:
        boxes, others: x1, y1, x2, y2 in pixels, each of any shapes that broadcast.
        eps: smallest area, in square pixels.
    """
    (px1, py1, px2, py2), (gx1, gy1, gx2, gy2) = boxes, others
    inter = (torch.minimum(px2, gx2) - torch.maximum(px1, gx1)).clamp_(min=0)
    inter.mul_((torch.minimum(py2, gy2) - torch.maximum(py1, gy1)).clamp_(min=0))
    union = ((px2 - px1) * (py2 - py1) + (gx2 - gx1) * (gy2 - gy1)).sub_(inter).clamp_(min=eps)
    iou = inter.div_(union)
    enclosure = torch.maximum(px2, gx2) - torch.minimum(px1, gx1)
    enclosure.mul_(torch.maximum(py2, gy2) - torch.minimum(py1, gy1)).clamp_(min=eps)
    return iou, union.div_(enclosure).add_(iou).sub_(1)


def aligned_iou_and_giou(boxes: Tensor, others: Tensor, eps: float = 1e-6) -> Tuple[Tensor, Tensor]:
    """IoU and generalised IoU of pairs of boxes, (M, 4) xyxy each; with gradient, and otherwise as above."""
    overlap = (torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])).clamp(min=0)
    inter = overlap[:, 0] * overlap[:, 1]
    union = (_areas(boxes) + _areas(others) - inter).clamp(min=eps)
    hull = torch.maximum(boxes[:, 2:], others[:, 2:]) - torch.minimum(boxes[:, :2], others[:, :2])
    enclosure = (hull[:, 0] * hull[:, 1]).clamp(min=eps)
    iou = inter / union
    return iou, iou - (enclosure - union) / enclosure


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
