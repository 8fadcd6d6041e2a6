"""Sizes of feature maps: a tensor where a model runs, a list while it is exported."""

from typing import List, Sequence, Tuple, Union

import torch
from torch import Tensor

Size = Tuple[int, int]
LevelSizes = Union[Tensor, List[Size]]


def level_sizes(sizes: Sequence[Sequence[int]], device: torch.device) -> LevelSizes:
    """Sizes of L maps, as they travel through encoder and decoder.

    Args:
        sizes: height and width of each map; symbols while a model is exported for any size.
        device: where to put them.

    Returns:
        (L, 2) int64. While torch exports or compiles, the list itself: numbers that were read back from a tensor would
        have no known relation to the shapes of the maps.
    """
    if torch.compiler.is_compiling():
        return [(size[0], size[1]) for size in sizes]
    return torch.tensor([tuple(size) for size in sizes]).to(device, non_blocking=True)


def sizes_on_host(spatial_shapes: LevelSizes) -> List[Size]:
    """Height and width of each map as numbers; waits for the device, where that has them."""
    return spatial_shapes if isinstance(spatial_shapes, list) else spatial_shapes.tolist()


def sizes_on_device(spatial_shapes: LevelSizes, device: torch.device) -> Tensor:
    """(L, 2) height and width of each map."""
    return torch.tensor(spatial_shapes, device=device) if isinstance(spatial_shapes, list) else spatial_shapes


def level_starts(sizes: Sequence[Sequence[int]], device: torch.device) -> Tensor:
    """(L,) int64, where the tokens of each map start among those of all."""
    starts = [0]
    for height, width in sizes:
        starts.append(starts[-1] + height * width)
    return torch.tensor(starts[:-1]).to(device, non_blocking=True)
