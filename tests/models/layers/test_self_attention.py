import copy

import pytest
import torch
from torch import nn

from mmdet_stable.models.layers import use_fused_self_attention
from mmdet_stable.models.layers.self_attention import SelfAttention
from tests.utils import build, tiny_model_cfg

BATCH, HEADS, QUERIES, KEYS, WIDTH = 3, 4, 7, 9, 16


def masks():
    one = torch.rand(QUERIES, KEYS) < 0.4
    each = torch.rand(BATCH, QUERIES, KEYS) < 0.4
    one[:, 0] = each[:, :, 0] = False  # everybody sees somebody
    each = each.repeat_interleave(HEADS, 0)
    added = torch.zeros(BATCH * HEADS, QUERIES, KEYS).masked_fill(each, float('-inf'))
    padding = torch.zeros(BATCH, KEYS, dtype=torch.bool)
    padding[1, 4:] = True
    return [
        dict(),
        dict(attn_mask=one),
        dict(attn_mask=each),
        dict(attn_mask=added),
        dict(key_padding_mask=padding, attn_mask=one),
    ]


@pytest.mark.parametrize('mask', masks(), ids=['none', 'one', 'per_image', 'added', 'padding'])
@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('bias', [False, True])
def test_it_is_torchs(mask, batch_first, bias):
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=batch_first, bias=bias)
    if bias:
        nn.init.normal_(theirs.in_proj_bias)
    ours = copy.deepcopy(theirs)
    use_fused_self_attention(ours)
    assert type(ours) is SelfAttention
    inputs = torch.randn(BATCH, QUERIES, WIDTH), torch.randn(BATCH, KEYS, WIDTH), torch.randn(BATCH, KEYS, WIDTH)
    if not batch_first:
        inputs = [tensor.transpose(0, 1) for tensor in inputs]
    outputs, gradients = [], []
    for attention in (ours, theirs):
        output, _ = attention(*inputs, **mask)
        output.square().sum().backward()
        outputs.append(output)
        gradients.append([parameter.grad for parameter in attention.parameters()])
    assert outputs[0].shape == inputs[0].shape
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-6)
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_dropout_is_for_training():
    attention = nn.MultiheadAttention(WIDTH, HEADS, dropout=0.5)
    use_fused_self_attention(attention)
    query = torch.randn(QUERIES, BATCH, WIDTH)
    results = [[attention.train(mode)(query, query, query)[0] for _ in range(2)] for mode in (True, False)]
    assert not torch.equal(*results[0]) and torch.equal(*results[1])


def test_options_that_no_detr_uses_are_left_to_torch():
    for options in (dict(kdim=8), dict(add_bias_kv=True), dict(add_zero_attn=True)):
        attention = nn.MultiheadAttention(WIDTH, HEADS, **options)
        use_fused_self_attention(attention)
        assert type(attention) is nn.MultiheadAttention


def test_detectors_use_it_everywhere():
    attentions = [m for m in build(tiny_model_cfg()).modules() if isinstance(m, nn.MultiheadAttention)]
    assert attentions and {type(attention) for attention in attentions} == {SelfAttention}


def test_a_mask_is_kept_once_for_all_heads():
    """What the forward pass keeps of a mask that differs between images does not grow with the heads."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    attention = nn.MultiheadAttention(8, 8)
    use_fused_self_attention(attention)
    query = torch.randn(200, 2, 8)
    mask = (torch.rand(2, 200, 200) < 0.4).repeat_interleave(8, 0)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attention(query, query, query, attn_mask=mask)
    assert max(kept.values()) <= 2 * 200 * 200 * 4  # floats of one mask per image
