"""Proposals of two-stage detectors for images that are smaller than the number of queries."""

from typing import List, Tuple

from torch import Tensor
from torch.nn.functional import pad


def with_enough_tokens(
    memory: Tensor, memory_mask: Tensor, spatial_shapes: List[Tuple[int, int]], num_queries: int
) -> Tuple[Tensor, Tensor, List[Tuple[int, int]]]:
    """What proposals are made of, with at least as many tokens as there are queries to choose.

    A small or very narrow image has fewer, at which ``topk`` would fail. It gets the missing ones as a further level: a
    row of tokens without content, whose proposals are spread along the middle of the image or, where there are five
    levels already, lie in its corner.

    Args:
        memory: (B, N, D) encoder tokens.
        memory_mask: (B, N) bool, True for padding.
        spatial_shapes: height and width of each level.

    Returns:
        The same three, unchanged where N >= ``num_queries``; else of ``num_queries`` tokens and one more level.
    """
    missing = num_queries - memory.shape[1]
    if missing <= 0:
        return memory, memory_mask, spatial_shapes
    return pad(memory, (0, 0, 0, missing)), pad(memory_mask, (0, missing)), [*spatial_shapes, (1, missing)]
