"""The plan of queries: order, visibility, splitting and supervision, for every combination of segments."""

import itertools

import pytest
import torch
from mmdet.registry import TASK_UTILS

from mmdet_stable.structures import BatchTargets, DenoisingLayout, Matched, QueryPlan, Segment
from tests.utils import samples

LAYERS, CLASSES = 2, 7


def targets_of(*num_gts):
    return BatchTargets.from_samples(samples(num_gts))


def plan_of(dn, o2m, num_gts=(3, 1), **layout):
    """Denoising queries in two groups, five one-to-one queries, four one-to-many queries."""
    segments = [Segment('', 5, Matched())]
    if dn:
        layout = DenoisingLayout(2, max(num_gts), num_gts, **layout)
        segments.insert(0, Segment('dn_', layout.num_queries, layout))
    if o2m:
        segments.append(Segment('o2m_', 4, Matched(copies=2, loss_weight=0.5)))
    return QueryPlan(tuple(segments), targets_of(*num_gts))


@pytest.mark.parametrize('dn, o2m', itertools.product([False, True], repeat=2))
def test_who_sees_whom(dn, o2m):
    """By the rules of both papers, query by query."""
    plan = plan_of(dn, o2m)
    mask = plan.attention_mask()
    if not (dn or o2m):
        assert mask is None
        return
    kinds = [('dn', 0)] * 3 * dn + [('dn', 1)] * 3 * dn + ['one'] * 5 + ['many'] * 4 * o2m
    assert mask.shape == (len(kinds), len(kinds)) and mask.dtype == torch.bool
    for (row, a), (column, b) in itertools.product(enumerate(kinds), repeat=2):
        sees = a == b or (a[0] == 'dn' and b in ('one', 'many'))
        assert mask[row, column] == (not sees), (a, b)


def test_empty_slots_are_seen_by_nobody():
    plan = plan_of(True, True, ignore_padding=True)
    mask = plan.attention_mask()
    assert mask.shape == (2, 1, 15, 15)
    empty = torch.zeros(2, 15, dtype=torch.bool)
    empty[1, [1, 2, 4, 5]] = True  # the second image shows one box in each of two groups of three slots
    assert mask[0, 0].equal(plan_of(True, True).attention_mask())
    assert mask[1, 0][:, empty[1]].all() and not mask.all(-1).any()


def predictions_of(plan):
    queries = sum(plan.sizes)
    logits = torch.randn(LAYERS, len(plan.targets.num_gts), queries, CLASSES)
    return logits, torch.rand(*logits.shape[:3], 4) * 0.4 + 0.2


def test_predictions_are_split_in_order():
    plan = plan_of(True, True)
    logits, boxes = predictions_of(plan)
    parts = plan.split(logits, boxes)
    assert torch.cat([part.logits for part in parts], 2).equal(logits)
    assert torch.cat([part.boxes_cxcywh for part in parts], 2).equal(boxes)
    assert [part.prefixes for part in parts] == [('d0.dn_', 'dn_'), ('d0.', ''), ('d0.o2m_', 'o2m_')]
    assert [part.supervision for part in parts] == [segment.supervision for segment in plan.segments]


def assigner(**settings):
    costs = [dict(type='FocalLossCost', weight=2.0), dict(type='BBoxL1Cost', weight=5.0, box_format='xywh')]
    return TASK_UTILS.build(dict(type='StableHungarianAssigner', match_costs=costs, **settings))


def test_every_part_gets_its_matches():
    plan = plan_of(True, True, ignore_padding=True)
    one, many, denoising = plan.supervise(assigner(), plan.split(*predictions_of(plan)))
    assert [group.matches.num_per_layer for group in (one, many, denoising)] == [4, 6, 8]
    assert not one.is_denoising and not many.is_denoising and denoising.is_denoising
    assert many.matches.gt_inds[many.matches.image_inds == 1].unique().tolist() == [0]
    assert denoising.in_loss.tolist() == [[True] * 6, [True, False, False] * 2]
    assert denoising.matches.num_groups == 2 and one.in_loss is None


def test_an_image_that_is_skipped_is_in_no_loss():
    plan = plan_of(True, False)
    logits, boxes = predictions_of(plan)
    logits[0, 0, -1] = float('nan')
    groups = plan.supervise(assigner(on_invalid='skip'), plan.split(logits, boxes))
    for group in groups:
        assert not (group.matches.image_inds == 0).any() and group.predictions.logits.isfinite().all()


def test_plan_of_mmdets_numbers_and_back():
    targets = targets_of(3, 1)
    dn_meta = dict(num_denoising_queries=12, num_denoising_groups=2)
    plan = QueryPlan.of_mmdet(targets, 20, dn_meta)
    assert plan.sizes == [12, 8] and plan.dn_meta == dn_meta
    assert QueryPlan.of_mmdet(targets, 20).sizes == [20]


def test_boxes_normalised_by_the_padded_input():
    batch = samples((2, 1), (64, 96))
    for sample in batch:
        sample.set_metainfo(dict(batch_input_shape=(128, 192)))
    by_image, by_input = (BatchTargets.from_samples(batch, normaliser) for normaliser in ('image', 'input'))
    torch.testing.assert_close(by_input.boxes_cxcywh * 2, by_image.boxes_cxcywh)
    assert by_input.whwh[0].tolist() == [192, 128, 192, 128] and by_input.boxes_xyxy.equal(by_image.boxes_xyxy)
    with pytest.raises(ValueError, match="normalised_by='batch': known are"):
        BatchTargets.from_samples(batch, 'batch')


def test_targets_of_one_image():
    targets = targets_of(3, 1)
    one = targets.of_image(1)
    assert one.labels.shape == (1, 1) and one.num_gts == (1,) and not one.is_padded
    assert one.boxes_xyxy[0].equal(targets.boxes_xyxy[1, :1]) and one.img_names == targets.img_names[1:]
