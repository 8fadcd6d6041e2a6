"""What the comparison of a file with its detector notices."""

import pytest
import torch
from mmcv.ops import batched_nms

from mmdet_stable.export.parity import classwise_shortfall

THRESHOLD = 0.5


@pytest.fixture
def detections():
    """Boxes, scores and labels, best first, and which mmcv keeps."""
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(60, 2, generator=generator) * 30
    boxes = torch.cat([corners, corners + 10 + torch.rand(60, 2, generator=generator) * 30], 1)
    scores, labels = torch.linspace(1, 0.1, 60), torch.randint(0, 3, (60,), generator=generator)
    kept = torch.zeros(60, dtype=torch.bool)
    kept[batched_nms(boxes, scores, labels, dict(type='nms', iou_threshold=THRESHOLD))[1]] = True
    assert 10 < kept.sum() < 50
    return boxes, scores, labels, kept


@pytest.mark.parametrize('offset', [0.0, 20.0, 1e4])
def test_nms_of_mmcv_is_right(offset, detections):
    """In any order of the boxes, and also far from the origin."""
    boxes, *others = detections
    assert classwise_shortfall(boxes - offset, *others, THRESHOLD) == 0
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    assert classwise_shortfall(*(values[order] for values in (boxes - offset, *others)), THRESHOLD) == 0


def test_each_mistake_of_nms_is_found(detections):
    """Whichever box is kept or removed by mistake."""
    boxes, scores, labels, kept = detections
    for index in range(60):
        wrong = kept.clone()
        wrong[index] = ~kept[index]
        assert classwise_shortfall(boxes, scores, labels, wrong, THRESHOLD) > 1e-3


def test_what_is_no_detection_is_not_asked(detections):
    boxes, scores, labels, kept = detections
    scores[30:] = 0
    assert classwise_shortfall(boxes, scores, labels, kept & (scores > 0), THRESHOLD) == 0
    assert classwise_shortfall(boxes, scores, labels, kept, THRESHOLD) > 1e-3


def test_worse_boxes_remove_none(detections):
    """As if the order were the other way round, which scores that differ by their whole range explain."""
    boxes, scores, labels, _ = detections
    kept = torch.zeros(60, dtype=torch.bool)
    kept[batched_nms(boxes, scores.flip(0), labels, dict(type='nms', iou_threshold=THRESHOLD))[1]] = True
    assert 0.1 < classwise_shortfall(boxes, scores, labels, kept, THRESHOLD) <= 0.9
