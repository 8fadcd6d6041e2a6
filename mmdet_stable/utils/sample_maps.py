"""Values of maps between their pixels."""

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, grid_sample

MANY_CHANNELS = 32  # from which a CPU reads rows of all channels faster than grid_sample reads channel by channel


def sample_maps(maps: Tensor, points: Tensor) -> Tensor:
    """Bilinear values of maps at points, with zeros around them.

    Args:
        maps: (N, C, h, w).
        points: (N, P, 2) x and y in [0, 1].

    Returns:
        (N, C, P).
    """
    if maps.device.type == 'cpu' and maps.shape[1] >= MANY_CHANNELS:
        return torch.stack([_sampled_rows(*pair) for pair in zip(maps, points)])
    grid = (2 * points - 1).unsqueeze(2)
    return grid_sample(maps, grid, mode='bilinear', padding_mode='zeros', align_corners=False).squeeze(3)


def _sampled_rows(maps: Tensor, points: Tensor) -> Tensor:
    """:func:`sample_maps` of one image, (C, h, w) and (P, 2): each value is a weighted sum of four rows of channels."""
    height, width = maps.shape[1:]
    x, y = points[:, 0] * width - 0.5, points[:, 1] * height - 0.5
    rows, shares = [], []
    for row in (y.floor(), y.floor() + 1):
        for column in (x.floor(), x.floor() + 1):
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            shares.append((1 - (x - column).abs()) * (1 - (y - row).abs()) * inside)
            rows.append(row.clamp(0, height - 1) * width + column.clamp(0, width - 1))
    table = maps.flatten(1).t().contiguous()
    weights = torch.stack(shares, 1).to(table.dtype)
    return embedding_bag(torch.stack(rows, 1).long(), table, per_sample_weights=weights, mode='sum').t()
