"""Tensors that travel to the host together."""

from math import prod
from typing import List, Sequence

import numpy as np
import torch
from torch import Tensor


class HostBuffer:
    """Float32 tensors of several shapes that lie in one piece of memory, so that one copy brings them all to the host.

    Each copy makes the host wait for the device.

    Args:
        shapes: of the tensors.
        device: where they lie.
    """

    def __init__(self, shapes: Sequence[Sequence[int]], device: torch.device) -> None:
        self.shapes = [tuple(shape) for shape in shapes]
        self.sizes = [prod(shape) for shape in self.shapes]
        self.memory = torch.zeros(sum(self.sizes), device=device)

    @property
    def parts(self) -> List[Tensor]:
        """The tensors, zeros at first, to be written in place."""
        return [part.view(shape) for part, shape in zip(self.memory.split(self.sizes), self.shapes)]

    def to_host(self) -> List[np.ndarray]:
        """Their values on the host."""
        parts = self.memory.cpu().split(self.sizes)
        return [part.view(shape).numpy() for part, shape in zip(parts, self.shapes)]
