"""Deformable attention in operators that every runtime has."""

from typing import Callable, Dict, Iterator, List, Tuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from mmdet_stable.models.layers import LevelSizes, sizes_on_device, sizes_on_host


def gathered_samples(value: Tensor, spatial_shapes: LevelSizes, locations: Tensor, weights: Tensor) -> Tensor:
    """``weighted_samples`` of this package's deformable attention as rows that are gathered, weighted and added up.

    Args:
        value: (B, N, H, D), H heads at all positions of L maps.
        spatial_shapes: heights and widths of the maps, N positions in all.
        locations: (B, Q, H, L, P, 2) of P points, x and y from 0 to 1.
        weights: (B, Q, H, L, P).

    Returns:
        (B, Q, H * D) of the dtype of ``value``.
    """
    batch, num_values, heads, channels = value.shape
    table = value.transpose(1, 2).reshape(-1, channels)  # rows of one head and map lie side by side
    sizes = sizes_on_device(spatial_shapes, value.device).float()
    height, width = sizes[:, :1], sizes[:, 1:]  # (L, 1)
    lengths = height * width
    first = torch.arange(batch * heads, device=value.device).reshape(batch, 1, heads, 1, 1) * num_values
    x, y = locations.float().unbind(-1)  # (B, Q, H, L, P)
    left, right = _neighbours(x * width - 0.5, width)
    rows, shares = [], []
    for row, share_y in _neighbours(y * height - 0.5, height):
        for column, share_x in (left, right):
            rows.append(row * width + column)
            shares.append(share_y * share_x)
    index = torch.cat(rows, -1) + (lengths.cumsum(0) - lengths)
    index = index.to(torch.int64) + first  # (B, Q, H, L, 4 * P)
    share = (torch.cat(shares, -1) * weights.float().repeat(1, 1, 1, 1, 4)).to(value.dtype)
    total = None  # level by level, as the gathered rows take the most memory of all
    for level in range(weights.shape[3]):
        near = table.index_select(0, index[:, :, :, level].flatten()).unflatten(0, (-1, index.shape[-1]))
        sampled = (share[:, :, :, level].reshape(-1, 1, index.shape[-1]) @ near)[:, 0]
        total = sampled if total is None else total + sampled
    assert total is not None
    return total.reshape(batch, -1, heads * channels)


def grid_samples(value: Tensor, spatial_shapes: LevelSizes, locations: Tensor, weights: Tensor) -> Tensor:
    """:func:`gathered_samples` by ``grid_sample``, of the operator set since 16; runtimes differ in its speed."""
    batch, _, heads, channels = value.shape
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (B * H, Q, L, P, 2)
    sampled = []
    for level, start, (height, width) in _levels(spatial_shapes):
        maps = value[:, start : start + height * width].permute(0, 2, 3, 1).reshape(-1, channels, height, width)
        sampled.append(grid_sample(maps, grids[:, :, level].to(value.dtype), align_corners=False))
    shares = weights.transpose(1, 2).flatten(0, 1).flatten(2)[:, None]  # (B * H, 1, Q, L * P)
    total = (torch.cat(sampled, -1) * shares).sum(-1)
    return total.reshape(batch, heads * channels, -1).transpose(1, 2)


SAMPLINGS: Dict[str, Callable[[Tensor, LevelSizes, Tensor, Tensor], Tensor]] = dict(
    gather=gathered_samples, grid_sample=grid_samples
)


def _levels(spatial_shapes: LevelSizes) -> Iterator[Tuple[int, int, Tuple[int, int]]]:
    """Number, first position, and height and width of each map."""
    start = 0
    sizes: List[Tuple[int, int]] = sizes_on_host(spatial_shapes)
    for level, (height, width) in enumerate(sizes):
        yield level, start, (height, width)
        start = start + height * width


def _neighbours(position: Tensor, size: Tensor) -> List[Tuple[Tensor, Tensor]]:
    """Along one axis of ``size`` cells, index and share of the cells below and above a position; the share of a cell
    outside of the map is 0."""
    below = position.floor()
    share = position - below
    found = []
    for index, share_of_index in ((below, 1 - share), (below + 1, share)):
        inside = index.clamp(min=0).minimum(size - 1)
        found.append((inside, share_of_index * (inside == index)))
    return found
