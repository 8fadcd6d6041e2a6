import pytest
import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.layers.transformer.utils import ConditionalAttention
from torch import nn

from mmdet_stable.models.layers import FusedConditionalAttention, SelfAttention
from tests.models.detectors.test_dn_detr import dn_detr_cfg
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


def compare(ours, theirs, call):
    """The same results and gradients from the same weights."""
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.3)
    ours.load_state_dict(theirs.state_dict())
    outputs, gradients = [], []
    for attention in (ours, theirs):
        outputs.append(call(attention))
        outputs[-1].square().sum().backward()
        gradients.append([parameter.grad for parameter in attention.parameters() if parameter.grad is not None])
    torch.testing.assert_close(*outputs, rtol=1e-5, atol=1e-5)
    assert len(gradients[0]) == len(gradients[1])
    for a, b in zip(*gradients):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    return outputs[0]


@pytest.mark.parametrize('mask', masks(), ids=['none', 'one', 'per_image', 'added', 'padding'])
@pytest.mark.parametrize('batch_first', [False, True])
@pytest.mark.parametrize('bias', [False, True])
def test_it_is_mmcvs(mask, batch_first, bias):
    ours, theirs = (
        kind(WIDTH, HEADS, batch_first=batch_first, bias=bias) for kind in (SelfAttention, MultiheadAttention)
    )
    sizes = (QUERIES, KEYS, KEYS, QUERIES, KEYS)
    inputs = [torch.randn(BATCH, size, WIDTH) if batch_first else torch.randn(size, BATCH, WIDTH) for size in sizes]
    query, key, value, query_pos, key_pos = inputs
    output = compare(ours, theirs, lambda a: a(query, key, value, query_pos=query_pos, key_pos=key_pos, **mask))
    assert output.shape == query.shape
    compare(ours, theirs, lambda attention: attention(query, query_pos=query_pos))


def test_a_mask_for_each_image():
    """(B, 1, Q, Q) is what (B * heads, Q, Q) repeats."""
    attention, query = SelfAttention(WIDTH, HEADS, batch_first=True), torch.randn(BATCH, QUERIES, WIDTH)
    mask = torch.rand(BATCH, 1, QUERIES, QUERIES) < 0.4
    mask[..., 0] = False
    repeated = mask[:, 0].repeat_interleave(HEADS, 0)
    torch.testing.assert_close(attention(query, attn_mask=mask), attention(query, attn_mask=repeated))


def test_dropout_is_for_training():
    attention = SelfAttention(WIDTH, HEADS, attn_drop=0.5)
    query = torch.randn(QUERIES, BATCH, WIDTH)
    results = [[attention.train(mode)(query) for _ in range(2)] for mode in (True, False)]
    assert not torch.equal(*results[0]) and torch.equal(*results[1])


def test_options_that_no_detr_uses_are_refused():
    for options in (dict(kdim=8), dict(add_bias_kv=True), dict(add_zero_attn=True)):
        with pytest.raises(ValueError, match='kdim, vdim, add_bias_kv and add_zero_attn'):
            SelfAttention(WIDTH, HEADS, **options)


@pytest.mark.parametrize('mask', masks()[:4], ids=['none', 'one', 'per_image', 'added'])
@pytest.mark.parametrize('cross_attn', [False, True])
@pytest.mark.parametrize('is_first', [False, True])
def test_conditional_attention_is_mmdets(mask, cross_attn, is_first):
    settings = dict(cross_attn=cross_attn)
    ours, theirs = (kind(WIDTH, HEADS, **settings) for kind in (FusedConditionalAttention, ConditionalAttention))
    keys = KEYS if cross_attn else QUERIES
    if 'attn_mask' in mask:
        mask = dict(attn_mask=mask['attn_mask'][..., :keys])
    padding = torch.zeros(BATCH, keys, dtype=torch.bool)
    padding[1, 4:] = True
    query, query_pos, sine = (torch.randn(BATCH, QUERIES, WIDTH) for _ in range(3))
    key, key_pos = (torch.randn(BATCH, keys, WIDTH) for _ in range(2))
    inputs = dict(query_pos=query_pos, key_pos=key_pos, ref_sine_embed=sine, is_first=is_first)
    compare(ours, theirs, lambda attention: attention(query, key, key_padding_mask=padding, **inputs, **mask))


def test_detectors_use_it_everywhere():
    for cfg, kinds in (
        (tiny_model_cfg(), {SelfAttention}),
        (dn_detr_cfg(), {SelfAttention, FusedConditionalAttention}),
    ):
        attentions = [m for m in build(cfg).modules() if isinstance(m, (MultiheadAttention, ConditionalAttention))]
        assert {type(attention) for attention in attentions} == kinds


def test_a_mask_is_kept_once_for_all_heads():
    """What the forward pass keeps of a mask that differs between images does not grow with the heads."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    attention = SelfAttention(8, 8)
    query = torch.randn(200, 2, 8)
    mask = (torch.rand(2, 200, 200) < 0.4).repeat_interleave(8, 0)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        attention(query, attn_mask=mask)
    assert max(kept.values()) <= 2 * 200 * 200 * 4  # floats of one mask per image
