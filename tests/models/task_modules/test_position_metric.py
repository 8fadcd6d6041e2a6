"""Position by boxes, masks or both: the recorded formulas, from modulator to match and from quality to loss."""

import pytest
import torch
from mmengine.config import Config
from scipy.optimize import linear_sum_assignment

from mmdet_stable.models.dense_heads.mask_terms import MaskClassTerm
from mmdet_stable.models.dense_heads.set_loss import SetLoss
from mmdet_stable.models.losses import (
    POSITION_TARGETS,
    PositionSupervisedLoss,
    position_supervised_loss,
    rescale_targets,
)
from mmdet_stable.models.task_modules import (
    MaskPairwise,
    Pairwise,
    StableHungarianAssigner,
    focal_cost,
    metric_modulator,
    position_quality,
)
from mmdet_stable.models.task_modules.position_metric import POSITION_METRICS
from mmdet_stable.structures import (
    BatchTargets,
    MaskSamples,
    MaskTargets,
    Matched,
    Matches,
    PredictedMasks,
    Predictions,
    Supervised,
)
from tests.utils import ROOT, golden, golden_samples, tensor

DATA = golden('maskdino_stable_proposal')
NUM_IMAGES = 3


@pytest.fixture(scope='module')
def recorded():
    """Pairwise quantities of boxes and of masks, and both kinds of targets."""
    batch = golden_samples(DATA, scale=1000)
    targets = BatchTargets.from_instances([s.gt_instances for s in batch], [s.metainfo for s in batch])
    logits, boxes = tensor(DATA['pred_logits']), tensor(DATA['pred_boxes'])
    pairwise = Pairwise(Predictions(logits[None], boxes[None], ('',)), targets)
    mask_targets = MaskTargets.from_masks([tensor(DATA[f'gt_masks_{i}']) for i in range(NUM_IMAGES)])
    points = torch.cat([tensor(DATA[f'points_{i}']) for i in range(NUM_IMAGES)])[None]
    embeddings = torch.eye(logits.shape[1]).expand(1, NUM_IMAGES, -1, -1)
    samples = MaskSamples(tensor(DATA['pred_masks']), mask_targets, points)
    return pairwise, MaskPairwise(embeddings, samples)


def assert_recorded(found, key, num_gts, tolerance=2e-6):
    """(1, B, G, Q) against the recorded (Q, G) of each image."""
    for image, num in enumerate(num_gts):
        expected = tensor(DATA[f'{key}_{image}']).float()
        torch.testing.assert_close(found[0, image, :num].T, expected, rtol=1e-4, atol=tolerance)


def test_ious(recorded):
    boxes, masks = recorded
    num_gts = masks.samples.targets.num_gts
    assert_recorded(boxes.iou, 'box_iou', num_gts)
    assert_recorded(masks.iou, 'mask_iou_points', num_gts)
    assert_recorded(1 - masks.dice, 'dice_points', num_gts)


@pytest.mark.parametrize('metric', POSITION_METRICS)
def test_modulated_cost_and_matches(recorded, metric):
    boxes, masks = recorded
    num_gts = masks.samples.targets.num_gts
    modulator = metric_modulator(metric, lambda: boxes.giou, lambda: masks.dice, 0.5, boxes.targets.valid)
    assert_recorded(modulator, f'pmc.{metric}.modulator', num_gts)
    cost = focal_cost(boxes.logits.sigmoid() * modulator, eps=1e-8)
    assert_recorded(cost, f'pmc.{metric}.cost_class', num_gts, 2e-5)
    total = 4 * cost + 5 * masks.cross_entropy + 5 * masks.dice + 5 * boxes.l1 - 2 * boxes.giou
    for image, num in enumerate(num_gts):
        gts, queries = linear_sum_assignment(total[0, image, :num].numpy())
        expected = zip(*(DATA[f'pmc.{metric}.match_{side}_{image}'].tolist() for side in ('query', 'gt')))
        assert set(zip(queries.tolist(), gts.tolist())) == set(expected)


@pytest.mark.parametrize('rescale', ['one', 'max_iou'])
@pytest.mark.parametrize('metric', POSITION_METRICS)
def test_targets_and_loss(recorded, metric, rescale):
    boxes, masks = recorded
    num_gts = masks.samples.targets.num_gts
    logits = tensor(DATA['pred_logits'])
    pairs = [(image, *pair) for image in range(NUM_IMAGES) for pair in zip(*matches_of(image))]
    image_inds, query_inds, gt_inds = torch.tensor(pairs).T

    quality = position_quality(metric, lambda: boxes.iou, lambda: masks.iou)[0]
    raw = POSITION_TARGETS['s^2'](quality[image_inds, gt_inds, query_inds], torch.zeros(()))
    ceilings = torch.ones(NUM_IMAGES)
    if rescale == 'max_iou':
        ceilings = torch.stack([quality[i, :num].max() if num else torch.zeros(()) for i, num in enumerate(num_gts)])
    targets = rescale_targets(raw, image_inds, ceilings)
    for found, key in ((raw, 'raw'), (targets, f'{rescale}.target')):
        expected = torch.cat([tensor(DATA[f'psl.{metric}.{key}_{image}']) for image in range(NUM_IMAGES)])
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=2e-6)

    num_classes = logits.shape[2]
    labels = torch.full(logits.shape[:2], num_classes)
    labels[image_inds, query_inds] = boxes.targets.labels[image_inds, gt_inds]
    at_matches = torch.zeros(logits.shape[:2]).index_put((image_inds, query_inds), targets)
    loss = position_supervised_loss(logits, labels, at_matches).sum() / int(DATA['num_masks'])
    torch.testing.assert_close(loss, tensor(DATA[f'psl.{metric}.{rescale}.loss']).float(), rtol=1e-5, atol=1e-5)


def predictions_of(recorded):
    """The recorded predictions as a layer of a head's, with masks at the recorded points."""
    boxes, masks = recorded
    found = PredictedMasks(masks.embeddings, masks.samples.mask_features, masks.samples)
    logits, boxes_cxcywh = tensor(DATA['pred_logits'])[None], tensor(DATA['pred_boxes'])[None]
    return Predictions(logits, boxes_cxcywh, ('',), Matched(), masks=found), boxes.targets._replace(
        masks=masks.samples.targets
    )


@pytest.mark.parametrize('metric', POSITION_METRICS)
def test_matches_of_the_assigner(recorded, metric):
    """The costs as a config has them."""
    costs = Config.fromfile(ROOT / 'configs' / '_base_' / 'stable_mask_dino.py').stable_mask_dino
    costs = costs.train_cfg.assigner.match_costs
    costs[0].position_metric = metric
    predictions, targets = predictions_of(recorded)
    (matches,) = StableHungarianAssigner(costs).assign_batch([predictions], targets)
    found = zip(*(inds.tolist() for inds in (matches.image_inds, matches.query_inds, matches.gt_inds)))
    sides = [[DATA[f'pmc.{metric}.match_{side}_{image}'] for image in range(NUM_IMAGES)] for side in ('query', 'gt')]
    expected = {(i, *pair) for i in range(NUM_IMAGES) for pair in zip(*(side[i].tolist() for side in sides))}
    assert set(found) == expected


@pytest.mark.parametrize('rescale', ['one', 'max_iou'])
def test_class_term(recorded, rescale):
    """By boxes: masks are compared on the grid of the mask features in training, at points in the file."""
    predictions, targets = predictions_of(recorded)
    pairs = [(image, gt, query) for image in range(NUM_IMAGES) for query, gt in zip(*matches_of(image))]
    image_inds, gt_inds, query_inds = torch.tensor(sorted(pairs)).T
    matches = Matches(torch.zeros_like(image_inds), image_inds, query_inds, gt_inds, 1)
    loss_cls = PositionSupervisedLoss(f1='s^2', loss_weight=1.0)
    term = MaskClassTerm(loss_cls, target_rescale=rescale)
    (loss,) = SetLoss([term])([Supervised(predictions, matches)], targets).values()
    torch.testing.assert_close(loss, tensor(DATA[f'psl.box.{rescale}.loss']).float(), rtol=1e-5, atol=1e-5)


def matches_of(image):
    return DATA[f'match_query_{image}'].tolist(), DATA[f'match_gt_{image}'].tolist()


def test_what_is_not_needed_is_not_computed():
    def never():
        raise AssertionError

    one = torch.ones(1, 2, 3)
    assert torch.equal(position_quality('box', lambda: one, never), one)
    assert torch.equal(position_quality('mask', never, lambda: one), one)
    with pytest.raises(ValueError, match="position_metric='points'"):
        position_quality('points', never, never)
