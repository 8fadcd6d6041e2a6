"""Boxes around predicted masks, from which MaskDINO's decoder starts (arXiv:2206.02777 Sec. 3.4)."""

import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

BOX_TYPES = ('no', 'mask2box', 'bitmask')
QUERIES_AT_A_TIME = 50  # whose masks are held at once
FAR = 1e8  # the released code's left and upper edge of an empty mask


def masks_to_xyxy(mask_logits: Tensor, box_type: str) -> Tensor:
    """The smallest boxes that hold all positive logits.

    Nothing waits for the device, and no copy of the masks is made.

    Args:
        mask_logits: (..., h, w).
        box_type: ``'mask2box'``: right and lower edge are the last positive pixel, so that a mask of one pixel has no
            area, and an empty mask gives (1e8, 1e8, 0, 0); ``'bitmask'``: they lie one further, as in mmdet's
            ``mask2bbox``, and an empty mask gives zeros.

    Returns:
        (..., 4) float32, in pixels of the masks.
    """
    last_offset = 1 if box_type == 'bitmask' else 0
    (x1, x2), (y1, y2) = (_first_and_last(mask_logits.amax(dim) > 0) for dim in (-2, -1))
    boxes = torch.stack([x1, y1, x2 + last_offset, y2 + last_offset], -1).float()
    empty = boxes.new_tensor([0, 0, 0, 0] if box_type == 'bitmask' else [FAR, FAR, 0, 0])
    return torch.where((mask_logits.amax((-2, -1)) > 0)[..., None], boxes, empty)


def _first_and_last(positive: Tensor) -> tuple:
    """Index of the first and of the last True along the last dimension."""
    positive = positive.byte()
    return positive.argmax(-1), positive.shape[-1] - 1 - positive.flip(-1).argmax(-1)


@torch.no_grad()
def boxes_of_masks(embeddings: Tensor, mask_features: Tensor, box_type: str) -> Tensor:
    """Boxes around the masks of Q queries, of which only a few are held at a time.

    Args:
        embeddings: (B, Q, E) mask embeddings.
        mask_features: (B, E, h, w).
        box_type: see :func:`masks_to_xyxy`.

    Returns:
        (B, Q, 4) cxcywh, normalised by the masks' size, detached. Those of empty masks may lie outside of [0, 1].
    """
    height, width = mask_features.shape[-2:]
    # Not by `new_tensor`, which would bake the sizes into an export.
    whwh = torch.tensor([width, height] * 2, device=embeddings.device).float()
    with torch.autocast(embeddings.device.type, enabled=False):
        features = mask_features.float().flatten(2)
        boxes = [
            masks_to_xyxy((part @ features).unflatten(2, mask_features.shape[2:]), box_type)
            for part in embeddings.float().split(QUERIES_AT_A_TIME, 1)
        ]
    return bbox_xyxy_to_cxcywh(torch.cat(boxes, 1)) / whwh
