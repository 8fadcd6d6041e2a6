"""The ResNet of DC5 detectors, whose last stage is dilated in place of its stride."""

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import nn


@MODELS.register_module()
class DilatedResNet(ResNet):
    """A ResNet whose dilated stages begin with a block of the stage before's dilation, as torchvision's do.

    The DC5 models of DETR, DAB-DETR and DN-DETR are published with torchvision's ResNet. mmdet's ``ResNet`` dilates
    every block of a stage, the first one too, which is another network for the same weights. Both have the same names,
    so that checkpoints and ImageNet weights load into either.

    Args:
        As in mmdet: for DC5, ``strides=(1, 2, 2, 1)`` and ``dilations=(1, 1, 1, 2)``.
    """

    def make_res_layer(self, *, inplanes: int, planes: int, num_blocks: int, stride: int, dilation: int, **kwargs):
        """One stage of ``num_blocks`` blocks, from ``inplanes`` channels to ``planes`` times the block's expansion."""
        stages_before = self.dilations[: len(self.res_layers)]
        first_dilation = stages_before[-1] if stages_before else dilation
        stage: nn.Sequential = super().make_res_layer(
            inplanes=inplanes, planes=planes, num_blocks=1, stride=stride, dilation=first_dilation, **kwargs
        )
        rest = super().make_res_layer(
            inplanes=planes * self.block.expansion,
            planes=planes,
            num_blocks=num_blocks - 1,
            stride=1,
            dilation=dilation,
            **kwargs,
        )
        return stage.extend(rest)
