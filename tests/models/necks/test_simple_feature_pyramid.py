"""The pyramid of plain vision transformers: strides, what each level sees, and what it cannot be."""

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_stable.models.necks import SimpleFeaturePyramid
from mmdet_stable.models.necks.simple_feature_pyramid import ChannelNorm


def test_levels():
    neck = MODELS.build(dict(type='SimpleFeaturePyramid', in_channels=16, out_channels=8))
    neck.init_weights()
    levels = neck((torch.randn(2, 16, 4, 6),))
    assert [tuple(level.shape) for level in levels] == [(2, 8, 8, 12), (2, 8, 4, 6), (2, 8, 2, 3), (2, 8, 1, 2)]
    assert levels[3].equal(levels[2][:, :, ::2, ::2])
    sum(level.square().mul(torch.randn_like(level)).mean() for level in levels).backward()
    assert all(p.grad is not None and p.grad.any() for p in neck.parameters())


def test_all_scales_of_the_paper():
    neck = SimpleFeaturePyramid(16, 8, scales=(4, 2, 1, 0.5), num_outs=5)
    levels = neck((torch.randn(1, 3, 2, 2), torch.randn(1, 16, 4, 4)))
    assert [level.shape[2] for level in levels] == [16, 8, 4, 2, 1]
    kinds = [[type(layer) for layer in level][:-4] for level in neck.levels]
    up, pool = nn.ConvTranspose2d, nn.MaxPool2d
    assert kinds == [[up, ChannelNorm, nn.GELU, up], [up], [], [pool]]
    assert [level[-4].in_channels for level in neck.levels] == [4, 8, 16, 16]
    assert all([layer.kernel_size for layer in level[-4::2]] == [(1, 1), (3, 3)] for level in neck.levels)


def test_levels_lie_over_each_other():
    """A change of one position of the map changes the same place of each level, and nothing far away."""
    neck = SimpleFeaturePyramid(8, 4, scales=(4, 2, 1, 0.5), num_outs=4).double()
    before = torch.randn(1, 8, 16, 16, dtype=torch.float64)
    after = before.clone()
    after[0, :, 8, 4] += 3
    for scale, old, new in zip((4, 2, 1, 0.5), neck((before,)), neck((after,))):
        rows, columns = ((old - new).abs().sum(1)[0] > 0).nonzero().T
        for places, place in ((rows, 8), (columns, 4)):
            assert places.min() == int(place * scale) - 1
            assert places.max() == int((place + 1) * scale - 0.5) + 1


def test_channel_norm_by_hand():
    x = torch.tensor([1.0, 3.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    expected = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 2, 3)
    torch.testing.assert_close(ChannelNorm(2)(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    'settings,problem',
    [
        (dict(scales=(1, 2)), r'neck.scales=\(1, 2\) must be some of 4, 2, 1 and 0.5, in this order'),
        (dict(scales=(3, 1)), 'must be some of 4, 2, 1 and 0.5'),
        (dict(scales=()), 'must be some of'),
        (dict(scales=(1, 1)), 'must be some of'),
        (dict(num_outs=2), 'neck.num_outs=2 must be at least 3'),
        (dict(in_channels=18), 'neck.in_channels=18 must be a multiple of 4'),
    ],
)
def test_what_does_not_work(settings, problem):
    with pytest.raises(ValueError, match=problem):
        SimpleFeaturePyramid(**{**dict(in_channels=16), **settings})
