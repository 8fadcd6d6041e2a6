"""What the comparison of a file with its detector notices."""

import pytest
import torch
from mmcv.ops import batched_nms

from mmdet_stable.export import ExportError
from mmdet_stable.export.parity import check_nms

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


def test_nms_of_mmcv_is_right(detections):
    check_nms(*detections, THRESHOLD, 0.0)


def test_each_mistake_of_nms_is_found(detections):
    """Whichever box is kept or removed by mistake."""
    boxes, scores, labels, kept = detections
    for index in range(60):
        wrong = kept.clone()
        wrong[index] = ~kept[index]
        with pytest.raises(ExportError, match=r'NMS of the file (keeps boxes that|removes boxes that) overlap'):
            check_nms(boxes, scores, labels, wrong, THRESHOLD, 0.0)


def test_worse_boxes_remove_none(detections):
    """As if the order were the other way round."""
    boxes, scores, labels, _ = detections
    kept = torch.zeros(60, dtype=torch.bool)
    kept[batched_nms(boxes, scores.flip(0), labels, dict(type='nms', iou_threshold=THRESHOLD))[1]] = True
    with pytest.raises(ExportError, match='removes boxes that overlap no better one'):
        check_nms(boxes, scores, labels, kept, THRESHOLD, 0.0)
    check_nms(boxes, scores, labels, kept, THRESHOLD, near=1.0)
