"""The operators in torch: against loops, mmcv's own torch code, mmdet's focal loss, and compiled mmcv where it is."""

import importlib.util
import math

import pytest
import torch
from mmcv import _ext
from mmcv.ops import batched_nms, roi_align, soft_nms
from mmcv.ops import nms as mmcv_nms
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from mmdet.models.losses.focal_loss import py_focal_loss_with_prob, py_sigmoid_focal_loss

from mmdet_stable import versions
from mmdet_stable.operators import _ext as operators
from tests.utils import ROOT

COMPILED = not _ext.__file__.endswith('.py')
compiled_only = pytest.mark.skipif(not COMPILED, reason='needs compiled mmcv: make test MMCV=compiled')


def boxes_and_scores(number, size=100.0, largest=60.0):
    corners = torch.rand(number, 2) * size
    return torch.cat([corners, corners + torch.rand(number, 2) * largest], 1), torch.rand(number)


def overlap(a, b, offset):
    width = max(0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    area_a, area_b = ((c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b))
    return width * height / (area_a + area_b - width * height)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.3, 0.8])
@pytest.mark.parametrize('number', [1, 40, 300])  # 300: more than one block
def test_nms_is_greedy(number, threshold, offset, monkeypatch):
    monkeypatch.setattr(operators, 'NMS_BLOCK', 128)
    boxes, scores = boxes_and_scores(number)
    kept = []
    for candidate in scores.argsort(descending=True).tolist():
        if all(overlap(boxes[i].tolist(), boxes[candidate].tolist(), offset) <= threshold for i in kept):
            kept.append(candidate)
    assert operators.nms(boxes, scores, threshold, offset).tolist() == kept


def test_nms_of_a_chain_keeps_every_other_box():
    """Each box suppresses the next one only: the longest chain that the passes have to follow."""
    left = torch.arange(600) * 10.0
    boxes = torch.stack([left, torch.zeros(600), left + 15, torch.ones(600)], 1)
    kept = operators.nms(boxes, torch.linspace(1, 0, 600), 0.1, 0)
    assert kept.tolist() == list(range(0, 600, 2))


def test_nms_of_equal_empty_and_half_precision_boxes():
    assert operators.nms(torch.zeros(0, 4), torch.zeros(0), 0.5, 0).tolist() == []
    assert operators.nms(torch.zeros(3, 4), torch.tensor([0.1, 0.3, 0.2]), 0.5, 0).tolist() == [1, 2, 0]  # no area
    boxes = torch.tensor([[0.0, 0, 9, 9]] * 4)
    assert operators.nms(boxes, torch.tensor([0.2, 0.7, 0.7, 0.1]), 0.5, 0).tolist() == [1]
    boxes, scores = boxes_and_scores(50)
    half = operators.nms(boxes.half(), scores, 0.5, 0)
    assert torch.equal(half, operators.nms(boxes.half().float(), scores, 0.5, 0))


def soft_nms_loop(boxes, scores, threshold, sigma, min_score, method):
    remaining, result = list(range(len(boxes))), []
    scores = scores.tolist()
    while remaining:
        best = max(remaining, key=scores.__getitem__)
        result.append((best, scores[best]))
        remaining.remove(best)
        for i in remaining:
            iou = overlap(boxes[best].tolist(), boxes[i].tolist(), 0)
            if method == 2:
                scores[i] *= math.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                scores[i] *= 1 - iou if method == 1 else 0
        remaining = [i for i in remaining if scores[i] >= min_score]
    return result


@pytest.mark.parametrize('method', [0, 1, 2])
def test_soft_nms_is_the_papers(method):
    boxes, scores = boxes_and_scores(40)
    dets = torch.zeros(40, 5)
    kept = operators.softnms(boxes, scores, dets, 0.3, 0.5, 0.05, method, 0)
    expected = soft_nms_loop(boxes, scores, 0.3, 0.5, 0.05, method)
    assert kept.tolist() == [i for i, _ in expected] and len(kept) < 40
    torch.testing.assert_close(dets[: len(kept), 4], torch.tensor([score for _, score in expected]))
    assert torch.equal(dets[: len(kept), :4], boxes[kept]) and not dets[len(kept) :].any()
    assert operators.softnms(boxes[:0], scores[:0], dets[:0], 0.3, 0.5, 0.05, method, 0).tolist() == []


def test_soft_nms_keeps_the_best_box_whatever_its_score_and_boxes_without_area():
    dets = torch.zeros(3, 5)
    kept = operators.softnms(torch.zeros(3, 4), torch.tensor([0.1, 0.3, 0.2]), dets, 0.3, 0.5, 0.15, 2, 0)
    assert kept.tolist() == [1, 2] and dets[:2, 4].tolist() == pytest.approx([0.3, 0.2])
    assert operators.softnms(torch.zeros(1, 4), torch.tensor([0.01]), dets, 0.3, 0.5, 0.05, 1, 0).tolist() == [0]


@compiled_only
@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('number', [1, 30, 1000])
def test_nms_and_soft_nms_are_those_of_compiled_mmcv(number, offset):
    boxes, scores = boxes_and_scores(number, 300.0)
    for threshold in (0.0, 0.1, 0.5, 0.9):
        assert torch.equal(operators.nms(boxes, scores, threshold, offset), _ext.nms(boxes, scores, threshold, offset))
    number = min(number, 200)
    for method in (0, 1, 2):
        results = []
        for module in (operators, _ext):
            dets = torch.zeros(number, 5)
            kept = module.softnms(boxes[:number], scores[:number], dets, 0.3, 0.5, 0.05, method, offset)
            results.append((kept, dets[: len(kept)]))
        assert torch.equal(results[0][0], results[1][0])
        torch.testing.assert_close(results[0][1], results[1][1])


@compiled_only
@pytest.mark.parametrize('kind', [dict(type='nms'), dict(type='soft_nms'), dict(type='nms', split_thr=50)])
def test_mmcvs_batched_nms_gives_the_same_with_both_kinds(kind, monkeypatch):
    """Classes are moved apart by offsets, which cost digits: also these results are equal."""
    boxes, scores = boxes_and_scores(300, 900.0, 400.0)
    classes = torch.randint(0, 80, (300,))
    config = dict(kind, iou_threshold=0.5)
    results = [batched_nms(boxes, scores, classes, config)]
    for name in ('nms', 'softnms'):
        monkeypatch.setattr(_ext, name, getattr(operators, name))
    results.append(batched_nms(boxes, scores, classes, config))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_mmcvs_functions_with_the_operators_in_use():
    boxes, scores = boxes_and_scores(100)
    dets, kept = mmcv_nms(boxes, scores, 0.5, score_threshold=0.2, max_num=7)
    assert len(kept) == 7 and torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))
    dets, kept = soft_nms(boxes.numpy(), scores.numpy(), 0.5, min_score=0.1)
    assert dets.shape == (len(kept), 5)
    classes = torch.arange(100) % 2
    _, kept = batched_nms(boxes, scores, classes, dict(type='nms', iou_threshold=0.5))
    apart = [batched_nms(boxes[classes == c], scores[classes == c], classes[classes == c] * 0, dict(iou_threshold=0.5))
             for c in range(2)]  # fmt: skip
    assert len(kept) == sum(len(found) for _, found in apart)


def attention_inputs(dtype):
    shapes = torch.tensor([(6, 9), (3, 5), (1, 2)])
    sizes = shapes.prod(1)
    value = torch.randn(3, sizes.sum(), 2, 4, dtype=dtype)
    locations = torch.rand(3, 7, 2, 3, 5, 2, dtype=dtype) * 1.6 - 0.3  # also outside of the maps
    return value, shapes, sizes.cumsum(0) - sizes, locations, torch.rand(3, 7, 2, 3, 5, dtype=dtype)


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.float16])
def test_deformable_attention_and_its_gradients_are_mmcvs(dtype):
    value, shapes, starts, locations, weights = attention_inputs(dtype)
    output = operators.ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step=2)
    upstream = torch.randn_like(output)
    gradients = [torch.full_like(x, float('nan')) for x in (value, locations, weights)]
    operators.ms_deform_attn_backward(value, shapes, starts, locations, weights, upstream, *gradients, im2col_step=2)
    leaves = [x.double().requires_grad_() for x in (value, locations, weights)]
    expected = multi_scale_deformable_attn_pytorch(leaves[0], shapes, *leaves[1:])
    expected.backward(upstream.double())
    exactness = {torch.float64: 1e-12, torch.float32: 2e-5, torch.float16: 1e-2}[dtype]
    for ours, theirs in zip((output, *gradients), (expected, *(leaf.grad for leaf in leaves))):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), theirs, rtol=exactness, atol=exactness)


def test_deformable_attention_refuses_bfloat16_as_compiled_mmcv():
    value, shapes, starts, locations, weights = attention_inputs(torch.bfloat16)
    with pytest.raises(NotImplementedError, match=r'takes no bfloat16.*DeformableAttention'):
        operators.ms_deform_attn_forward(value, shapes, starts, locations, weights, im2col_step=64)


@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_focal_loss_and_its_gradient_are_mmdets(gamma):
    logits = torch.randn(6, 4, dtype=torch.float64) * 3
    labels = torch.tensor([0, 3, 4, 1, -1, 2])  # 4 and -1: background
    class_weights = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    one_hot = (labels[:, None] == torch.arange(4)).double()
    for weight in (logits.new_empty(0), class_weights):
        rows = slice(None) if len(weight) == 0 else one_hot.any(1)
        output, gradient = torch.empty_like(logits[rows]), torch.empty_like(logits[rows])
        settings = dict(gamma=gamma, alpha=0.3)
        operators.sigmoid_focal_loss_forward(logits[rows], labels[rows], weight, output, **settings)
        operators.sigmoid_focal_loss_backward(logits[rows], labels[rows], weight, gradient, **settings)
        leaf = logits[rows].clone().requires_grad_()
        row_weights = weight[labels[rows], None] if len(weight) else None
        expected = py_sigmoid_focal_loss(leaf, one_hot[rows], row_weights, reduction='none', **settings)
        expected.sum().backward()
        torch.testing.assert_close(output, expected.detach())
        torch.testing.assert_close(gradient, leaf.grad)


def test_focal_loss_of_extreme_logits_and_no_rows():
    logits, labels = torch.tensor([[300.0, -300.0], [-300.0, 300.0]]), torch.tensor([0, 0])
    for dtype in (torch.float32, torch.float16):
        results = [torch.empty(2, 2, dtype=dtype) for _ in range(2)]
        none = torch.empty(0, dtype=dtype)
        operators.sigmoid_focal_loss_forward(logits.to(dtype), labels, none, results[0], gamma=2.0, alpha=0.25)
        operators.sigmoid_focal_loss_backward(logits.to(dtype), labels, none, results[1], gamma=2.0, alpha=0.25)
        assert results[0].tolist() == [[0, 0], [75, 225]] and results[1].tolist() == [[0, 0], [-0.25, 0.75]]
    empty = torch.zeros(0, 5)
    operators.sigmoid_focal_loss_forward(empty, labels[:0], none.float(), empty, gamma=2.0, alpha=0.25)


def test_focal_loss_of_probabilities_agrees():
    logits, labels = torch.randn(5, 3), torch.tensor([0, 1, 2, 3, 3])
    output = torch.empty(5, 3)
    operators.sigmoid_focal_loss_forward(logits, labels, logits.new_empty(0), output, gamma=2.0, alpha=0.25)
    expected = py_focal_loss_with_prob(logits.sigmoid(), labels, reduction='none')
    torch.testing.assert_close(output, expected)


def test_every_other_operator_says_what_to_do():
    with pytest.raises(NotImplementedError) as error:
        operators.roi_align_forward(torch.zeros(1), output=None)
    text = str(error.value)
    assert text.startswith('roi_align_forward') and versions.COMPILED_MMCV in text
    assert 'nms, sigmoid_focal_loss_backward' in text
    assert not hasattr(operators, '__path__') and hasattr(operators, 'carafe_naive_forward')
    with pytest.raises(ImportError):
        from mmdet_stable.operators._ext import _absent  # noqa: F401


@pytest.mark.skipif(COMPILED, reason='compiled mmcv has the operator')
def test_roi_align_says_what_to_do():
    with pytest.raises(NotImplementedError, match=r'roi_align_forward .*pip install'):
        roi_align(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), 2)


def test_the_file_needs_nothing_of_this_package():
    """It is imported as part of mmcv, before mmdet and this package can be."""
    lines = (ROOT / 'mmdet_stable' / 'operators' / '_ext.py').read_text().splitlines()
    imports = [line for line in lines if line.lstrip().startswith(('import ', 'from '))]
    assert len(imports) == 6 and not any('mmdet' in line for line in imports)
    assert next(line for line in imports if 'mmcv' in line).startswith('    ')  # only once mmcv is there


def test_the_environment_uses_one_kind_of_operators():
    assert COMPILED or importlib.util.find_spec('mmcv._ext').origin == str(versions.mmcv_folder() / '_ext.py')
