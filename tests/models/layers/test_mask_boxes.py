"""Boxes around masks: the reference's values, with all its edge cases, and agreement with mmdet."""

import pytest
import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmdet.structures.mask import mask2bbox

from mmdet_stable.models.layers import boxes_of_masks, initial_boxes, masks_to_xyxy
from tests.utils import golden, tensor

DATA = golden('maskdino_mask_to_box')
WHWH = torch.tensor([32.0, 24.0, 32.0, 24.0])


@pytest.mark.parametrize('box_type', ['mask2box', 'bitmask'])
def test_golden_boxes(box_type):
    boxes = masks_to_xyxy(tensor(DATA['mask_logits']), box_type)
    assert torch.equal(boxes, tensor(DATA[f'{box_type}.xyxy']))
    boxes = bbox_xyxy_to_cxcywh(boxes) / WHWH
    torch.testing.assert_close(boxes, tensor(DATA[f'{box_type}.cxcywh']), rtol=1e-6, atol=1e-6)
    logits = inverse_sigmoid(boxes, eps=1e-5)
    torch.testing.assert_close(logits, tensor(DATA[f'{box_type}.refpoint_unsigmoid']), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits.sigmoid(), tensor(DATA[f'{box_type}.reference']), rtol=1e-6, atol=1e-6)


def test_bitmask_is_that_of_mmdet():
    masks = torch.randn(40, 9, 13) - 2.2
    masks[3] = -1
    assert (masks > 0).flatten(1).any(1).sum() < 40
    assert torch.equal(masks_to_xyxy(masks, 'bitmask'), mask2bbox(masks > 0))


@pytest.mark.parametrize('num_queries', [1, 50, 120])
def test_boxes_of_queries_are_those_of_their_masks(num_queries):
    embeddings, features = torch.randn(2, num_queries, 8, requires_grad=True), torch.randn(2, 8, 24, 32)
    masks = torch.einsum('bqe,behw->bqhw', embeddings.detach(), features)
    for box_type in ('mask2box', 'bitmask'):
        expected = bbox_xyxy_to_cxcywh(masks_to_xyxy(masks, box_type)) / WHWH
        boxes = boxes_of_masks(embeddings, features, box_type)
        assert not boxes.requires_grad
        torch.testing.assert_close(boxes, expected)
        first = initial_boxes(torch.randn(2, num_queries, 4), embeddings, features, box_type)
        torch.testing.assert_close(first, inverse_sigmoid(expected, eps=1e-5))


def test_boxes_of_half_precision_masks_have_all_digits():
    """Also where bfloat16 cannot hold the width: 333 would become 332."""
    embeddings, features = torch.randn(1, 5, 4).bfloat16(), torch.randn(1, 4, 8, 333).bfloat16()
    boxes = boxes_of_masks(embeddings, features, 'bitmask')
    assert torch.equal(boxes, boxes_of_masks(embeddings.float(), features.float(), 'bitmask'))


def test_regressed_boxes_and_unknown_types():
    boxes = torch.randn(1, 2, 4, requires_grad=True)
    first = initial_boxes(boxes, torch.randn(1, 2, 3), torch.randn(1, 3, 4, 4), 'no')
    assert torch.equal(first, boxes) and not first.requires_grad
    with pytest.raises(ValueError, match="initialize_box_type='box'"):
        initial_boxes(boxes, torch.randn(1, 2, 3), torch.randn(1, 3, 4, 4), 'box')
