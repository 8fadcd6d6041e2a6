"""Proposals of two-stage detectors: which are chosen, also in images that are smaller than the number of queries."""

from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import torch
from mmcv.ops import batched_nms
from torch import Tensor
from torch.nn.functional import pad

from .level_sizes import Size

Selection = Callable[[Tensor, int], Tensor]
DistinctSelection = Callable[[Tensor, Tensor, Tensor, int, Mapping[str, Any]], Tensor]


def best_tokens(scores: Tensor, num_queries: int) -> Tensor:
    """(B, Q) int64, the tokens with the highest of the ``scores`` (B, N), best first."""
    return scores.topk(num_queries, dim=1).indices


def distinct_boxes(
    boxes_xyxy: Tensor, logits: Tensor, candidates: Tensor, number: int, nms_cfg: Mapping[str, Any]
) -> Tensor:
    """The best boxes that class-agnostic NMS keeps.

    Args:
        boxes_xyxy: (B, N, 4).
        logits: (B, N), by whose sigmoid boxes are ranked.
        candidates: (B, N) bool; all others are left out before NMS.
        number: how many to return at most.
        nms_cfg: of mmcv's ``batched_nms``.

    Returns:
        (B, number) int64, best first, and -1 behind them where fewer are kept.

    Source: arXiv:2303.12776, distinct query selection.
    """
    scores = logits.sigmoid()
    chosen = scores.new_full((len(scores), number), -1, dtype=torch.int64)
    for image, inds in enumerate(mask.nonzero()[:, 0] for mask in candidates):
        of_image = boxes_xyxy[image][inds], scores[image][inds], torch.ones_like(inds)
        kept = inds[batched_nms(*of_image, nms_cfg)[1]][:number]
        chosen[image, : len(kept)] = kept
    return chosen


def token_centres(sizes: Sequence[Size], device: torch.device) -> List[Tensor]:
    """The centres of all tokens of each map, (height * width, 2) x and y in cells, row by row.

    By ``arange``, which torch exports for sizes that are not known yet, unlike mmdet's ``linspace``, whose numbers they
    are.
    """
    centres = []
    for height, width in sizes:
        y, x = (torch.arange(edge, dtype=torch.float32, device=device) + 0.5 for edge in (height, width))
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], -1)
        centres.append(grid.reshape(height * width, 2))
    return centres


def anchors_unact(sizes: Sequence[Size], mask: Optional[Tensor], device: torch.device) -> Tuple[Tensor, Tensor]:
    """An anchor for each of N tokens: at its place, and of a size that doubles from level to level.

    Args:
        sizes: height and width of each level.
        mask: (B, N) bool, True for padding, by which anchors are relative to the image in the input; None for images
            that fill it.

    Returns:
        (B or 1, N, 4) anchors before the sigmoid, inf where invalid, and (B or 1, N, 1) bool, whether they are valid:
        inside of the image, and at least 1% away from its edges.
    """
    anchors, start = [], 0
    for level, ((height, width), centres) in enumerate(zip(sizes, token_centres(sizes, device))):
        if mask is None:
            x, y = centres.unbind(-1)
            places = torch.stack([x / width, y / height], -1)[None]
        else:
            seen = ~mask[:, start : start + height * width].reshape(-1, height, width)
            places = centres / torch.stack([seen[:, 0].sum(1), seen[:, :, 0].sum(1)], 1)[:, None]
        anchors.append(torch.cat([places, torch.full_like(places, 0.05 * 2.0**level)], -1))
        start = start + height * width
    boxes = torch.cat(anchors, 1)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(-1, keepdim=True)
    if mask is not None:
        valid = valid & ~mask[..., None]
    return torch.log(boxes / (1 - boxes)).masked_fill(~valid, float('inf')), valid


def with_enough_tokens(
    memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: List[Size], num_queries: int
) -> Tuple[Tensor, Optional[Tensor], List[Size]]:
    """What proposals are made of, with at least as many tokens as there are queries to choose.

    A small or very narrow image has fewer, at which ``topk`` would fail. It gets the missing ones as a further level: a
    row of tokens without content, whose proposals are spread along the middle of the image or, where there are five
    levels already, lie in its corner.

    Args:
        memory: (B, N, D) encoder tokens.
        memory_mask: (B, N) bool, True for padding; None for none.
        spatial_shapes: height and width of each level.

    Returns:
        The same three, unchanged where N >= ``num_queries``; else of ``num_queries`` tokens and one more level.
    """
    missing = num_queries - memory.shape[1]
    if missing <= 0:
        return memory, memory_mask, spatial_shapes
    mask = None if memory_mask is None else pad(memory_mask, (0, missing))
    return pad(memory, (0, 0, 0, missing)), mask, [*spatial_shapes, (1, missing)]
