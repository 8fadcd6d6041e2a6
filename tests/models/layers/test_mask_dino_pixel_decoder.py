"""The pixel decoder computes the reference's maps, in both orders and for 3 to 5 levels."""

import pytest
import torch
from mmdet.models.layers import MSDeformAttnPixelDecoder
from mmengine.config import ConfigDict

from mmdet_stable.models.layers import MaskDINOPixelDecoder
from tests.models.mask_dino import deformable, maps_of, meta_of, pixel_decoder
from tests.utils import close, golden

FILES = ['mask2box', 'high2low_bitmask', 'panoptic', 'semantic', '5level']


@pytest.mark.parametrize('file', FILES)
def test_golden_maps(file):
    data = golden(f'maskdino_{file}')
    outputs = pixel_decoder(data)(maps_of(data))
    close(outputs.mask_features, data['eval.mask_features'], 1e-5)
    expected = [data[key] for key in sorted(data) if key.startswith('eval.multi_scale_features_')]
    assert len(outputs.maps) == len(expected)
    for found, level in zip(outputs.maps, expected):
        close(found, level, 1e-5)


def test_memory_is_reversed():
    data = golden('maskdino_mask2box')
    outputs = pixel_decoder(data)(maps_of(data))
    memory, shapes = outputs.memory()
    assert shapes == [(2, 2), (3, 4), (6, 8), (12, 16)]
    for level, expected in zip(memory.split([height * width for height, width in shapes], 1), outputs.maps[::-1]):
        assert torch.equal(level.transpose(1, 2).reshape(expected.shape), expected)


@pytest.mark.parametrize('file', ['high2low_bitmask', 'semantic'])
def test_equals_mmdet_where_that_can(file):
    """3 levels from coarse to fine are Mask2Former's."""
    data = golden(f'maskdino_{file}')
    meta, ours = meta_of(data), pixel_decoder(data)
    theirs = MSDeformAttnPixelDecoder(
        in_channels=[8, 16, 24, 40],
        feat_channels=meta['hidden_dim'],
        out_channels=meta['mask_dim'],
        positional_encoding=dict(num_feats=meta['hidden_dim'] // 2, normalize=True),
        encoder=ConfigDict(
            num_layers=meta['enc_layers'],
            layer_cfg=dict(
                self_attn_cfg=dict(deformable(meta), dropout=0.0),
                ffn_cfg=dict(embed_dims=meta['hidden_dim'], feedforward_channels=meta['ff'], ffn_drop=0.0),
            ),
        ),
    )
    theirs.load_state_dict(ours.state_dict())
    mask_features, maps = theirs.eval()(maps_of(data))
    outputs = ours(maps_of(data))
    close(outputs.mask_features, mask_features.detach().numpy(), 1e-6)
    for found, expected in zip(outputs.maps, maps):
        close(found, expected.detach().numpy(), 1e-6)


def small(num_levels, **settings):
    attention = dict(embed_dims=16, num_heads=2, num_levels=num_levels)
    encoder = dict(
        num_layers=2,
        layer_cfg=dict(self_attn_cfg=attention, ffn_cfg=dict(embed_dims=16, feedforward_channels=32)),
        **settings.pop('encoder', {}),
    )
    torch.manual_seed(0)
    model = MaskDINOPixelDecoder(
        encoder=encoder,
        in_channels=(4, 6, 8, 10),
        feat_channels=16,
        out_channels=12,
        num_levels=num_levels,
        norm_cfg=dict(type='GN', num_groups=4),
        **settings,
    )
    model.init_weights()
    return model


def small_maps():
    return [torch.randn(2, channels, 32 >> i, 48 >> i) for i, channels in enumerate((4, 6, 8, 10))]


@pytest.mark.parametrize('order', ['low2high', 'high2low'])
@pytest.mark.parametrize('num_levels,num_encoder_inputs', [(3, 3), (4, 3), (5, 3), (5, 4), (4, 4)])
@pytest.mark.parametrize('fusion', [None, dict(type='DenseMemoryFusion'), dict(type='UShapedMemoryFusion')])
def test_every_layout_learns(order, num_levels, num_encoder_inputs, fusion):
    model = small(
        num_levels, level_order=order, num_encoder_inputs=num_encoder_inputs, encoder=dict(fusion=fusion, num_cp=1)
    )
    outputs = model(small_maps())
    assert outputs.mask_features.shape == (2, 12, 32, 48)
    sizes = [level.shape[2] for level in outputs.maps]
    finest = 32 if num_encoder_inputs == 4 else 16
    fine_to_coarse = [finest >> i for i in range(num_levels)]
    assert sizes == (fine_to_coarse if order == 'low2high' else fine_to_coarse[::-1])
    (outputs.mask_features.square().sum() + outputs.memory()[0].square().sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_levels_keep_their_own_positions_with_two_extra_levels():
    """In either order, each map is encoded with the positions of its own size: a permutation of levels changes nothing
    but the order of the outputs, where the level embeddings are permuted, too."""
    low, high = small(5), small(5, level_order='high2low')
    state = low.state_dict()
    order = [2, 1, 0, 3, 4]  # convolutions: of the backbone's maps reversed, extra ones last
    for i, j in enumerate(order):
        for name in ('conv.weight', 'conv.bias', 'gn.weight', 'gn.bias'):
            high.state_dict()[f'input_convs.{i}.{name}'].copy_(state[f'input_convs.{j}.{name}'])
    rest = {name: value for name, value in state.items() if not name.startswith('input_convs')}
    rest['level_encoding.weight'] = rest['level_encoding.weight'].flip(0)
    for name in list(rest):  # attention offsets and weights of the levels
        for part, width in (('sampling_offsets', 8), ('attention_weights', 4)):
            if part in name:
                value = rest[name].unflatten(0, (2, 5, width))
                rest[name] = value.flip(1).flatten(0, 2)
    high.load_state_dict(rest, strict=False)
    maps = small_maps()
    a, b = low.eval()(maps), high.eval()(maps)
    torch.testing.assert_close(a.mask_features, b.mask_features, rtol=1e-4, atol=1e-5)
    for level, other in zip(a.maps, b.maps[::-1]):
        torch.testing.assert_close(level, other, rtol=1e-4, atol=1e-5)


def test_fusion_reaches_memory_and_mask_features():
    model, maps = small(4, encoder=dict(fusion=dict(type='DenseMemoryFusion'))).eval(), small_maps()
    before = model(maps)
    model.encoder.fusion.fusion.norm.bias.data += 1
    after = model(maps)
    assert not torch.allclose(before.mask_features, after.mask_features)
    assert not any(torch.allclose(*pair) for pair in zip(before.maps, after.maps))


def test_errors():
    with pytest.raises(ValueError, match="level_order='up'"):
        small(4, level_order='up')
    with pytest.raises(ValueError, match='num_encoder_inputs=4, num_levels=3'):
        small(3, num_encoder_inputs=4)
    with pytest.raises(ValueError, match='takes 4 maps, res2 to res5, got 3'):
        small(4)(small_maps()[1:])
    encoder = dict(num_layers=1, layer_cfg=dict(self_attn_cfg=dict(num_levels=4)))
    with pytest.raises(ValueError, match=r'num_levels=5, but its encoder.*num_levels=4'):
        MaskDINOPixelDecoder(encoder, num_levels=5)
