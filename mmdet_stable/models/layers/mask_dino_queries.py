"""Where MaskDINO's queries come from: the best encoder tokens, and boxes around their masks."""

from typing import Callable, NamedTuple

import torch
from mmdet.models.layers import inverse_sigmoid
from torch import Tensor

from .box_refinement import refined_proposals
from .mask_boxes import BOX_TYPES, boxes_of_masks
from .proposals import Selection, best_tokens

Branch = Callable[[Tensor], Tensor]
FirstBoxes = Callable[[Tensor, Tensor, Tensor, str], Tensor]  # see initial_boxes
LOGIT_EPS = 1e-5  # of every inverse sigmoid of MaskDINO; DINO has 1e-3


class SelectedTokens(NamedTuple):
    """The Q best encoder tokens of each image.

    Attributes:
        inds: (B, Q) int64, which tokens they are.
        content: (B, Q, D) transformed memory of these tokens. The decoder starts from it detached, the encoder's own
            predictions are made of it with gradient.
        boxes_unact: (B, Q, 4) regressed cxcywh before the sigmoid, with gradient; inf where the token's proposal
            reaches too close to the edge.
    """

    inds: Tensor
    content: Tensor
    boxes_unact: Tensor


def select_tokens(
    memory: Tensor,
    proposals: Tensor,
    cls: Branch,
    reg: Branch,
    num_queries: int,
    selection: Selection = best_tokens,
) -> SelectedTokens:
    """Choose tokens by their best class score, which is taken without the decoder's norm.

    Args:
        memory: (B, N, D) and proposals: (B, N, 4), as of mmdet's ``gen_encoder_output_proposals``.
        cls, reg: class and box branch of the decoder, which MaskDINO shares with the encoder.
        num_queries: Q, at most N.
        selection: which tokens are chosen, given their scores.

    Source: arXiv:2206.02777 Sec. 3.4. The box branch sees the chosen tokens only, which gives the same boxes.
    """
    with torch.no_grad():
        inds = selection(cls(memory).amax(-1), num_queries)

    def chosen(values: Tensor) -> Tensor:
        return values.gather(1, inds[..., None].expand(-1, -1, values.shape[-1]))

    content = chosen(memory)
    return SelectedTokens(inds, content, refined_proposals(reg, content, chosen(proposals)))


def initial_boxes(boxes_unact: Tensor, mask_embeddings: Tensor, mask_features: Tensor, box_type: str) -> Tensor:
    """The decoder's first reference boxes.

    Args:
        boxes_unact: (B, Q, 4) regressed boxes of the selected tokens, before the sigmoid.
        mask_embeddings: (B, Q, E) of the encoder's own predictions at these tokens.
        mask_features: (B, E, h, w).
        box_type: ``'no'`` for the regressed boxes, ``'mask2box'`` or ``'bitmask'`` for boxes around the predicted
            masks (``initialize_box_type``); see :func:`masks_to_xyxy`.

    Returns:
        (B, Q, 4) cxcywh before the sigmoid, detached.

    Raises:
        ValueError: for an unknown ``box_type``.
    """
    if box_type not in BOX_TYPES:
        raise ValueError(f'initialize_box_type={box_type!r}: known are {BOX_TYPES}')
    if box_type == 'no':
        return boxes_unact.detach()
    return inverse_sigmoid(boxes_of_masks(mask_embeddings, mask_features, box_type), eps=LOGIT_EPS)
