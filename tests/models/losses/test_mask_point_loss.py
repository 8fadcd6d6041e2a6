"""Losses at uncertain points: the reference's points, losses and gradients from its recorded draws."""

import json

import numpy as np
import pytest
import torch

from mmdet_stable.models.losses import (
    MaskPairs,
    PointSampler,
    mask_ious,
    mask_losses,
    mask_point_loss,
    mask_point_losses,
    pairs_by_image,
)
from mmdet_stable.structures import MaskTargets
from tests.utils import close, golden, tensor

DATA = golden('maskdino_point_losses')
CASES = json.loads(str(DATA['meta']))['cases']
TARGETS = MaskTargets.from_masks([tensor(DATA[f'gt_masks_{i}']) for i in range(2)])
NUM_MASKS = float(DATA['num_masks'])


@pytest.fixture(params=[1, 3, 128], autouse=True, ids='parts of {}'.format)
def parts(request, monkeypatch):
    monkeypatch.setattr(mask_point_loss, 'PAIRS_AT_A_TIME', request.param)


class Draws:
    """Hands out recorded draws in turn, of so many rows at a time."""

    def __init__(self, *draws):
        self.draws = [tensor(draw) for draw in draws]

    def __call__(self, *shape, device=None):
        draw = self.draws.pop(0)
        self.draws.append(draw[shape[0] :])
        assert draw[: shape[0]].shape == shape
        return draw[: shape[0]]


def recorded_pairs(masks):
    """The recorded matches, with embeddings and features of which the recorded masks (B, Q, h, w) are made."""
    embeddings = torch.eye(masks.shape[1])
    images = []
    for image in range(2):
        queries, gts = tensor(DATA[f'match_query_{image}']), tensor(DATA[f'match_gt_{image}'])
        images.append(MaskPairs(embeddings[queries], masks[image], TARGETS.rows(torch.tensor(image), gts)))
    return images


def recorded_draws(case):
    extra = [DATA[f'{case}.rand_extra']] if f'{case}.rand_extra' in DATA else []
    return [DATA[f'{case}.rand_over'], *extra]


@pytest.mark.parametrize('case', CASES)
def test_golden_losses_and_gradients(case):
    masks = tensor(DATA['pred_masks']).requires_grad_()
    images = recorded_pairs(masks)
    sampler = PointSampler(**CASES[case], share_candidates=False)
    cross_entropy, dice = mask_point_losses(images, TARGETS, sampler, Draws(*recorded_draws(case)))
    close(cross_entropy.detach(), DATA[f'{case}.loss_mask_per_pair'], 1e-5)
    close(dice.detach(), DATA[f'{case}.loss_dice_per_pair'], 1e-5)
    for loss, name in ((cross_entropy, 'mask'), (dice, 'dice')):
        loss = loss.sum() / NUM_MASKS
        assert loss.item() == pytest.approx(float(DATA[f'{case}.loss_{name}_f64']), rel=1e-5)
        (grad,) = torch.autograd.grad(loss, masks, retain_graph=True)
        close(grad, DATA[f'{case}.grad_{name}'], 3e-5)


@pytest.mark.parametrize('case', CASES)
def test_golden_points(case):
    """Chosen points, in any order, with their logits and labels."""
    sampler = PointSampler(**CASES[case], share_candidates=False)
    draws = Draws(*recorded_draws(case))
    found = []
    for pairs in recorded_pairs(tensor(DATA['pred_masks'])):
        for candidates in sampler.candidates(pairs, draws):
            points, logits = sampler.choose(candidates)
            found.append((points, logits, TARGETS.sample(candidates.rows, points)))
    points, logits, labels = map(torch.cat, zip(*found))
    assert points.shape == DATA[f'{case}.points'].shape
    rows = torch.cat([points, logits[..., None], labels[..., None]], 2).numpy()
    expected = [
        DATA[f'{case}.points'],
        DATA[f'{case}.point_logits'][..., None],
        DATA[f'{case}.point_labels'][..., None],
    ]
    for ours, theirs in zip(rows, np.concatenate(expected, 2)):
        ours, theirs = (values[np.lexsort(values[:, :2].T)] for values in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)


def test_shared_candidates_are_the_same_choice():
    """Where every pair of an image has the same draws, sharing them changes nothing."""
    torch.manual_seed(0)
    features = torch.randn(6, 9, 11, requires_grad=True)
    embeddings = torch.randn(4, 6, requires_grad=True)
    pairs = MaskPairs(embeddings, features, torch.tensor([0, 1, 2, 3]))
    settings = dict(num_points=50, oversample_ratio=3.0, importance_sample_ratio=0.7)
    draws = [torch.rand(1, 150, 2), torch.rand(1, 15, 2)]
    results = []
    for share in (True, False):
        sampler = PointSampler(**settings, share_candidates=share)
        rand = Draws(*(draw if share else draw.expand(4, -1, -1) for draw in draws))
        losses = mask_point_losses([pairs], TARGETS, sampler, rand)
        total = losses[0].sum() + 2 * losses[1].sum()
        results.append((*losses, *torch.autograd.grad(total, (embeddings, features))))
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('share', [True, False])
def test_no_pairs(share):
    features, embeddings = torch.randn(2, 6, 9, 11, requires_grad=True), torch.randn(0, 6, requires_grad=True)
    images = [MaskPairs(embeddings, image, torch.zeros(0, dtype=torch.long)) for image in features]
    losses = mask_point_losses(images, TARGETS, PointSampler(share_candidates=share))
    assert [len(loss) for loss in losses] == [0, 0]
    sum(loss.sum() for loss in losses).backward()
    assert features.grad.abs().max() == 0 and embeddings.grad.shape == (0, 6)
    assert float(DATA['empty.loss_mask']) == float(DATA['empty.loss_dice']) == 0
    assert mask_ious(images, TARGETS.averages((9, 11))).shape == (0,)


@pytest.mark.parametrize('share', [True, False])
def test_float16_is_raised(share):
    pairs = MaskPairs(300 * torch.randn(4, 6).half(), 300 * torch.randn(6, 9, 11).half(), torch.arange(4))
    for loss in mask_point_losses([pairs], TARGETS, PointSampler(40, share_candidates=share)):
        assert loss.dtype == torch.float32 and loss.isfinite().all()


def test_mask_losses_by_hand():
    cross_entropy, dice = mask_losses(torch.tensor([[0.0, 0.0], [100.0, -100.0]]), torch.tensor([[1.0, 0.0]] * 2))
    torch.testing.assert_close(cross_entropy, torch.tensor([np.log(2), 0.0], dtype=torch.float32))
    torch.testing.assert_close(dice, torch.tensor([1 - 2 / 3, 0.0]))


def test_mask_ious_by_hand():
    masks = torch.zeros(1, 8, 12, dtype=torch.bool)
    masks[0, :4, :5] = True  # two cells of 4 x 4, the second of which it covers by a quarter
    targets = MaskTargets.from_masks([masks])
    features = torch.full((1, 2, 3), -1.0)
    features[0, 0, :2] = 1
    pairs = MaskPairs(torch.tensor([[1.0], [-1.0], [0.0]]), features, torch.tensor([0, 0, 0]))
    ious = mask_ious([pairs], targets.averages((2, 3)))
    torch.testing.assert_close(ious, torch.tensor([1.25 / 2, 0.0, 0.0]))


def test_pairs_by_image():
    first, second, third = pairs_by_image([(2, [2, 0, 1]), (1, [1, 0, 2])])
    assert first.tolist() == [0, 1, 3, 4, 6] and second.tolist() == [] and third.tolist() == [2, 5, 7, 8]
    assert [len(image) for image in pairs_by_image([(3, [0, 0])])] == [0, 0]


@pytest.mark.parametrize('wrong', [dict(num_points=0), dict(oversample_ratio=0.5), dict(importance_sample_ratio=1.5)])
def test_errors(wrong):
    with pytest.raises(ValueError, match=f'{next(iter(wrong))}={next(iter(wrong.values()))}'):
        PointSampler(**wrong)
