"""Feature maps of several strides from the one map of a plain vision transformer."""

from typing import List, Optional, Sequence, Tuple

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

SCALES = (4.0, 2.0, 1.0, 0.5)
XAVIER = dict(type='Xavier', layer='Conv2d', distribution='uniform')


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation of the channels at each position of a map: (B, C, H, W) to the same."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def resampling(channels: int, scale: float) -> Tuple[List[nn.Module], int]:
    """Layers that make a map ``scale`` times as large, and the channels that are left."""
    if scale == 4:
        half, quarter = channels // 2, channels // 4
        up = [nn.ConvTranspose2d(channels, half, 2, 2), ChannelNorm(half), nn.GELU()]
        return [*up, nn.ConvTranspose2d(half, quarter, 2, 2)], quarter
    if scale == 2:
        return [nn.ConvTranspose2d(channels, channels // 2, 2, 2)], channels // 2
    return [] if scale == 1 else [nn.MaxPool2d(2, 2)], channels


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """The neck of ViTDet: each level is made from the backbone's last map alone.

    A level is the map, enlarged by one or two deconvolutions, as it is, or pooled, and then convolved, 1x1 and 3x3,
    each followed by a layer norm over channels. Levels beyond those of ``scales`` are the last one, subsampled by 2.

    Args:
        in_channels: C of the backbone's map.
        out_channels: of every level.
        scales: size of each level relative to the map, largest first: some of 4, 2, 1 and 0.5. For patches of 16
            pixels, 2, 1 and 0.5 are strides 8, 16 and 32. Where 0.5 is among them, a last odd row or column is lost to
            that level; ``model.data_preprocessor.pad_size_divisor`` of two patches prevents it.
        num_outs: levels in all.

    Raises:
        ValueError: for scales or numbers that do not work.

    Source: arXiv:2203.16527, section 3 and figure 2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (2, 1, 0.5),
        num_outs: int = 4,
        init_cfg: Optional[dict] = XAVIER,
    ) -> None:
        super().__init__(init_cfg)
        if not scales or not set(scales) <= set(SCALES) or list(scales) != sorted(set(scales), reverse=True):
            raise ValueError(f'neck.scales={tuple(scales)} must be some of 4, 2, 1 and 0.5, in this order')
        if num_outs < len(scales):
            raise ValueError(f'neck.num_outs={num_outs} must be at least {len(scales)}, the number of neck.scales')
        if in_channels % 4:
            raise ValueError(f'neck.in_channels={in_channels} must be a multiple of 4, as deconvolutions halve it')
        self.num_outs = num_outs
        self.levels = nn.ModuleList()
        for scale in scales:
            layers, channels = resampling(in_channels, scale)
            self.levels.append(
                nn.Sequential(
                    *layers,
                    nn.Conv2d(channels, out_channels, 1, bias=False),
                    ChannelNorm(out_channels),
                    nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
                    ChannelNorm(out_channels),
                )
            )

    def forward(self, inputs: Sequence[Tensor]) -> Tuple[Tensor, ...]:
        """The backbone's maps, of which the last one counts, (B, C, H, W), to levels, (B, out_channels, h, w) each."""
        outs = [level(inputs[-1]) for level in self.levels]
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], kernel_size=1, stride=2))
        return tuple(outs)
