import math

import numpy as np
import pytest
import torch
from mmdet.models.losses import GIoULoss
from mmdet.models.task_modules.assigners.match_cost import BaseMatchCost, BBoxL1Cost, FocalLossCost, IoUCost
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy, bbox_overlaps
from mmengine.structures import InstanceData

from mmdet_stable.models.task_modules import (
    Pairwise,
    PositionModulatedFocalCost,
    aligned_iou_and_giou,
    batched_cost,
    position_modulator,
)
from mmdet_stable.models.task_modules.match_costs import has_batched_form
from mmdet_stable.structures import BatchTargets, Predictions
from tests.utils import golden, golden_samples, samples, tensor

SIZE = 1000  # pixels of the golden images


def golden_inputs(data, prefix):
    gts = golden_samples(data, scale=SIZE, prefix=prefix)
    targets = BatchTargets.from_instances([s.gt_instances for s in gts], [s.metainfo for s in gts])
    return Predictions(
        tensor(data[f'{prefix}pred_logits'])[None], tensor(data[f'{prefix}pred_boxes'])[None], ('',)
    ), targets


def costs_of(costs, predictions, targets):
    pairwise = Pairwise(predictions, targets)
    return sum(batched_cost(cost, pairwise) for cost in costs)


def class_cost(beta):
    return FocalLossCost(weight=2.0) if beta < 0 else PositionModulatedFocalCost(f2_power=beta, weight=2.0)


@pytest.mark.parametrize('file', ['stable_matcher_unique', 'stable_matcher_dup'])
@pytest.mark.parametrize('beta', [-1, 0.25, 0.5, 2])
@pytest.mark.parametrize('index', range(3))
def test_golden_pairwise_cost(file, beta, index):
    """``cost_pairwise`` holds the paper's formula: one modulator per pair. The released code's own cost equals it where
    every class occurs once (the "unique" file)."""
    data = golden(file)
    predictions, targets = golden_inputs(data, f'in{index}.')
    costs = costs_of([class_cost(beta), BBoxL1Cost('xywh', 5.0), IoUCost('giou', 2.0)], predictions, targets)[0, 0].T
    # The reference's GIoU cost is 1 - GIoU, ours -GIoU; its epsilon in normalised units moves GIoU by up to 1e-4.
    np.testing.assert_allclose(costs + 2.0, data[f'in{index}.beta{beta}.cost_pairwise_0'], rtol=0, atol=2e-4)
    if file == 'stable_matcher_unique':
        np.testing.assert_allclose(costs + 2.0, data[f'in{index}.beta{beta}.cost_f64_0'], rtol=0, atol=2e-4)


def random_batch(num_gts=(5, 0, 2), num_layers=2, num_queries=12, num_classes=7):
    gts = samples(num_gts)
    targets = BatchTargets.from_instances([s.gt_instances for s in gts], [s.metainfo for s in gts])
    shape = (num_layers, len(gts), num_queries)
    centres, sizes = torch.rand(*shape, 2) * 0.6 + 0.2, torch.rand(*shape, 2) * 0.2 + 0.05
    return gts, targets, Predictions(torch.randn(*shape, num_classes), torch.cat([centres, sizes], -1), ('d0.', ''))


COSTS = dict(
    focal=FocalLossCost(weight=2.0, alpha=0.3, gamma=1.5),
    modulated=PositionModulatedFocalCost(weight=3.0),
    modulated_off=PositionModulatedFocalCost(f2_power=0),
    l1=BBoxL1Cost('xywh', 5.0),
    l1_corners=BBoxL1Cost('xyxy', 5.0),
    giou=IoUCost('giou', 2.0),
    iou=IoUCost('iou', 2.0),
    softmax=TASK_UTILS.build(dict(type='ClassificationCost', weight=1.5)),
)


@pytest.mark.parametrize('name', COSTS)
def test_batched_equals_one_by_one(name):
    gts, targets, predictions = random_batch()
    batched = costs_of([COSTS[name]], predictions, targets)
    assert batched.shape == (2, 3, 5, 12)
    for layer in range(2):
        for image, sample in enumerate(gts):
            whwh = targets.whwh[image]
            preds = InstanceData(
                scores=predictions.logits[layer, image],
                bboxes=bbox_cxcywh_to_xyxy(predictions.boxes_cxcywh[layer, image]) * whwh,
            )
            single = COSTS[name](preds, sample.gt_instances, sample.metainfo)
            torch.testing.assert_close(
                batched[layer, image, : len(sample.gt_instances)].T, single, atol=1e-5, rtol=1e-5
            )


def test_subclass_with_its_own_call_is_not_given_its_parents_formula():

    class Doubled(IoUCost):
        def __call__(self, *args, **kwargs):
            return 2 * super().__call__(*args, **kwargs)

    _, targets, predictions = random_batch()
    torch.testing.assert_close(
        costs_of([Doubled()], predictions, targets)[:, 0], 2 * costs_of([IoUCost()], predictions, targets)[:, 0]
    )


class HalfIoU(BaseMatchCost):
    """A cost of somebody else, with a batched form."""

    def __call__(self, pred_instances, gt_instances, img_meta=None, **kwargs):
        return IoUCost('iou', self.weight / 2)(pred_instances, gt_instances, img_meta)

    def batched(self, pairwise):
        return pairwise.iou * (-self.weight / 2)


def test_batched_form_of_somebody_elses_cost():
    _, targets, predictions = random_batch()
    ours, theirs = costs_of([HalfIoU(3.0)], predictions, targets), costs_of([IoUCost('iou', 1.5)], predictions, targets)
    torch.testing.assert_close(ours, theirs)

    class Other(HalfIoU):
        def __call__(self, *args, **kwargs):
            return 2 * super().__call__(*args, **kwargs)

    class Same(PositionModulatedFocalCost):
        """Nothing of its own."""

    assert has_batched_form(HalfIoU(3.0)) and not has_batched_form(Other(3.0)) and has_batched_form(Same())
    torch.testing.assert_close(costs_of([Other(3.0)], predictions, targets)[:, 0], 2 * theirs[:, 0])


def test_batched_form_of_another_shape():
    """As mmdet has it: queries before ground truths."""

    class Turned(HalfIoU):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

        def batched(self, pairwise):
            return super().batched(pairwise).transpose(2, 3)

    _, targets, predictions = random_batch()
    with pytest.raises(ValueError, match=r'Turned.batched returned \(2, 3, 12, 5\), but .* are \(2, 3, 5, 12\)'):
        costs_of([Turned(1.0)], predictions, targets)


def test_by_hand():
    """Two queries, two ground truths, 100 px. Query 0 sits on ground truth 0; query 1 is disjoint from both."""
    gts = InstanceData(bboxes=torch.tensor([[0.0, 0, 50, 50], [50, 50, 100, 100]]), labels=torch.tensor([0, 1]))
    preds = InstanceData(bboxes=torch.tensor([[0.0, 0, 50, 50], [50, 0, 100, 50]]), scores=torch.zeros(2, 2))
    cost = PositionModulatedFocalCost(weight=1.0)(preds, gts)
    # GIoU: (0, 0) identical 1; (0, 1) diagonal -0.5; (1, 0) and (1, 1) adjacent 0. Modulators: 1, 0.5, sqrt(0.5).

    def focal(q):
        return -0.25 * (1 - q) ** 2 * math.log(q) + 0.75 * q**2 * math.log(1 - q)

    expected = [[focal(0.5), focal(0.25)], [focal(0.5 * math.sqrt(0.5)), focal(0.5 * math.sqrt(0.5))]]
    torch.testing.assert_close(cost, torch.tensor(expected))


def test_modulator_is_rescaled_per_image_and_ignores_padding():
    giou = torch.tensor([[[0.0, -0.5], [1.0, 1.0]]])  # the second ground truth is padding
    valid = torch.tensor([[True, False]])
    modulator = position_modulator(giou, 0.5, valid)
    torch.testing.assert_close(modulator[0, 0], torch.tensor([1.0, math.sqrt(0.5)]))
    assert modulator.max() <= 1
    assert position_modulator(torch.zeros(3, 0, 5), 0.5).shape == (3, 0, 5)


def test_off_equals_mmdet_parent():
    gts, _, _ = random_batch((4,))
    preds = InstanceData(scores=torch.randn(9, 7) * 5, bboxes=torch.rand(9, 4).cumsum(1) * 50)
    torch.testing.assert_close(
        PositionModulatedFocalCost(f2_power=0, weight=2.0)(preds, gts[0].gt_instances),
        FocalLossCost(weight=2.0)(preds, gts[0].gt_instances),
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_finite_and_computed_in_float32(dtype):
    _, targets, predictions = random_batch()
    logits = predictions.logits.to(dtype) * 1000
    costs = costs_of(
        [COSTS['modulated'], COSTS['giou'], COSTS['l1']],
        Predictions(logits, predictions.boxes_cxcywh.to(dtype), predictions.prefixes),
        targets,
    )
    assert costs.dtype == torch.float32 and costs.isfinite().all()


def test_permutation_of_queries():
    _, targets, predictions = random_batch()
    order = torch.randperm(12)
    permuted = Predictions(predictions.logits[:, :, order], predictions.boxes_cxcywh[:, :, order], predictions.prefixes)
    costs = list(COSTS.values())
    torch.testing.assert_close(costs_of(costs, permuted, targets), costs_of(costs, predictions, targets)[..., order])


def without_boxes(assigner, costs):
    """The matches of a head that predicts masks only, as that of Mask2Former."""
    generator = torch.Generator().manual_seed(0)
    preds = InstanceData(scores=torch.randn(6, 3, generator=generator), masks=torch.randn(6, 4, generator=generator))
    gts = InstanceData(labels=torch.tensor([2, 0]), masks=torch.ones(2, 4))
    return TASK_UTILS.build(dict(type=assigner, match_costs=costs)).assign(preds, gts, dict(img_shape=(8, 8))).gt_inds


@pytest.mark.parametrize('assigner', ['HungarianAssigner', 'StableHungarianAssigner'])
@pytest.mark.parametrize('metric', ['box', 'mask'])
def test_heads_without_boxes_are_refused(assigner, metric):
    with pytest.raises(ValueError, match="this head, as that of Mask2Former, predicts none: take 'ClassificationCost'"):
        without_boxes(assigner, [dict(type='PositionModulatedFocalCost', position_metric=metric)])


@pytest.mark.parametrize('cost', [dict(type='FocalLossCost'), dict(type='PositionModulatedFocalCost', f2_power=0)])
@pytest.mark.parametrize('others', [[], [dict(type='DiceCost', pred_act=True, eps=1.0)]])
def test_costs_of_scores_need_no_boxes(cost, others):
    expected = without_boxes('HungarianAssigner', [dict(type='FocalLossCost'), *others])
    for assigner in ('HungarianAssigner', 'StableHungarianAssigner'):
        assert torch.equal(without_boxes(assigner, [cost, *others]), expected)


def test_negative_power_is_refused():
    with pytest.raises(ValueError, match='f2_power=-1'):
        PositionModulatedFocalCost(f2_power=-1)


def test_aligned_boxes_are_mmdets_giou_with_its_gradient():
    generator = torch.Generator().manual_seed(0)
    corners, sizes = torch.rand(2, 40, 2, generator=generator) * 50, torch.rand(2, 40, 2, generator=generator) * 60
    pred, gt = torch.cat([corners, corners + sizes], -1)
    values, gradients = [], []
    for function in (lambda *boxes: 1 - aligned_iou_and_giou(*boxes)[1], GIoULoss(reduction='none')):
        boxes = pred.clone().requires_grad_()
        values.append(function(boxes, gt))
        values[-1].sum().backward()
        gradients.append(boxes.grad)
    torch.testing.assert_close(*values)
    torch.testing.assert_close(*gradients)
    torch.testing.assert_close(aligned_iou_and_giou(pred, gt)[0], bbox_overlaps(pred, gt, is_aligned=True))
