import numpy as np
import pytest
import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder
from mmdet.registry import MODELS
from torch import nn

from mmdet_stable.models.layers import MemoryFusionEncoder
from mmdet_stable.models.necks import DenseMemoryFusion, FusionProjection, MemoryFusion
from tests.utils import golden, tensor

FUSIONS = ['SimpleMemoryFusion', 'UShapedMemoryFusion', 'DenseMemoryFusion']
SHAPES = ((6, 8), (3, 4))
LEVELS = len(SHAPES)


def encoder(fusion=None, width=16, num_layers=3, num_levels=LEVELS, cls=MemoryFusionEncoder):
    layer = dict(
        self_attn_cfg=dict(embed_dims=width, num_heads=4, num_levels=num_levels, dropout=0.0),
        ffn_cfg=dict(embed_dims=width, feedforward_channels=2 * width, ffn_drop=0.0),
    )
    extra = dict(fusion=dict(type=fusion)) if fusion else {}
    return cls(num_layers=num_layers, layer_cfg=layer, **extra)


def encoder_inputs(width=16, batch=2):
    num = sum(h * w for h, w in SHAPES)
    shapes = torch.tensor(SHAPES)
    return dict(
        query=torch.randn(batch, num, width, requires_grad=True),
        query_pos=torch.randn(batch, num, width),
        key_padding_mask=torch.zeros(batch, num, dtype=torch.bool),
        spatial_shapes=shapes,
        level_start_index=torch.cat([shapes.new_zeros(1), shapes.prod(1).cumsum(0)[:-1]]),
        valid_ratios=torch.ones(batch, LEVELS, 2),
    )


def test_golden_dense_fusion_encoder():
    """Output and gradients of the reference's encoder with dense fusion, at 1e-5 of the largest entry."""
    data = golden('dense_fusion_encoder')
    model = encoder('DenseMemoryFusion', width=32, num_levels=3)
    renames = [
        ('fusion_layer.0.', 'fusion.fusion.proj.'),
        ('fusion_layer.1.', 'fusion.fusion.norm.'),
        ('attentions.0.', 'self_attn.'),
        ('ffns.0.', 'ffn.'),
    ]
    state = {}
    for key in data:
        if key.startswith('sd.'):
            name = key[3:].removeprefix('transformer.').removeprefix('encoder.')
            for old, new in renames:
                name = name.replace(old, new)
            state[name] = tensor(data[key])
    model.load_state_dict(state)
    query = tensor(data['query']).requires_grad_()
    names = ('query_pos', 'spatial_shapes', 'level_start_index', 'valid_ratios')
    output = model(
        query, key_padding_mask=tensor(data['query_key_padding_mask']), **{n: tensor(data[n]) for n in names}
    )
    (output * tensor(data['fixed_random'])).sum().backward()
    for value, key in (
        (output, 'output'),
        (query.grad, 'grad_query'),
        (model.fusion.fusion.proj.weight.grad, 'grad_fusion_weight'),
    ):
        np.testing.assert_allclose(value.detach(), data[key], rtol=0, atol=1e-5 * np.abs(data[key]).max(), err_msg=key)


@pytest.mark.parametrize('num_inputs', [2, 3, 7])
def test_projection_equals_linear_on_the_concatenation(num_inputs):
    fusion = FusionProjection(num_inputs, 8)
    memories = [torch.randn(2, 5, 8, requires_grad=True) for _ in range(num_inputs)]
    expected = fusion.norm(fusion.proj(torch.cat(memories, -1)))
    torch.testing.assert_close(fusion(memories), expected)
    weight = torch.randn_like(expected)
    grads = [
        torch.autograd.grad((value * weight).sum(), [*memories, *fusion.parameters()])
        for value in (fusion(memories), expected)
    ]
    for ours, theirs in zip(*grads):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_nothing_as_wide_as_the_concatenation_is_built():
    fusion, memories = DenseMemoryFusion(8, 3), [torch.randn(2, 50, 8, requires_grad=True) for _ in range(4)]
    sizes = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        fusion(memories)
    assert max(sizes) <= 2 * 50 * 8


def test_u_shape_mirrors_the_layers():
    """K = 6: m_4 with m_2 enters layer 5, m_5 with m_1 layer 6, and m_6 with m_0 leaves."""
    fusion = MODELS.build(dict(type='UShapedMemoryFusion', embed_dims=4, num_layers=6))
    for module in fusion.fusions.values():
        module.norm = nn.Identity()
        nn.init.constant_(module.proj.bias, 0)
        module.proj.weight.data = torch.cat([torch.eye(4), 10 * torch.eye(4)], 1)  # first + 10 * second
    memories = [torch.full((1, 1, 4), float(k)) for k in range(7)]
    inputs = [fusion.layer_input(memories[:k]).mean().item() for k in range(1, 7)]
    assert inputs == [0, 1, 2, 3, 4 + 20, 5 + 10]
    assert fusion(memories).mean() == 6


@pytest.mark.parametrize('fusion', FUSIONS)
@pytest.mark.parametrize('num_layers', [1, 2, 3, 6])
@pytest.mark.parametrize('width', [16, 24])
def test_any_width_and_depth(fusion, num_layers, width):
    model = encoder(fusion, width, num_layers)
    inputs = encoder_inputs(width)
    output = model(**inputs)
    assert output.shape == inputs['query'].shape
    output.square().sum().backward()
    assert inputs['query'].grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('fusion', FUSIONS)
def test_autocast(fusion, dtype):
    with torch.autocast('cpu', dtype=dtype):
        assert MODELS.build(dict(type=fusion, embed_dims=8, num_layers=2))([torch.randn(1, 5, 8)] * 3).isfinite().all()


class StackedFusion(MemoryFusion):
    """One of somebody else, which forgets to project."""

    def layer_input(self, memories):
        return memories[-1]

    def forward(self, memories):
        return torch.cat(list(memories), -1)


def test_fusion_that_returns_another_shape(monkeypatch):
    model = encoder('DenseMemoryFusion')
    monkeypatch.setattr(model, 'fusion', StackedFusion(16, 3))
    with pytest.raises(ValueError, match=r'StackedFusion returned \(2, 60, 64\), but the memory is \(2, 60, 16\)'):
        model(**encoder_inputs())


def test_without_fusion_it_is_mmdets_encoder():
    ours, theirs = encoder(), encoder(cls=DeformableDetrTransformerEncoder)
    theirs.load_state_dict(ours.state_dict())
    inputs = encoder_inputs()
    torch.testing.assert_close(ours(**inputs), theirs(**inputs), rtol=1e-5, atol=1e-5)
    assert isinstance(encoder('DenseMemoryFusion').fusion, MemoryFusion)
