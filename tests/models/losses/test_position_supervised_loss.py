import math
import pickle

import numpy as np
import pytest
import torch
from mmdet.models.losses import FocalLoss, GIoULoss, L1Loss
from mmdet.registry import MODELS

from mmdet_stable.models.dense_heads import ClassTerm, IoUTerm, L1Term, SetLoss
from mmdet_stable.models.losses import (
    POSITION_TARGETS,
    PositionSupervisedLoss,
    PositionTarget,
    exponential,
    position_supervised_loss,
    rescale_targets,
    sine,
)
from mmdet_stable.structures import BatchTargets, Matches, Predictions, Supervised
from tests.utils import golden, golden_samples, tensor

CURVES = dict(none=lambda t: t, exp=exponential, sin=sine)


@pytest.fixture(scope='module')
def s11():
    """Logits, boxes, ground truth and matches of ``stable_loss_s11``: three images, the second without objects."""
    data = golden('stable_loss_s11')
    samples = golden_samples(data, scale=1000)
    targets = BatchTargets.from_instances([s.gt_instances for s in samples], [s.metainfo for s in samples])
    images = [torch.full((len(data[f'match_gt_{i}']),), i) for i in range(3)]
    query, gt = (torch.cat([tensor(data[f'match_{name}_{i}']) for i in range(3)]) for name in ('query', 'gt'))
    images = torch.cat(images)
    return data, targets, Matches(torch.zeros_like(images), images, query, gt, 1)


def reference_loss(data, targets, matches, loss_cls, target_rescale='one'):
    logits = tensor(data['pred_logits']).clone().requires_grad_()
    boxes = tensor(data['pred_boxes']).clone().requires_grad_()
    terms = [ClassTerm(loss_cls, target_rescale=target_rescale), L1Term(L1Loss()), IoUTerm(GIoULoss())]
    losses = SetLoss(terms)([Supervised(Predictions(logits[None], boxes[None], ('',)), matches)], targets)
    return logits, boxes, losses


@pytest.mark.parametrize('case', range(13))
def test_golden_loss_and_gradient(s11, case):
    data, targets, matches = s11
    score_power, iou_power = float(data['cases_alpha'][case]), float(data['cases_beta'][case])
    if iou_power == 0:
        # Target p alone is no row of the paper. The reference takes the image's maximum over every query and class
        # here, since the IoU of unmatched ones, 0, to the power 0 is 1; ours is over matched queries.
        return check_score_only_case(data, targets, matches, case)
    loss_cls = PositionSupervisedLoss()
    loss_cls.f1 = PositionTarget(iou_power, score_power, CURVES[str(data['cases_post'][case])])
    logits, _, losses = reference_loss(data, targets, matches, loss_cls)
    losses['loss_cls'].backward()
    # IoU differs by up to 1e-4 (the reference's epsilon in normalised units), its effect on the loss is smaller.
    np.testing.assert_allclose(losses['loss_cls'].detach(), data[f'case{case}.loss_class'], rtol=1e-6)
    reference = data[f'case{case}.grad_logits']
    np.testing.assert_allclose(logits.grad, reference, rtol=0, atol=5e-5 * np.abs(reference).max())


def check_score_only_case(data, targets, matches, case):
    logits = tensor(data['pred_logits']).clone().requires_grad_()
    scores = logits.detach().sigmoid()
    gt_labels = targets.labels[matches.ground_truth]
    labels = torch.full(logits.shape[:2], logits.shape[2])
    quality = torch.zeros(logits.shape[:2])
    at = matches.query[1:]
    labels[at] = gt_labels
    quality[at] = scores[(*at, gt_labels)] / scores.amax((1, 2))[matches.image_inds]
    loss = position_supervised_loss(logits, labels, quality).sum() / float(data['num_boxes'])
    loss.backward()
    np.testing.assert_allclose(loss.detach(), data[f'case{case}.loss_class'], rtol=1e-6)


def test_golden_plain_focal_and_boxes(s11):
    data, targets, matches = s11
    logits, boxes, losses = reference_loss(data, targets, matches, PositionSupervisedLoss(f1='1'))
    np.testing.assert_allclose(losses['loss_cls'].detach(), data['plain_focal.loss_class'], rtol=1e-6)
    np.testing.assert_allclose(losses['loss_bbox'].detach(), data['boxes.loss_bbox'], rtol=1e-6)
    np.testing.assert_allclose(losses['loss_iou'].detach(), data['boxes.loss_giou'], rtol=2e-4)
    for loss, value, key in (
        (losses['loss_cls'], logits, 'plain_focal.grad_logits'),
        (losses['loss_bbox'], boxes, 'boxes.grad_loss_bbox'),
        (losses['loss_iou'], boxes, 'boxes.grad_loss_giou'),
    ):
        (grad,) = torch.autograd.grad(loss, value, retain_graph=True)
        atol = (2e-4 if 'giou' in key else 2e-6) * np.abs(data[key]).max()
        np.testing.assert_allclose(grad, data[key], rtol=0, atol=atol, err_msg=key)


def test_by_hand():
    """Two queries, two classes, p = 1/2 everywhere: every term is alpha * d^2 * log 2 or (1 - alpha) / 4 * log 2."""
    loss = position_supervised_loss(torch.zeros(2, 2), torch.tensor([1, 2]), torch.tensor([0.8, 0.9]))
    log2 = math.log(2)
    background = 0.75 * 0.25 * log2
    torch.testing.assert_close(loss, torch.tensor([background + 0.25 * 0.3**2 * log2, 2 * background]))


@pytest.mark.parametrize('gamma', [2.0, 1.5])
def test_gradient_is_that_of_autograd(gamma):
    logits = torch.randn(3, 4, 5, dtype=torch.float64)
    labels, targets = torch.randint(0, 6, (3, 4)), torch.rand(3, 4)

    def plain(x):
        """The formula of Eq. 3, term by term, on one-hot targets."""
        is_positive = torch.nn.functional.one_hot(labels, 6)[..., :5].bool()
        quality, scores = targets[..., None].to(x), x.sigmoid()
        positive = (
            0.25 * (quality - scores).abs() ** gamma * -(quality * scores.log() + (1 - quality) * (1 - scores).log())
        )
        return torch.where(is_positive, positive, 0.75 * scores**gamma * -(1 - scores).log()).sum(-1)

    ours, theirs = (logits.float().requires_grad_(), logits.clone().requires_grad_())
    weights = torch.rand(3, 4)
    loss = position_supervised_loss(ours, labels, targets, gamma=gamma)
    expected = plain(theirs)
    torch.testing.assert_close(loss, expected.float())
    (loss * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad.float())


def test_parts_give_the_same(monkeypatch):
    """Splitting the work to stay in the cache changes nothing."""
    logits, labels, targets = torch.randn(50, 7), torch.randint(0, 8, (50,)), torch.rand(50)
    whole = position_supervised_loss(logits, labels, targets)
    monkeypatch.setattr('mmdet_stable.utils.cache.CACHE_SIZED', 21)
    torch.testing.assert_close(position_supervised_loss(logits, labels, targets), whole)


def test_switched_off_is_focal_loss():
    logits, labels, weight = torch.randn(40, 7), torch.randint(0, 8, (40,)), torch.rand(40)
    ours = PositionSupervisedLoss(f1='1', loss_weight=3.0)
    theirs = FocalLoss(use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=3.0)
    torch.testing.assert_close(
        ours(logits, (labels, torch.rand(40)), weight, avg_factor=9), theirs(logits, labels, weight, avg_factor=9)
    )
    torch.testing.assert_close(
        ours(logits, (labels, torch.rand(40)), reduction_override='none'),
        theirs(logits, labels, reduction_override='none').sum(1),
    )


TABLE_7 = {  # at s = 0.64, p = 0.0256
    '1': 1.0,
    's^0.5': 0.8,
    's': 0.64,
    's^2': 0.4096,
    's^3': 0.262144,
    's*p^0.25': 0.64 * 0.4,
    's*p': 0.64 * 0.0256,
    's^2*p': 0.4096 * 0.0256,
    '(e^s-1)/(e-1)': (math.exp(0.64) - 1) / (math.e - 1),
    'sin(pi*s/2)': math.sin(math.pi * 0.32),
}


@pytest.mark.parametrize('f1', POSITION_TARGETS)
def test_every_f1_of_table_7(f1):
    assert set(TABLE_7) == set(POSITION_TARGETS)
    value = POSITION_TARGETS[f1](torch.tensor([0.64, 0.0, 1.0], requires_grad=True), torch.tensor([0.0256, 0.5, 1.0]))
    torch.testing.assert_close(value[0], torch.tensor(TABLE_7[f1]))
    assert value[1] == (f1 == '1') and value[2] == pytest.approx(1) and not value.requires_grad


@pytest.mark.parametrize('f1', POSITION_TARGETS)
def test_as_loss_cls(f1):
    """Built from a config, f1 is applied to the IoU that mmdet's heads hand over."""
    loss = MODELS.build(dict(type='PositionSupervisedLoss', f1=f1, loss_weight=2.0))
    logits = torch.zeros(1, 1)  # p = 1/2
    target = POSITION_TARGETS[f1](torch.tensor(0.64), torch.tensor(0.5))
    value = loss(logits, (torch.tensor([0]), torch.tensor([0.64])), avg_factor=1.0)
    torch.testing.assert_close(value, 2 * 0.25 * (target - 0.5) ** 2 * math.log(2))


@pytest.mark.parametrize('f1', [*POSITION_TARGETS, dict(iou_power=4)])
def test_it_can_be_pickled(f1):
    loss = PositionSupervisedLoss(f1=f1)
    values = torch.rand(2, 5)
    assert torch.equal(pickle.loads(pickle.dumps(loss)).f1(*values), loss.f1(*values))


def test_f1_by_exponents():
    """A name is short for exponents, and exponents that no name stands for work, too."""
    logits, target = torch.randn(5, 3), (torch.tensor([0, 1, 2, 3, 3]), torch.rand(5))
    values = [PositionSupervisedLoss(f1=f1)(logits, target) for f1 in ('s^2*p', dict(iou_power=2, score_power=1))]
    torch.testing.assert_close(*values)
    fourth = PositionSupervisedLoss(f1=dict(iou_power=4)).f1(torch.tensor(0.5), torch.tensor(0.3))
    torch.testing.assert_close(fourth, torch.tensor(0.5**4))


def test_f1_of_a_subclass():
    class Constant(PositionSupervisedLoss):
        def f1(self, ious, scores):
            return torch.full_like(ious, 0.25)

    logits, target = torch.randn(5, 3), (torch.tensor([0, 1, 2, 3, 3]), torch.rand(5))
    expected = PositionSupervisedLoss().loss_for_targets(logits, target[0], torch.full((5,), 0.25))
    torch.testing.assert_close(Constant()(logits, target), expected)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16])
def test_finite_for_extreme_logits(dtype):
    largest = torch.finfo(dtype).max if dtype is not torch.float32 else 1e30
    logits = torch.tensor([[largest, -largest, 0.0], [-largest, largest, 100.0]], dtype=dtype, requires_grad=True)
    loss = position_supervised_loss(logits, torch.tensor([1, 3]), torch.tensor([0.5, 0.0]))
    loss.clamp(max=1e4).sum().backward()
    assert loss.dtype == torch.float32 and loss.isfinite().all() and logits.grad.isfinite().all()


@pytest.mark.parametrize('gamma', [0, 1, 1.5])
def test_gradients_are_finite_for_every_gamma(gamma):
    """Also where the score is 0 by its logit, and where it meets the target."""
    loss_cls = PositionSupervisedLoss(f1='s', gamma=gamma)
    logits = torch.tensor([[-200.0, 0.0], [0.0, -200.0]], requires_grad=True)
    loss_cls(logits, (torch.tensor([0, 0]), torch.tensor([0.5, 0.5]))).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize('gamma', [0.5, 0.999, -1, math.nan, math.inf])
def test_gammas_without_finite_gradients(gamma):
    with pytest.raises(ValueError, match=f'gamma={gamma}: set it to 0, or to a number from 1 up, as 2.0'):
        PositionSupervisedLoss(gamma=gamma)


def test_background_only_and_empty():
    logits = torch.randn(6, 3, requires_grad=True)
    loss = position_supervised_loss(logits, torch.full((6,), 3), torch.rand(6))
    torch.testing.assert_close(loss, (0.75 * logits.sigmoid() ** 2 * torch.nn.functional.softplus(logits)).sum(1))
    empty = position_supervised_loss(
        torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.long), torch.zeros(0)
    )
    assert empty.shape == (0,) and empty.sum().requires_grad


def test_permutation_of_queries_permutes_the_loss():
    logits, labels, targets, order = torch.randn(9, 4), torch.randint(0, 5, (9,)), torch.rand(9), torch.randperm(9)
    torch.testing.assert_close(
        position_supervised_loss(logits[order], labels[order], targets[order]),
        position_supervised_loss(logits, labels, targets)[order],
    )


def test_errors_explain_themselves():
    with pytest.raises(ValueError, match=r"unknown f1='s\^4'; known are '1', 's\^0.5'"):
        PositionSupervisedLoss(f1='s^4')
    with pytest.raises(ValueError, match=r'expected logits \(..., C\)'):
        position_supervised_loss(torch.zeros(3, 2), torch.zeros(2, dtype=torch.long), torch.zeros(2))
    for wrong in (dict(iou_power=-1), dict(score_power=1), dict(iou_power=1, power=2)):
        with pytest.raises(ValueError, match='give iou_power and, if you like, score_power, from 0 up'):
            PositionSupervisedLoss(f1=wrong)
    with pytest.raises(ValueError, match="target_rescale='two'"):
        ClassTerm(PositionSupervisedLoss(), target_rescale='two')
    with pytest.raises(ValueError, match='hands its loss_cls labels only'):
        PositionSupervisedLoss()(torch.zeros(3, 2), torch.zeros(3, dtype=torch.long))


def test_rescaling():
    targets = torch.tensor([0.2, 0.4, 0.3, 0.9])
    groups = torch.tensor([0, 0, 1, 2])
    ceilings = torch.tensor([1.0, 0.6, 0.5, 1.0])  # group 2 is above its ceiling already, group 3 is empty
    torch.testing.assert_close(rescale_targets(targets, groups, ceilings), torch.tensor([0.5, 1.0, 0.6, 0.9]))
    assert rescale_targets(torch.zeros(2), torch.tensor([0, 0]), torch.ones(1)).tolist() == [0, 0]
