"""Box branches that mixed precision leaves in float32."""

import torch
from mmdet.models.layers import MLP
from torch import Tensor, nn


class _InFloat32:
    """To be inherited from before a module of one input: computes in float32, whatever autocast says.

    mmdet adds what a branch returns to the reference box in place, so that the box takes the branch's precision. In
    bfloat16 that is 8 bits: up to 4 pixels in an image of 1333.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


class Float32Sequential(_InFloat32, nn.Sequential):
    """``nn.Sequential`` in float32."""


class Float32MLP(_InFloat32, MLP):
    """mmdet's ``MLP`` in float32."""


IN_FLOAT32 = {nn.Sequential: Float32Sequential, MLP: Float32MLP}


def compute_in_float32(branch: nn.Module) -> None:
    """Make a box branch compute in float32. The layers stay the same objects, under the same names, so that branches
    that share them still do and checkpoints fit."""
    branch.__class__ = IN_FLOAT32.get(type(branch), type(branch))
