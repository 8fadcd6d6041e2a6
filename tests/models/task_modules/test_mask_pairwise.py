"""Mask costs at points: the reference's terms, whatever way points, branches and images are put together."""

from itertools import product

import pytest
import torch
from mmdet.models.task_modules.assigners import CrossEntropyLossCost, DiceCost
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

from mmdet_stable.models.task_modules import MaskPairwise, random_points, with_stuff_costs
from mmdet_stable.structures import MaskSamples, MaskTargets
from mmdet_stable.utils import sample_maps
from tests.utils import golden, tensor

DATA = golden('maskdino_matcher')


def recorded(case):
    """Embeddings and features of which the recorded masks are made, targets, points, and number of images."""
    masks = tensor(DATA[f'{case}.pred_masks'])
    num_images, num_queries = masks.shape[:2]
    embeddings = torch.eye(num_queries).expand(1, num_images, -1, -1)
    targets = MaskTargets.from_masks([tensor(DATA[f'{case}.gt_masks_{i}']) for i in range(num_images)])
    points = torch.cat([tensor(DATA[f'{case}.points_{i}']) for i in range(num_images)])[None]
    return embeddings, masks, targets, points


@pytest.mark.parametrize('case', 'ABC')
def test_golden_terms(case):
    embeddings, features, targets, points = recorded(case)
    pairwise = MaskPairwise(embeddings, MaskSamples(features, targets, points))
    for name, found in (('mask', pairwise.cross_entropy), ('dice', pairwise.dice)):
        for image, num in enumerate(targets.num_gts):
            expected = tensor(DATA[f'{case}.term_{name}_{image}'])
            torch.testing.assert_close(found[0, image, :num].T, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('which,case', [*product(['all', 'mask_only'], 'ABC'), ('panoptic', 'B')])
def test_golden_totals_and_matches(which, case):
    embeddings, features, targets, points = recorded(case)
    pairwise = MaskPairwise(embeddings, MaskSamples(features, targets, points))
    total = 5 * pairwise.cross_entropy[0] + 5 * pairwise.dice[0]
    for image, num in enumerate(targets.num_gts):
        cost = total[image, :num] + 4 * recorded_term(case, 'class', image)
        if which != 'mask_only':
            box = 5 * recorded_term(case, 'bbox', image) + 2 * recorded_term(case, 'giou', image)
            if which == 'panoptic':
                is_thing = tensor(DATA[f'{case}.gt_labels_{image}']) < 80
                box = with_stuff_costs(box[None, None], is_thing[None], torch.ones_like(is_thing)[None])[0, 0]
            cost = cost + box
        torch.testing.assert_close(cost.T, tensor(DATA[f'{case}.{which}.cost_{image}']), rtol=1e-5, atol=2e-5)
        gts, queries = linear_sum_assignment(cost.numpy())
        expected = {
            (int(query), int(gt))
            for query, gt in zip(DATA[f'{case}.{which}.match_query_{image}'], DATA[f'{case}.{which}.match_gt_{image}'])
        }
        assert set(zip(queries.tolist(), gts.tolist())) == expected


def recorded_term(case, name, image):
    return tensor(DATA[f'{case}.term_{name}_{image}']).T


def test_stuff_costs_count_no_padding():
    costs = torch.arange(12.0).reshape(1, 2, 3, 2)
    is_thing = torch.tensor([[True, False, True], [False, False, True]])
    valid = torch.tensor([[True, True, False], [True, True, False]])
    filled = with_stuff_costs(costs, is_thing, valid)
    assert filled[0, 0].tolist() == [[0, 1], [0.5, 0.5], [4, 5]]
    assert filled[0, 1].tolist() == [[0, 0], [0, 0], [10, 11]]


def random_case(num_gts=(3, 0, 5), num_branches=2, num_queries=7, num_points=40):
    torch.manual_seed(1)
    masks = [torch.rand(num, 20, 28) > 0.6 for num in num_gts]
    embeddings = torch.randn(num_branches, len(num_gts), num_queries, 6)
    features = torch.randn(len(num_gts), 6, 5, 7)
    points = random_points(num_branches, len(num_gts), num_points, embeddings.device, shared=False)
    return embeddings, features, masks, points


def test_equals_mmdet_pair_by_pair():
    embeddings, features, masks, points = random_case()
    pairwise = MaskPairwise(embeddings, MaskSamples(features, MaskTargets.from_masks(masks), points))
    costs = CrossEntropyLossCost(use_sigmoid=True), DiceCost(pred_act=True, eps=1.0)
    for branch in range(2):
        for image, image_masks in enumerate(masks):
            num, at = len(image_masks), points[branch, image]
            logits = (embeddings[branch, image] @ features[image].flatten(1)).view(-1, 5, 7)
            preds = InstanceData(masks=sample_maps(logits[None], at[None])[0])
            gts = InstanceData(masks=sample_maps(image_masks[None].float(), at[None])[0])
            for cost, found in zip(costs, (pairwise.cross_entropy, pairwise.dice)):
                torch.testing.assert_close(found[branch, image, :num], cost(preds, gts).T, rtol=1e-5, atol=1e-5)


def test_branches_share_points():
    embeddings, features, masks, points = random_case()
    targets = MaskTargets.from_masks(masks)
    shared = MaskPairwise(embeddings, MaskSamples(features, targets, points[:1]))
    repeated = MaskPairwise(embeddings, MaskSamples(features, targets, points[:1].expand(2, -1, -1, -1)))
    for name in ('cross_entropy', 'dice', 'iou'):
        assert torch.equal(getattr(shared, name), getattr(repeated, name))


def test_branches_one_by_one():
    embeddings, features, masks, points = random_case()
    samples = MaskSamples(features, MaskTargets.from_masks(masks), points)
    together = MaskPairwise(embeddings, samples)
    for branch in range(2):
        alone = MaskPairwise(embeddings[branch : branch + 1], samples, first=branch)
        assert torch.equal(alone.dice[0], together.dice[branch])
    with pytest.raises(ValueError, match='points of 2 layers for layers 1 to 2'):
        MaskPairwise(embeddings, samples, first=1)


def test_no_ground_truth_at_all():
    embeddings, features, masks, points = random_case((0, 0))
    pairwise = MaskPairwise(embeddings, MaskSamples(features, MaskTargets.from_masks(masks), points))
    assert pairwise.cross_entropy.shape == pairwise.dice.shape == pairwise.iou.shape == (2, 2, 0, 7)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_is_compared_in_float32(dtype):
    embeddings, features, masks, points = random_case()
    targets = MaskTargets.from_masks(masks)
    outside = MaskPairwise((100 * embeddings).to(dtype), MaskSamples((100 * features).to(dtype), targets, points))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        pairwise = MaskPairwise((100 * embeddings).to(dtype), MaskSamples((100 * features).to(dtype), targets, points))
        values = pairwise.cross_entropy, pairwise.dice
    for value, expected in zip(values, (outside.cross_entropy, outside.dice)):
        assert torch.equal(value, expected)
        assert value.dtype == torch.float32 and value.isfinite().all()
