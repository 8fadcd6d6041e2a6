"""NMS in operators that can be exported."""

from typing import Any, Mapping, Tuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from .errors import ExportError

PASSES = 4  # over the boxes of one round


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
    check_hard_nms(nms_cfg, 'test_cfg.nms')
    overlaps = overlapping(boxes_xyxy, boxes_xyxy, nms_cfg)
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


def distinct_survivors(
    boxes_xyxy: Tensor, logits: Tensor, candidates: Tensor, number: int, nms_cfg: Mapping[str, Any]
) -> Tensor:
    """The best boxes that NMS keeps, as :func:`mmdet_stable.models.layers.distinct_boxes`, among any number of boxes.

    In each round, the next ``number`` candidates are asked a few times, as in :func:`survivors`, which the boxes kept
    before have left over. Answers up to the first that has changed in the end are final; the next round goes on there.
    """
    check_hard_nms(nms_cfg, 'dqs_cfg')
    order = logits.masked_fill(~candidates, float('-inf')).topk(logits.shape[1], 1).indices
    last = candidates.sum(1)
    order, ranked = pad(order, (0, number)), pad(_taken(boxes_xyxy, order), (0, 0, 0, number))
    steps = torch.arange(number, device=logits.device)
    better = steps < steps[:, None]

    def needed(start: Tensor, count: Tensor, found: Tensor) -> Tensor:
        return ((start < last) & (count < number)).any()

    def next_round(start: Tensor, count: Tensor, found: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        ranks = start[:, None] + steps
        boxes, kept_before = _taken(ranked, ranks), _taken(ranked, found[:, :number])
        removed = overlapping(boxes, kept_before, nms_cfg) & (steps < count[:, None])[:, None]
        left = (ranks < last[:, None]) & ~removed.any(-1)
        suppresses = overlapping(boxes, boxes, nms_cfg) & better
        kept = before = left
        for _ in range(PASSES):
            before, kept = kept, left & ~(suppresses & kept[:, None]).any(-1)
        final = (kept != before).long().cumsum(1) == 0
        kept = kept & final
        place = count[:, None] + kept.long().cumsum(1) - 1
        place = torch.where(kept & (place < number), place, number)  # the last column is thrown away
        start = (start + final.sum(1)).minimum(last)
        return start, count + kept.sum(1), found.scatter(1, place, ranks)

    start, count = torch.zeros_like(last), torch.zeros_like(last)
    found = order.new_zeros(order.shape[0], number + 1)
    _, count, found = torch.while_loop(needed, next_round, (start, count, found))
    return order.gather(1, found[:, :number]).masked_fill(steps >= count[:, None], -1)


def _taken(boxes: Tensor, inds: Tensor) -> Tensor:
    """Of boxes (B, N, 4) those at ``inds`` (B, M)."""
    return boxes.gather(1, inds[..., None].expand(-1, -1, 4))


def overlapping(ones_xyxy: Tensor, others_xyxy: Tensor, nms_cfg: Mapping[str, Any]) -> Tensor:
    """(B, N, M) bool, which of boxes (B, N, 4) and (B, M, 4) overlap by more than the threshold.

    Unlike mmdet's ``bbox_overlaps``, it can be exported inside of loops.
    """
    left, top, right, bottom = ones_xyxy[:, :, None].unbind(-1)
    other_left, other_top, other_right, other_bottom = others_xyxy[:, None].unbind(-1)
    width = (right.minimum(other_right) - left.maximum(other_left)).clamp(min=0)
    height = (bottom.minimum(other_bottom) - top.maximum(other_top)).clamp(min=0)
    both = width * height
    areas = (right - left) * (bottom - top) + (other_right - other_left) * (other_bottom - other_top)
    return both > nms_cfg['iou_threshold'] * (areas - both)


def check_hard_nms(nms_cfg: Mapping[str, Any], key: str) -> None:
    """Raise ``ExportError``, naming the config's ``key``, for anything but hard NMS by a threshold."""
    extra = set(nms_cfg) - {'type', 'iou_threshold'}
    if nms_cfg.get('type', 'nms') != 'nms' or extra or 'iou_threshold' not in nms_cfg:
        raise ExportError(f"{key}={dict(nms_cfg)}: exported is dict(type='nms', iou_threshold=...) alone")
