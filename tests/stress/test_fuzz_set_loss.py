"""Cost, assigner, loss, denoising and fusion on random sizes, types and values against slow, plain references."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from scipy.optimize import linear_sum_assignment

from mmdet_stable.models.layers import DNQueryGenerator
from mmdet_stable.models.losses import position_supervised_loss, rescale_targets
from mmdet_stable.models.necks import DenseMemoryFusion, SimpleMemoryFusion, UShapedMemoryFusion
from mmdet_stable.structures import BatchTargets, Matched, Predictions, QueryPlan, Segment
from tests.utils import build_head, data_sample

EXTREMES = st.sampled_from([0.0, 1e-8, 1.0, 30.0, 1e4, 6e4, -1e4, -6e4])
DTYPES = st.sampled_from([torch.float32, torch.bfloat16, torch.float16])


@st.composite
def batches(draw):
    """Predictions, their targets and the data samples: any numbers of boxes, queries and classes, also none."""
    num_images, num_queries = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    num_classes, num_layers = draw(st.sampled_from([1, 2, 5, 40])), draw(st.integers(1, 3))
    num_gts = draw(st.lists(st.integers(0, 12), min_size=num_images, max_size=num_images))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    gts = []
    for num in num_gts:
        height, width = draw(st.sampled_from([(1, 1), (7, 900), (64, 96), (4000, 3)]))
        corners = torch.rand(num, 2, 2, generator=generator).sort(1).values * torch.tensor([width, height])
        if draw(st.booleans()):
            corners[:, 1] = corners[:, 0]  # without area
        labels = torch.randint(num_classes, (num,), generator=generator)
        gts.append(data_sample(corners.flatten(1), labels, (height, width)))
    dtype = draw(DTYPES)
    logits = torch.randn(num_layers, num_images, num_queries, num_classes, generator=generator) * 3
    boxes = torch.rand(num_layers, num_images, num_queries, 4, generator=generator)
    logits[..., 0] = logits[..., 0] + draw(EXTREMES)
    boxes = boxes * draw(st.sampled_from([0.0, 1e-4, 1.0]))
    targets = BatchTargets.from_instances([gt.gt_instances for gt in gts], [gt.metainfo for gt in gts])
    prefixes = tuple(f'd{i}.' for i in range(num_layers))
    return Predictions(logits.to(dtype), boxes.to(dtype), prefixes), targets, gts


def plain_iou_and_giou(a, b):
    """Of two boxes xyxy, in Python's float64."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), 0)
    height = max(min(a[3], b[3]) - max(a[1], b[1]), 0)
    inter = width * height
    union = max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter, 1e-6)
    hull = max((max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1])), 1e-6)
    return inter / union, inter / union - (hull - union) / hull


def sigmoid(x):
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def plain_costs(predictions, targets, layer, image):
    """(G, Q) cost of Eq. 4 with the weights of the released config, pair by pair, and whether float32 can tell it."""
    num, whwh = targets.num_gts[image], targets.whwh[image]
    logits, boxes = (value[layer, image].float() for value in predictions[:2])
    pixels = (bbox_cxcywh_to_xyxy(boxes) * whwh).tolist()
    gious = np.array(
        [[plain_iou_and_giou(p, g)[1] for p in pixels] for g in targets.boxes_xyxy[image, :num].tolist()]
    ).reshape(num, len(pixels))
    modulator = np.clip((gious + 1) / 2, 0, 1) ** 0.5
    largest = modulator.max(initial=0)
    modulator = modulator / max(largest, 1e-8)
    # Where not one pair is placed at all, as points far from points, rescaling makes rounding the modulator.
    exact = largest > 1e-2
    costs = np.zeros_like(gious)
    for g, q in itertools.product(range(num), range(len(pixels))):
        score = sigmoid(logits[q, targets.labels[image, g]].item()) * min(modulator[g, q], 1)
        exact &= score < 0.9999  # where the log of what is left of it is steep
        positive = -math.log(score + 1e-12) * 0.25 * (1 - score) ** 2
        negative = -math.log(1 - score + 1e-12) * 0.75 * score**2
        l1 = (boxes[q] - targets.boxes_cxcywh[image, g]).abs().sum().item()
        costs[g, q] = 2 * (positive - negative) + 5 * l1 - 2 * gious[g, q]
    return costs, exact


@pytest.fixture(scope='module')
def assigner():
    costs = [
        dict(type='PositionModulatedFocalCost', weight=2.0),
        dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'),
        dict(type='IoUCost', iou_mode='giou', weight=2.0),
    ]
    return TASK_UTILS.build(dict(type='StableHungarianAssigner', match_costs=costs))


@given(batch=batches())
def test_matches_cost_as_little_as_the_plain_ones(assigner, batch):
    """Ties may be broken otherwise, so the sums are compared."""
    predictions, targets, _ = batch
    (matches,) = assigner.assign_batch([predictions], targets)
    num_queries = predictions.logits.shape[2]
    assert matches.num_per_layer == sum(min(num, num_queries) for num in targets.num_gts)
    for layer, image in itertools.product(range(len(predictions.logits)), range(len(targets.num_gts))):
        costs, exact = plain_costs(predictions, targets, layer, image)
        chosen = (matches.layer_inds == layer) & (matches.image_inds == image)
        gts, queries = matches.gt_inds[chosen].numpy(), matches.query_inds[chosen].numpy()
        assert len(set(gts)) == len(set(queries)) == min(costs.shape)
        assert not exact or costs[gts, queries].sum() <= costs[linear_sum_assignment(costs)].sum() + 1e-2 * max(
            len(gts), 1
        )


@given(
    num=st.integers(0, 30),
    num_classes=st.sampled_from([1, 3, 80]),
    scale=st.sampled_from([0.1, 5.0, 80.0, 1e4, 6e4]),
    dtype=DTYPES,
    seed=st.integers(0, 2**31),
)
def test_position_supervised_loss(num, num_classes, scale, dtype, seed):
    """Value and gradient against float64, written out from Eq. 3."""
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(num, num_classes, generator=generator).clamp(-1, 1) * scale).to(dtype).requires_grad_()
    labels = torch.randint(num_classes + 1, (num,), generator=generator)
    targets = torch.rand(num, generator=generator)
    loss = position_supervised_loss(logits, labels, targets)
    exact = logits.detach().double().requires_grad_()
    t = F.one_hot(labels, num_classes + 1)[:, :-1] * targets.double()[:, None]
    is_positive = F.one_hot(labels, num_classes + 1)[:, :-1].bool()
    p = exact.sigmoid()
    weight = torch.where(is_positive, 0.25 * (t - p).abs() ** 2, 0.75 * p**2)
    expected = (weight * F.binary_cross_entropy_with_logits(exact, t, reduction='none')).sum(-1)
    assert loss.dtype == torch.float32 and loss.isfinite().all()
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=1e-5 + 2e-7 * scale)
    loss.sum().backward()
    expected.sum().backward()
    assert logits.grad.isfinite().all()
    if dtype == torch.float32:
        torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=1e-3, atol=1e-4)


@given(num=st.integers(0, 20), num_groups=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_rescaled_targets(num, num_groups, seed):
    generator = torch.Generator().manual_seed(seed)
    targets, ceilings = torch.rand(num, generator=generator), torch.rand(num_groups, generator=generator)
    groups = torch.randint(num_groups, (num,), generator=generator)
    result = rescale_targets(targets, groups, ceilings)
    for group in range(num_groups):
        mine, after = targets[groups == group], result[groups == group]
        if len(mine):
            factor = max(ceilings[group].item() / (mine.max().item() + 1e-8), 1)
            torch.testing.assert_close(after, (mine * factor).clamp(max=1))


HEADS = {}


@given(batch=batches(), rescale=st.sampled_from([None, 'one', 'max_iou']))
def test_all_losses_are_finite_and_every_prediction_gets_a_gradient(batch, rescale):
    predictions, targets, _ = batch
    key = predictions.logits.shape[-1], rescale
    head = HEADS.setdefault(key, build_head(num_layers=2, num_classes=key[0], target_rescale=rescale))
    logits, boxes = (value.clone().requires_grad_() for value in predictions[:2])
    losses = head.plan_losses(QueryPlan((Segment('', logits.shape[2], Matched()),), targets), logits, boxes)
    assert len(losses) == 3 * len(logits)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    sum(losses.values()).backward()
    assert logits.grad.isfinite().all() and boxes.grad is not None and boxes.grad.isfinite().all()


@given(
    batch=batches(),
    negatives=st.sampled_from([None, 'near', 'far']),
    noise=st.sampled_from(['centre_size', 'corners']),
    scale=st.sampled_from([0.0, 0.4, 1.0, 3.0]),
    max_queries=st.sampled_from([10, 30, 600]),
    ignore_padding=st.booleans(),
)
def test_denoising_queries(batch, negatives, noise, scale, max_queries, ignore_padding):
    """Never more than allowed, never outside the image, every shown ground truth once in each group, and a mask by the
    paper's rules, query by query."""
    predictions, targets, gts = batch
    generator = DNQueryGenerator(
        predictions.logits.shape[-1],
        8,
        num_groups=3,
        max_queries=max_queries,
        negatives=negatives,
        box_noise=noise,
        box_noise_scale=scale,
        ignore_padding=ignore_padding,
    )
    content, boxes, layout = generator(targets)
    total = content.shape[1]
    segments = Segment('dn_', total, layout), Segment('', 5, Matched())
    mask = QueryPlan(segments, targets).attention_mask()
    assert total == layout.num_queries <= max_queries and boxes.shape == (len(gts), total, 4)
    assert content.isfinite().all() and boxes.isfinite().all()
    matches = layout.matches(1, 'cpu')
    for image, num in enumerate(targets.num_gts):
        shown = sorted(matches.gt_inds[matches.image_inds == image].tolist())
        num_shown = min(num, layout.num_slots)
        assert len(shown) == 3 * num_shown and len(set(shown)) == num_shown
    group_size = total // 3
    shown_slots = layout.shown('cpu')
    for image, row, column in itertools.product(range(len(gts)), range(total + 5), range(total)):
        same_group = row < total and row // group_size == column // group_size
        hidden = ignore_padding and not shown_slots[image, column]
        found = mask[row, column] if mask.dim() == 2 else mask[image, 0, row, column]
        assert found == (not same_group or bool(hidden))
    assert not mask[..., total:].any()


@given(
    num_layers=st.integers(1, 6),
    num_tokens=st.integers(1, 12),
    kind=st.sampled_from([SimpleMemoryFusion, UShapedMemoryFusion, DenseMemoryFusion]),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    seed=st.integers(0, 2**31),
)
def test_fusions(num_layers, num_tokens, kind, scale, seed):
    """Against the concatenation that is never built."""
    torch.manual_seed(seed)
    fusion = kind(8, num_layers)
    memories = [torch.randn(2, num_tokens, 8) * scale for _ in range(num_layers + 1)]
    if kind is UShapedMemoryFusion:
        parts, inputs = fusion.fusions[str(num_layers)], (memories[-1], memories[0])
    else:
        parts, inputs = fusion.fusion, memories if kind is DenseMemoryFusion else (memories[0], memories[-1])
    expected = parts.norm(F.linear(torch.cat(tuple(inputs), -1), parts.proj.weight, parts.proj.bias))
    torch.testing.assert_close(fusion(memories), expected, rtol=1e-3, atol=1e-4)
