"""From a reference to a box: the one place where boxes are refined, in float32 whatever autocast says."""

from typing import Callable, Optional

import torch
from mmdet.models.layers import inverse_sigmoid
from torch import Tensor
from torch.nn.functional import pad

BoxBranch = Callable[[Tensor], Tensor]


def refined_boxes(box_branch: BoxBranch, states: Tensor, references: Optional[Tensor], sigmoid_eps: float) -> Tensor:
    """``sigmoid(box_branch(states) + inverse_sigmoid(references))``.

    mmdet adds what a branch returns to the reference in place, so that boxes take the branch's precision: with 8 bits
    of bfloat16, that moves them by up to 4 pixels in an image of 1333.

    Args:
        box_branch: (..., D) -> (..., 4), the layers that predict offsets; see :func:`box_offsets`.
        states: (..., D) decoder states or encoder tokens.
        references: (..., 4) boxes or (..., 2) centres, normalised; broadcast to the states. None for offsets from
            nothing, as in DETR.
        sigmoid_eps: how close to 0 and 1 references may come before their inverse is cut off; 1e-5 or 1e-3 in mmdet's
            decoders and heads, which differ.

    Returns:
        (..., 4) boxes, normalised cxcywh, float32 (or float64 for such states).

    Source: arXiv:2010.04159 Sec. 4.2, iterative bounding box refinement.
    """
    offsets = box_offsets(box_branch, states)
    if references is not None:
        start = inverse_sigmoid(references.to(offsets.dtype), sigmoid_eps)
        offsets = offsets + pad(start, (0, 4 - start.shape[-1]))  # centres have no size yet
    return offsets.sigmoid()


def refined_proposals(box_branch: BoxBranch, tokens: Tensor, proposals: Tensor) -> Tensor:
    """Boxes (B, N, 4) before the sigmoid, of the encoder's N tokens, from proposals (B, N, 4) before it, too."""
    return box_offsets(box_branch, tokens) + proposals


def box_offsets(box_branch: BoxBranch, states: Tensor) -> Tensor:
    """(..., 4) offsets of states (..., D), in float32 (or float64).

    Under autocast, whose layers are float32, the branch runs in that; in a model that is of half precision itself, it
    runs in that of its weights.
    """
    device = states.device.type
    if torch.is_autocast_enabled(device):
        states = at_least_float32(states)
    with torch.autocast(device, enabled=False):
        return at_least_float32(box_branch(states))


def at_least_float32(values: Tensor) -> Tensor:
    """The same values, in float32 where they were of half precision."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
