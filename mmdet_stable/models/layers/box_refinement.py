"""From a reference to a box: the one place where boxes are refined, in float32 whatever autocast says."""

from typing import Callable, Optional

import torch
from mmdet.models.layers import inverse_sigmoid
from torch import Tensor
from torch.nn.functional import pad


def refined_boxes(
    box_branch: Callable[[Tensor], Tensor], states: Tensor, references: Optional[Tensor], sigmoid_eps: float
) -> Tensor:
    """``sigmoid(box_branch(states) + inverse_sigmoid(references))``.

    mmdet adds what a branch returns to the reference in place, so that boxes take the branch's precision: with 8 bits
    of bfloat16, that moves them by up to 4 pixels in an image of 1333.

    Args:
        box_branch: (..., D) -> (..., 4), the layers that predict offsets; run in float32.
        states: (..., D) decoder states or encoder tokens.
        references: (..., 4) boxes or (..., 2) centres, normalised; broadcast to the states. None for offsets from
            nothing, as in DETR.
        sigmoid_eps: how close to 0 and 1 references may come before their inverse is cut off: 1e-5 in Deformable-DETR
            and MaskDINO, 1e-3 in DINO.

    Returns:
        (..., 4) boxes, normalised cxcywh, float32 (or float64 for such states).

    Source: arXiv:2010.04159 Sec. 4.2, iterative bounding box refinement.
    """
    with torch.autocast(states.device.type, enabled=False):
        offsets = box_branch(states.to(torch.promote_types(states.dtype, torch.float32)))
        if references is not None:
            start = inverse_sigmoid(references.to(offsets.dtype), sigmoid_eps)
            offsets = offsets + pad(start, (0, 4 - start.shape[-1]))  # centres have no size yet
        return offsets.sigmoid()


def refined_proposals(box_branch: Callable[[Tensor], Tensor], tokens: Tensor, proposals: Tensor) -> Tensor:
    """The same before the sigmoid, for the encoder's N tokens: (B, N, 4) from proposals (B, N, 4) before it, too."""
    with torch.autocast(tokens.device.type, enabled=False):
        return box_branch(tokens.to(torch.promote_types(tokens.dtype, torch.float32))) + proposals
