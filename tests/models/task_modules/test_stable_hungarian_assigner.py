import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from mmdet_stable.structures import BatchTargets, Predictions
from tests.models.task_modules.test_match_costs import golden_inputs, random_batch
from tests.utils import golden, samples

BOX_COSTS = [dict(type='BBoxL1Cost', weight=5.0, box_format='xywh'), dict(type='IoUCost', iou_mode='giou', weight=2.0)]


def assigner(type='StableHungarianAssigner', class_cost=None, **settings):
    class_cost = class_cost or dict(type='PositionModulatedFocalCost', weight=2.0)
    return TASK_UTILS.build(dict(type=type, match_costs=[class_cost, *BOX_COSTS], **settings))


def pairs(matches, layer=0, image=0):
    chosen = (matches.layer_inds == layer) & (matches.image_inds == image)
    return set(zip(matches.query_inds[chosen].tolist(), matches.gt_inds[chosen].tolist()))


@pytest.mark.parametrize('file', ['stable_matcher_unique', 'stable_matcher_dup'])
@pytest.mark.parametrize('beta', [-1, 0.25, 0.5, 2])
@pytest.mark.parametrize('index', range(3))
def test_golden_matches(file, beta, index):
    data = golden(file)
    cost = (
        dict(type='FocalLossCost', weight=2.0)
        if beta < 0
        else dict(type='PositionModulatedFocalCost', f2_power=beta, weight=2.0)
    )
    predictions, targets = golden_inputs(data, f'in{index}.')
    (matches,) = assigner(class_cost=cost).assign_batch([predictions], targets)
    key = f'in{index}.beta{beta}.match_'
    assert pairs(matches) == set(zip(data[f'{key}query_pairwise_0'].tolist(), data[f'{key}gt_pairwise_0'].tolist()))


def test_batch_equals_single_images_and_mmdet():
    gts, targets, predictions = random_batch((5, 0, 2))
    (matches,) = assigner().assign_batch([predictions], targets)
    assert matches.num_layers == 2 and matches.num_per_layer == 7
    for layer in range(2):
        for image, sample in enumerate(gts):
            preds = InstanceData(
                scores=predictions.logits[layer, image],
                bboxes=bbox_cxcywh_to_xyxy(predictions.boxes_cxcywh[layer, image]) * targets.whwh[image],
            )
            for one in (assigner(), assigner('HungarianAssigner')):
                result = one.assign(preds, sample.gt_instances, sample.metainfo)
                query = result.gt_inds.nonzero()[:, 0]
                assert pairs(matches, layer, image) == set(zip(query.tolist(), (result.gt_inds[query] - 1).tolist()))
                labels = sample.gt_instances.labels[result.gt_inds[query] - 1]
                assert torch.equal(result.labels[query], labels)
                assert (result.labels[result.gt_inds == 0] == -1).all()


def test_groups_of_different_numbers_of_queries():
    _, targets, predictions = random_batch((3, 4))
    fewer = Predictions(predictions.logits[:1, :, :6], predictions.boxes_cxcywh[:1, :, :6], ('enc_',))
    together = assigner().assign_batch([predictions, fewer], targets)
    for group, matches in zip((predictions, fewer), together):
        (alone,) = assigner().assign_batch([group], targets)
        assert all(torch.equal(a, b) for a, b in zip(matches[:4], alone[:4]))


@pytest.mark.parametrize('num_gts', [(0,), (0, 0), (30, 1)])
def test_every_branch_and_image_gets_min_of_queries_and_boxes(num_gts):
    _, targets, predictions = random_batch(num_gts)
    (matches,) = assigner().assign_batch([predictions], targets)
    for layer in range(2):
        for image, num in enumerate(num_gts):
            found = pairs(matches, layer, image)
            assert len(found) == min(num, 12) == len({q for q, _ in found}) == len({g for _, g in found})


def test_parts_give_the_same(monkeypatch):
    _, targets, predictions = random_batch((5, 2))
    (whole,) = assigner().assign_batch([predictions], targets)
    monkeypatch.setattr('mmdet_stable.utils.cache.CACHE_SIZED', 1)
    (parts,) = assigner().assign_batch([predictions], targets)
    assert all(torch.equal(a, b) for a, b in zip(whole[:4], parts[:4]))


def test_an_image_is_matched_on_its_own():
    """The modulator's rescaling must not look at other images or predictions."""
    _, targets, predictions = random_batch((4, 4))
    (before,) = assigner().assign_batch([predictions], targets)
    changed = predictions.boxes_cxcywh.clone()
    changed[:, 1] = targets.boxes_cxcywh[1, 0]  # image 1 now has perfectly placed queries
    changed[1, 0] = 0.5
    (after,) = assigner().assign_batch([Predictions(predictions.logits, changed, predictions.prefixes)], targets)
    assert pairs(before, 0, 0) == pairs(after, 0, 0)


class TestNotFinite:
    """Two layers, two images of two boxes, five queries; image 0 is spoilt in the second layer."""

    @staticmethod
    def batch(spoil):
        gts = samples((2, 2))
        targets = BatchTargets.from_instances(
            [s.gt_instances for s in gts], [dict(s.metainfo, img_path=f'{i}.jpg') for i, s in enumerate(gts)]
        )
        logits, boxes = torch.zeros(2, 2, 5, 7), torch.full((2, 2, 5, 4), 0.5)
        spoil(logits[1, 0], boxes[1, 0])
        return Predictions(logits, boxes, ('d0.', 'd1.')), targets

    @pytest.mark.parametrize(
        'spoil,message',
        [
            (lambda logits, _: logits.fill_(np.nan), r'predicted logits are .*: PositionModulatedFocalCost\)'),
            (lambda logits, _: logits.fill_(np.inf), r'predicted logits are .*: none\)'),
            (lambda _, boxes: boxes.fill_(np.nan), r'predicted boxes are .*FocalCost, BBoxL1Cost, IoUCost\)'),
            (lambda _, boxes: boxes.fill_(np.inf), r'predicted boxes are .*BBoxL1Cost.*\)'),
        ],
        ids=['nan_logits', 'infinite_logits', 'nan_boxes', 'infinite_boxes'],
    )
    def test_image_layer_and_term_are_named(self, spoil, message):
        with pytest.raises(ValueError, match=r'0\.jpg: ' + message) as error:
            self.match(spoil)
        assert 'not finite in layer "d1.loss"' in str(error.value) and 'learning rate' in str(error.value)

    @staticmethod
    def match(spoil, matcher=None):
        predictions, targets = TestNotFinite.batch(spoil)
        return (matcher or assigner()).assign_batch([predictions], targets)[0]

    def test_also_without_ground_truth(self):
        gts = samples((0,))
        targets = BatchTargets.from_instances([s.gt_instances for s in gts], [s.metainfo for s in gts])
        predictions = Predictions(torch.full((1, 1, 5, 7), np.nan), torch.full((1, 1, 5, 4), 0.5), ('',))
        with pytest.raises(ValueError, match='image 0 of the batch: predicted logits are not finite in layer "loss"'):
            assigner().assign_batch([predictions], targets)

    def test_skipping_leaves_the_other_images(self):
        matcher = assigner(on_invalid='skip')
        expected = self.match(lambda *_: None)
        matches = self.match(lambda logits, _: logits.fill_(np.nan), matcher)
        assert matches.skipped_images == {0} and matcher.num_skipped == 1 and matches.num_per_layer == 2
        for layer in range(2):
            assert pairs(matches, layer, 1) == pairs(expected, layer, 1) and not pairs(matches, layer, 0)
        assert MessageHub.get_current_instance().get_scalar('train/skipped_images').current() == 1
        matches = self.match(lambda *_: None, matcher)
        assert not matches.skipped_images and matcher.num_skipped == 1

    def test_training_on_nothing_ends(self):
        matcher = assigner(on_invalid='skip')
        gts = samples((1,))
        targets = BatchTargets.from_instances([s.gt_instances for s in gts], [s.metainfo for s in gts])
        predictions = Predictions(torch.full((1, 1, 5, 7), np.nan), torch.full((1, 1, 5, 4), 0.5), ('',))
        for _ in range(9):
            matcher.assign_batch([predictions], targets)
        with pytest.raises(ValueError, match='has skipped all of 10 batches in a row'):
            matcher.assign_batch([predictions], targets)

    def test_heads_that_would_not_skip(self):
        preds = InstanceData(scores=torch.zeros(5, 7), bboxes=torch.rand(5, 4))
        with pytest.raises(ValueError, match='needs a head of mmdet_stable'):
            assigner(on_invalid='skip').assign(preds, samples((1,))[0].gt_instances, dict(img_shape=(96, 128)))

    def test_unknown_choice(self):
        with pytest.raises(ValueError, match="on_invalid='ignore': known are 'error' and 'skip'"):
            assigner(on_invalid='ignore')
