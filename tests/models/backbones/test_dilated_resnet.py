"""DC5 backbones compute what torchvision's ResNet does with ``replace_stride_with_dilation``, from the same weights."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import nn
from torch.nn import functional

from mmdet_stable.models.backbones import DilatedResNet

WIDTH = 8
DC5 = dict(strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
IMAGES = torch.randn(2, 3, 70, 94)


class Bottleneck(nn.Module):
    """torchvision's layout, in which the 3 x 3 convolution has stride and dilation."""

    def __init__(self, channels, width, stride, dilation):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=dilation, dilation=dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x):
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class Reference(nn.Module):
    """ResNet-50 in torchvision's layout: where a stage gives up its stride, all blocks but its first are dilated."""

    def __init__(self, replace_stride_with_dilation):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, WIDTH, 7, 2, padding=3, bias=False), nn.BatchNorm2d(WIDTH)
        channels, dilation = WIDTH, 1
        for stage, num_blocks in enumerate((3, 4, 6, 3)):
            stride, first = 1 if stage == 0 else 2, dilation
            if stage > 0 and replace_stride_with_dilation[stage - 1]:
                stride, dilation = 1, 2 * dilation
            blocks = []
            for block in range(num_blocks):
                width = WIDTH * 2**stage
                blocks.append(Bottleneck(channels, width, *((1, dilation) if block else (stride, first))))
                channels = 4 * width
            self.add_module(f'layer{stage + 1}', nn.Sequential(*blocks))

    def forward(self, x):
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, padding=1)
        outs = []
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            outs.append(x)
        return outs


def backbone(kind, **settings):
    torch.manual_seed(0)
    model = MODELS.build(dict(type=kind, depth=50, base_channels=WIDTH, **settings))
    model.eval()
    for parameter in model.parameters():  # mmdet starts the last norm of each block from zero
        nn.init.uniform_(parameter, -0.2, 0.2)
    return model


def difference(ours, reference):
    reference.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        pairs = list(zip(ours(IMAGES), reference.eval()(IMAGES)))
    assert all(found.shape == expected.shape for found, expected in pairs)
    return max(((found - expected).abs().max() / expected.abs().max()).item() for found, expected in pairs)


@pytest.mark.parametrize(
    'settings, replaced',
    [
        (DC5, (False, False, True)),
        (dict(strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4)), (False, True, True)),
        (dict(strides=(1, 2, 1, 2), dilations=(1, 1, 2, 2)), (False, True, False)),
        ({}, (False, False, False)),
    ],
    ids=['DC5', 'two_stages', 'stage_after_a_dilated_one', 'none'],
)
def test_outputs_of_torchvisions_layout(settings, replaced):
    ours = backbone('DilatedResNet', **settings)
    assert difference(ours, Reference(replaced)) < 1e-5


def test_mmdets_own_dilates_the_first_block_too():
    """The difference that this class is there for."""
    ours = backbone('ResNet', **DC5)
    assert difference(ours, Reference((False, False, True))) > 1e-3


def test_names_shapes_and_initial_weights_are_mmdets():
    torch.manual_seed(0)
    ours = DilatedResNet(depth=50, base_channels=WIDTH, **DC5)
    theirs = ResNet(depth=50, base_channels=WIDTH, **DC5)
    for model in (ours, theirs):
        torch.manual_seed(1)
        model.init_weights()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize('depth', [18, 101])
def test_other_depths(depth):
    model = MODELS.build(dict(type='DilatedResNet', depth=depth, base_channels=4, out_indices=(3,), **DC5))
    (features,) = model(IMAGES)
    assert features.shape[2:] == (5, 6)
    dilations = {conv.dilation for conv in model.layer4[0].modules() if isinstance(conv, nn.Conv2d)}
    assert dilations == {(1, 1)} and model.layer4[1].dilation == 2
