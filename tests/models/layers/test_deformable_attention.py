import pytest
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch

from mmdet_stable.models.layers import DeformableAttention, deformable_attention
from mmdet_stable.models.layers.deformable_attention import weighted_samples
from tests.utils import build, tiny_model_cfg

MAPS = {'four': [(6, 9), (3, 5), (2, 3), (1, 2)], 'one': [(7, 4)], 'one_cell': [(1, 1), (1, 1)]}


def sampling_inputs(shapes, batch=2, queries=11, heads=3, width=5, points=2, dtype=torch.float64):
    shapes = torch.tensor(shapes)
    value = torch.randn(batch, shapes.prod(1).sum(), heads, width, dtype=dtype)
    sampled = (batch, queries, heads, len(shapes), points)
    locations = torch.rand(*sampled, 2, dtype=dtype) * 1.6 - 0.3  # also outside of the maps
    return value, shapes, locations, torch.rand(sampled, dtype=dtype)


@pytest.mark.parametrize('shapes', MAPS.values(), ids=MAPS)
@pytest.mark.parametrize('queries', [11, 0])
def test_samples_and_gradients_are_mmcvs(shapes, queries):
    value, shapes, locations, weights = sampling_inputs(shapes, queries=queries)
    results = []
    for function in (weighted_samples, multi_scale_deformable_attn_pytorch):
        leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
        output = function(leaves[0], shapes, leaves[1], leaves[2])
        (output * torch.linspace(-1, 1, 15)).sum().backward()
        results.append([output, *(leaf.grad for leaf in leaves)])
    assert results[0][0].shape == (2, queries, 15)
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


def test_half_precision_samples_in_float32():
    value, shapes, locations, weights = sampling_inputs(MAPS['four'], dtype=torch.float32)
    output = weighted_samples(value.bfloat16(), shapes, locations, weights)
    assert output.dtype == torch.bfloat16
    exact = weighted_samples(value.bfloat16().float(), shapes, locations, weights)
    torch.testing.assert_close(output, exact.bfloat16(), rtol=0, atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_what_the_cuda_operator_is_given(dtype, monkeypatch):
    """The operator stands in here; it knows no bfloat16, computes in the type of the values, and needs contiguous
    memory."""

    def operator(value, shapes, starts, locations, weights, im2col_step):
        assert value.dtype == locations.dtype == weights.dtype == torch.float32 and im2col_step == 64
        assert value.is_contiguous() and locations.is_contiguous() and weights.is_contiguous()
        assert starts.tolist() == [0, 54, 69, 75]
        return weighted_samples(value, shapes, locations, weights)

    monkeypatch.setattr(deformable_attention.MultiScaleDeformableAttnFunction, 'apply', operator)
    value, shapes, locations, weights = sampling_inputs(MAPS['four'], dtype=torch.float32)
    value = value.to(dtype).transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    starts = shapes.prod(1).cumsum(0) - shapes.prod(1)
    output = deformable_attention.cuda_samples(value, shapes, starts, locations, weights.to(dtype), 64)
    output.sum().backward()
    assert output.dtype == value.grad.dtype == dtype
    torch.testing.assert_close(output, weighted_samples(value, shapes, locations, weights.to(dtype)))


def test_positions_are_float32_under_autocast(monkeypatch):
    """With half-precision positions, samples of large maps lie up to 0.8 pixels off."""
    attention = DeformableAttention(24, num_heads=3, num_levels=1, num_points=1, dropout=0.0, batch_first=True)
    attention.sampling_offsets.bias.data.zero_()
    seen = []
    monkeypatch.setattr(
        deformable_attention, 'weighted_samples', lambda *args: seen.append(args[2]) or weighted_samples(*args)
    )
    points = (torch.rand(1, 50, 1, 2) * 0.5 + 0.5).requires_grad_()
    with torch.autocast('cpu', torch.bfloat16):
        maps = dict(value=torch.randn(1, 200 * 200, 24), spatial_shapes=torch.tensor([[200, 200]]))
        attention(torch.randn(1, 50, 24), reference_points=points, **maps)
    assert (seen[0][:, :, 0, :, 0] - points).abs().max() * 200 * 8 < 0.01  # pixels at stride 8


def test_wrong_reference_points():
    attention = DeformableAttention(24, num_heads=3, num_levels=1, batch_first=True)
    with pytest.raises(ValueError, match=r'the last dimension is 2 or 4, got \(2, 28, 1, 3\)'):
        attention(
            torch.randn(2, 28, 24), reference_points=torch.rand(2, 28, 1, 3), spatial_shapes=torch.tensor([[7, 4]])
        )


@pytest.mark.parametrize('bad', [float('nan'), float('inf'), -float('inf'), 1e30])
def test_locations_that_are_not_finite_stay_with_their_query(bad):
    value, shapes, locations, weights = sampling_inputs(MAPS['four'])
    expected = weighted_samples(value, shapes, locations, weights)
    locations[0, 3, 1, 2, 0, 1] = bad
    output = weighted_samples(value, shapes, locations, weights)
    hit = torch.zeros_like(output, dtype=torch.bool)
    hit[0, 3, 5:10] = True  # the second of three heads
    assert torch.equal(output[~hit], expected[~hit])
    assert torch.isnan(output[hit]).all() == (bad != 1e30)


@pytest.mark.parametrize('coordinates', [2, 4])
@pytest.mark.parametrize('batch_first', [True, False])
@pytest.mark.parametrize('masked', [True, False])
def test_attention_is_mmcvs(coordinates, batch_first, masked):
    theirs = MultiScaleDeformableAttention(24, num_heads=3, num_points=2, dropout=0.0, batch_first=batch_first)
    theirs.sampling_offsets.weight.data.normal_()
    theirs.sampling_offsets.bias.data += torch.rand(3 * 4 * 2 * 2)  # away from the kinks at pixel centres
    theirs.attention_weights.weight.data.normal_()
    ours = DeformableAttention(24, num_heads=3, num_points=2, dropout=0.0, batch_first=batch_first)
    ours.load_state_dict(theirs.state_dict())
    shapes = torch.tensor(MAPS['four'])
    sizes = shapes.prod(1)
    value, query, query_pos = (torch.randn(2, n, 24) for n in (sizes.sum(), 11, 11))
    if not batch_first:
        value, query, query_pos = (tensor.transpose(0, 1) for tensor in (value, query, query_pos))
    inputs = dict(
        value=value,
        query_pos=query_pos,
        key_padding_mask=torch.rand(2, sizes.sum()) < 0.3 if masked else None,
        reference_points=torch.rand(2, 11, 4, coordinates),
        spatial_shapes=shapes,
        level_start_index=sizes.cumsum(0) - sizes,
    )
    outputs, gradients = [], []
    for attention in (ours, theirs):
        leaves = [inputs[name].clone().requires_grad_() for name in ('value', 'query_pos', 'reference_points')]
        output = attention(
            query, **{**inputs, 'value': leaves[0], 'query_pos': leaves[1], 'reference_points': leaves[2]}
        )
        output.square().sum().backward()
        outputs.append(output)
        gradients.append([leaf.grad for leaf in (*leaves, *attention.parameters())])
    assert outputs[0].shape == query.shape
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * b.abs().max().item())


def test_value_and_identity_default_to_the_query():
    theirs = MultiScaleDeformableAttention(24, num_heads=3, num_levels=1, dropout=0.0, batch_first=True)
    theirs.sampling_offsets.weight.data.normal_()
    ours = DeformableAttention(24, num_heads=3, num_levels=1, dropout=0.0, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    query = torch.randn(2, 28, 24)
    inputs = dict(
        reference_points=torch.rand(2, 28, 1, 2),
        spatial_shapes=torch.tensor(MAPS['one']),
        level_start_index=torch.tensor([0]),
    )
    torch.testing.assert_close(ours(query, **inputs), theirs(query, **inputs), rtol=1e-5, atol=1e-6)


def test_a_trace_holds_standard_operations(tmp_path):
    attention = DeformableAttention(24, num_heads=3, num_levels=1, dropout=0.0, batch_first=True)
    query, points, starts = torch.randn(2, 28, 24), torch.rand(2, 28, 1, 2), torch.tensor([0])
    names = ('query', 'reference_points', 'spatial_shapes', 'level_start_index')
    inputs = dict(zip(names, (query, points, torch.tensor(MAPS['one']), starts)))
    traced = torch.jit.trace(attention, example_kwarg_inputs=inputs)
    traced.save(tmp_path / 'traced.pt')
    loaded = torch.jit.load(tmp_path / 'traced.pt')
    torch.testing.assert_close(loaded(**inputs), attention(**inputs), rtol=1e-5, atol=1e-6)


def test_detectors_use_it_everywhere():
    attentions = [m for m in build(tiny_model_cfg()).modules() if isinstance(m, MultiScaleDeformableAttention)]
    assert len(attentions) > 1 and {type(attention) for attention in attentions} == {DeformableAttention}
