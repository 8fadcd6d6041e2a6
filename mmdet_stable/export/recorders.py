"""What decides where queries start, recorded while a detector runs, or given to it."""

from contextlib import contextmanager
from typing import Any, Iterator, Optional

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from mmdet_stable.models.layers import best_tokens, initial_boxes, masks_to_xyxy

from .distinct import DistinctQueries


@contextmanager
def choices(
    detector: Any, selection: 'TokenSelection', starts: 'StartingBoxes', distinct: DistinctQueries
) -> Iterator[None]:
    """Let a detector that has such choices leave them to these, for a while."""
    names = dict(selection=selection, first_boxes=starts, distinct=distinct)
    own = {name: getattr(detector, name) for name in names if hasattr(detector, name)}
    try:
        for name in own:
            setattr(detector, name, names[name])
        yield
    finally:
        for name, choice in own.items():
            setattr(detector, name, choice)


class TokenSelection:
    """Chooses the encoder's best tokens, or the given ones, and remembers what it was asked and has answered.

    Attributes:
        given: (B, Q) int64, the tokens to choose; None for the best.
        scores: (B, N) of the last call.
        chosen: (B, Q) int64 of the last call; None before one, and for detectors that choose none.
    """

    def __init__(self, given: Optional[Tensor] = None) -> None:
        self.given = given
        self.scores: Optional[Tensor] = None
        self.chosen: Optional[Tensor] = None

    def __call__(self, scores: Tensor, num_queries: int) -> Tensor:
        self.scores = scores
        self.chosen = best_tokens(scores, num_queries) if self.given is None else self.given
        return self.chosen

    def shortfall(self) -> float:
        """By how much the chosen are worse than the best as many, rank by rank, relative to the largest score."""
        if self.scores is None or self.chosen is None:
            return 0.0
        chosen = self.scores.gather(1, self.chosen)
        best = best_tokens(self.scores, chosen.shape[1])
        return ((self.scores.gather(1, best) - chosen).abs().max() / self.scores.abs().max()).item()


class StartingBoxes:
    """Finds the boxes from which MaskDINO's decoder starts, or takes the given ones.

    An edge of a box around a mask lies where its logits change their sign, so that one logit near zero can move it far.

    Attributes:
        given: (B, Q, 4) before the sigmoid; None to find them.
        near: a logit is near zero below this share of the largest.
        found: (B, Q, 4) of the last call; None before one, and for other detectors.
        excess: by how much edges of the given boxes lie outside of where logits near zero can move them, in shares of
            the input.
    """

    def __init__(self, given: Optional[Tensor] = None, near: float = 0.0) -> None:
        self.given = given
        self.near = near
        self.found: Optional[Tensor] = None
        self.excess = 0.0

    def __call__(self, boxes_unact: Tensor, mask_embeddings: Tensor, mask_features: Tensor, box_type: str) -> Tensor:
        if self.given is None:
            self.found = initial_boxes(boxes_unact, mask_embeddings, mask_features, box_type)
            return self.found
        self.found = self.given
        if box_type == 'no':
            self.excess = (boxes_unact.sigmoid() - self.given.sigmoid()).abs().max().item()
            return self.given
        logits = torch.einsum('bqe,behw->bqhw', mask_embeddings, mask_features)
        near = self.near * logits.abs().max()
        small, large = (masks_to_xyxy(logits + shift, box_type) for shift in (-near, near))
        height, width = logits.shape[2:]
        edges = bbox_cxcywh_to_xyxy(self.given.sigmoid()) * self.given.new_tensor([width, height] * 2)
        lower, upper = torch.minimum(small, large), torch.maximum(small, large)
        outside = (lower - edges).maximum(edges - upper) / max(height, width)
        # A mask that may be empty may start anywhere inside of the input.
        sure = (logits.amax((-2, -1)) > near)[..., None]
        self.excess = (outside * sure).max().item()
        return self.given
