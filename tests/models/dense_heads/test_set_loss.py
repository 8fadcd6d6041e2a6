"""The batched set loss against mmdet's own head, and its promises on synchronisation, precision and rescaling."""

import pytest
import torch
from mmengine.structures import InstanceData

from mmdet_stable.models.dense_heads import ClassTerm
from mmdet_stable.models.losses import PositionSupervisedLoss
from mmdet_stable.structures import BatchTargets, DenoisingLayout, Matches, Predictions, Supervised
from tests.models.detectors.test_stable_dino import DINO, SWITCHED_OFF
from tests.utils import STABLE_DINO, build_head, samples
from tools.benchmarks.host_syncs import HostSyncCounter

LAYERS, QUERIES, CLASSES = 3, 10, 7


def head_inputs(num_gts, num_groups=2, dtype=torch.float32):
    """Arguments of ``loss_by_feat`` with contrastive denoising queries, as the detector hands them over."""
    batch = samples(num_gts)
    num_dn = 2 * max(num_gts) * num_groups
    logits = torch.randn(LAYERS, len(batch), num_dn + QUERIES, CLASSES, dtype=dtype, requires_grad=True)
    enc_logits = torch.randn(len(batch), QUERIES, CLASSES, dtype=dtype, requires_grad=True)
    boxes, enc_boxes = (
        (torch.rand(*value.shape[:-1], 4, dtype=dtype) * 0.4 + 0.2).requires_grad_() for value in (logits, enc_logits)
    )
    dn_meta = dict(num_denoising_queries=num_dn, num_denoising_groups=num_groups)
    gts, metas = [s.gt_instances for s in batch], [s.metainfo for s in batch]
    return (logits, boxes, enc_logits, enc_boxes), (gts, metas, dn_meta)


def losses_and_gradients(head, predictions, rest):
    losses = head.loss_by_feat(*predictions, *rest)
    gradients = torch.autograd.grad(sum(losses.values()).sum(), predictions, allow_unused=True)
    return losses, gradients


@pytest.mark.parametrize('num_gts', [(4, 2), (3, 0), (0, 0), (15, 1)], ids=str)
@pytest.mark.parametrize(
    'loss_cls',
    [
        dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        dict(type='QualityFocalLoss', use_sigmoid=True, beta=2.0, loss_weight=2.0),
    ],
    ids=lambda loss: loss['type'],
)
def test_equals_mmdets_head(num_gts, loss_cls):
    """Every key and value, and the gradients, for mmdet's own losses; (15, 1) has more boxes than queries."""
    off = {**SWITCHED_OFF['bbox_head'], 'loss_cls': dict(loss_cls, _delete_=True)}
    head = build_head(STABLE_DINO, LAYERS, CLASSES, **off)
    head.assigner.match_costs = build_head(DINO, LAYERS, CLASSES).assigner.match_costs
    stock = build_head(DINO, LAYERS, CLASSES, loss_cls=dict(loss_cls, _delete_=True))
    inputs = head_inputs(num_gts)
    (losses, gradients), (expected, expected_gradients) = (losses_and_gradients(h, *inputs) for h in (head, stock))
    assert set(losses) == set(expected)
    for name, value in expected.items():
        # mmdet's quality is an IoU of normalised boxes with another epsilon.
        torch.testing.assert_close(losses[name].reshape(()), value.reshape(()), rtol=1e-5, atol=1e-6, msg=name)
    for ours, theirs in zip(gradients, expected_gradients):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_host_waits_for_the_costs_only():
    head = build_head(STABLE_DINO, LAYERS, CLASSES)
    predictions, rest = head_inputs((4, 0, 2))
    with HostSyncCounter() as counter:
        losses_and_gradients(head, predictions, rest)
    assert counter.count == 1
    with HostSyncCounter() as counter:
        build_head(DINO, LAYERS, CLASSES).loss_by_feat(*predictions, *rest)
    assert counter.count > 20


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_predictions(dtype):
    """Matching and losses run in float32, also under autocast, and gradients come back in the input's type."""
    head = build_head(STABLE_DINO, LAYERS, CLASSES)
    predictions, rest = head_inputs((4, 2), dtype=dtype)
    with torch.autocast('cpu', dtype=dtype):
        losses, gradients = losses_and_gradients(head, predictions, rest)
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert all(value.dtype == dtype and value.isfinite().all() for value in gradients)


@pytest.mark.parametrize('rescale', ['one', 'max_iou', None])
def test_images_and_layers_do_not_mix(rescale):
    """A layer's losses are those it has alone; an image's class targets do not depend on the others."""
    head = build_head(STABLE_DINO, LAYERS, CLASSES, target_rescale=rescale)
    predictions, (gts, metas, dn_meta) = head_inputs((3, 5))
    together = head.loss_by_feat(*predictions, gts, metas, dn_meta)
    logits, boxes, _, _ = predictions
    for layer in range(LAYERS):
        alone = head.loss_by_feat(logits[layer : layer + 1], boxes[layer : layer + 1], None, None, gts, metas, dn_meta)
        for name, value in alone.items():
            prefix = '' if layer == LAYERS - 1 else f'd{layer}.'
            torch.testing.assert_close(together[prefix + name], value)
    per_image = [
        head.loss_by_feat(
            logits[:, i : i + 1, dn_meta['num_denoising_queries'] :],
            boxes[:, i : i + 1, dn_meta['num_denoising_queries'] :],
            None,
            None,
            gts[i : i + 1],
            metas[i : i + 1],
            None,
        )['loss_cls']
        * num
        for i, num in enumerate((3, 5))
    ]
    torch.testing.assert_close(together['loss_cls'], sum(per_image) / 8)


def one_image(pred_boxes, gt_boxes, matched):
    """Predictions for one image of 100 px with given matches, and its targets."""
    targets = BatchTargets.from_instances(
        [InstanceData(bboxes=torch.tensor(gt_boxes), labels=torch.zeros(len(gt_boxes), dtype=torch.long))],
        [dict(img_shape=(100, 100))],
    )
    query, gt = torch.tensor(matched).T
    zeros = torch.zeros_like(query)
    predictions = Predictions(torch.zeros(1, 1, len(pred_boxes), 1), torch.tensor([[pred_boxes]]), ('',))
    return Supervised(predictions, Matches(zeros, zeros, query, gt, 1)), targets


def test_ceilings_of_both_rescalings():
    """One ground truth; the matched query has IoU 0.5, an unmatched one 0.8."""
    group, targets = one_image([[0.2, 0.2, 0.2, 0.2], [0.2, 0.2, 0.4, 0.32]], [[0.0, 0.0, 40.0, 40.0]], [(0, 0)])
    ious = torch.tensor([0.25])
    for rescale, expected in ((None, 0.25), ('one', 1.0), ('max_iou', 0.8)):
        term = ClassTerm(PositionSupervisedLoss(f1='s'), target_rescale=rescale)
        torch.testing.assert_close(term._rescaled(ious, group, targets), torch.tensor([expected]))


def test_matches_of_mmdets_denoising_queries():
    dn_meta = dict(num_denoising_queries=12, num_denoising_groups=2)
    matches = DenoisingLayout.of_mmdet(dn_meta, (3, 0, 1)).matches(num_layers=2, device='cpu')
    assert matches.num_per_layer == 8
    expected = [(0, q, g) for q, g in ((0, 0), (1, 1), (2, 2), (6, 0), (7, 1), (8, 2))] + [(2, 0, 0), (2, 6, 0)]
    for layer in range(2):
        chosen = matches.layer_inds == layer
        found = zip(*(inds[chosen].tolist() for inds in (matches.image_inds, matches.query_inds, matches.gt_inds)))
        assert sorted(found) == sorted(expected)
    none = dict(num_denoising_queries=0, num_denoising_groups=1)
    assert DenoisingLayout.of_mmdet(none, (0, 0)).matches(2, 'cpu').num_per_layer == 0


def test_targets_are_padded():
    targets = BatchTargets.from_instances(
        [
            InstanceData(bboxes=torch.tensor([[10.0, 20, 30, 60]]), labels=torch.tensor([3])),
            InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)),
        ],
        [dict(img_shape=(80, 40)), dict(img_shape=(50, 50, 3))],
    )
    assert targets.labels.shape == (2, 1) and targets.boxes_cxcywh.shape == targets.boxes_xyxy.shape == (2, 1, 4)
    torch.testing.assert_close(targets.boxes_cxcywh[0, 0], torch.tensor([0.5, 0.5, 0.5, 0.5]))
    assert targets.valid.tolist() == [[True], [False]] and targets.num_gts == (1, 0) and targets.is_padded
    assert targets.whwh.tolist() == [[40, 80, 40, 80], [50, 50, 50, 50]]
