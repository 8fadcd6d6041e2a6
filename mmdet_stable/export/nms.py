"""Class-wise NMS of a fixed number of boxes, in operators that can be exported."""

from typing import Any, Mapping

import torch
from mmdet.structures.bbox import bbox_overlaps
from torch import Tensor

from .errors import ExportError


def survivors(boxes_xyxy: Tensor, labels: Tensor, nms_cfg: Mapping[str, Any]) -> Tensor:
    """Which boxes greedy NMS keeps, as mmcv's ``batched_nms``.

    A box is kept if no better box that is kept overlaps it. That defines the answer box by box; here, all boxes are
    asked at once, starting from the assumption that all are kept, until nothing changes: after k rounds at least the
    first k answers are final, and mostly all are after a few.

    Args:
        boxes_xyxy: (B, N, 4), best first.
        labels: (B, N); boxes of different labels do not see each other.
        nms_cfg: as ``test_cfg.nms``, e.g. ``dict(type='nms', iou_threshold=0.8)``.

    Returns:
        (B, N) bool.
    """
    check_nms(nms_cfg)
    overlaps = bbox_overlaps(boxes_xyxy, boxes_xyxy) > nms_cfg['iou_threshold']
    same = labels[:, :, None] == labels[:, None]
    number = boxes_xyxy.shape[1]
    better = torch.ones(number, number, dtype=torch.bool, device=boxes_xyxy.device).tril(-1)
    suppresses = overlaps & same & better  # [b, i, j]: j removes i, if j is kept

    def changed(kept: Tensor, before: Tensor) -> Tensor:
        return (kept != before).any()

    def asked_again(kept: Tensor, before: Tensor) -> tuple:
        return ~(suppresses & kept[:, None]).any(-1), kept.clone()

    first = ~suppresses.any(-1)
    start = torch.ones_like(first)
    kept, _ = torch.while_loop(changed, asked_again, (first, start))
    return kept


def check_nms(nms_cfg: Mapping[str, Any]) -> None:
    """Raise ``ExportError`` for anything but hard NMS by a threshold."""
    extra = set(nms_cfg) - {'type', 'iou_threshold'}
    if nms_cfg.get('type', 'nms') != 'nms' or extra or 'iou_threshold' not in nms_cfg:
        raise ExportError(f"test_cfg.nms={dict(nms_cfg)}: exported is dict(type='nms', iou_threshold=...) alone")
