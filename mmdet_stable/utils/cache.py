"""Work in pieces that stay in a CPU's cache."""

from typing import Sequence

import torch

# Elements of a float32 tensor of 2 MB. Elementwise chains on larger tensors spend their time on memory, on much smaller
# ones on calls; docs/benchmarks.md has the figures.
CACHE_SIZED = 2**19


def cache_sized_parts(shape: Sequence[int], device: torch.device) -> int:
    """Entries of the first dimension to take at a time; all on a GPU, which prefers few large kernels."""
    if device.type != 'cpu':
        return max(shape[0], 1)
    per_entry = max(torch.Size(shape[1:]).numel(), 1)
    return max(CACHE_SIZED // per_entry, 1)
