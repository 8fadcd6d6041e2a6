"""A whole training step of MaskDINO from its parts: every match, loss term and gradient of the reference."""

import pytest
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from mmdet_stable.models.dense_heads import MaskPredictions
from mmdet_stable.models.losses import MaskPairs, PointSampler, mask_point_losses, position_supervised_loss
from mmdet_stable.models.task_modules import MaskPairwise, Pairwise, aligned_iou_and_giou, focal_cost
from mmdet_stable.structures import MaskSamples, MaskTargets, Predictions
from tests.models.losses.test_mask_point_loss import Draws
from tests.models.mask_dino import GoldenMaskDINO
from tests.utils import close, golden, tensor

WEIGHTS = dict(ce=4.0, mask=5.0, dice=5.0, bbox=5.0, giou=2.0)


class Step:
    """Losses of one recorded step, with the reference's draws."""

    def __init__(self, file: str) -> None:
        self.data = golden(f'maskdino_{file}')
        self.trace = golden('maskdino_mask2box_trace') if file == 'mask2box' else self.data
        self.model = GoldenMaskDINO(self.data)
        content, boxes, mask, self.layout, self.targets = self.model.denoising()
        self.model(content, boxes, mask)
        num_images = len(self.targets.num_gts)
        self.masks = MaskTargets.from_masks([tensor(self.data[f'gt_masks_{i}']) for i in range(num_images)])
        self.rand = [self.data[key] for key in sorted(self.data) if key.startswith('crit_rand.')]
        self.num_masks = sum(self.targets.num_gts)
        meta = self.model.meta
        names = ('num_points', 'oversample_ratio', 'importance_sample_ratio')
        self.sampler = PointSampler(**{name: meta[name] for name in names}, share_candidates=False)
        self.softmax = meta.get('semantic_ce_loss', False)
        self.things_only = meta.get('panoptic_box_loss', False)
        self.losses = {}
        self.matches = {}

    def run(self) -> None:
        num_layers = len(self.model.layers.logits)
        num_dn = self.layout.num_queries
        for layer in [num_layers - 1, *range(num_layers - 1)]:
            last = layer == num_layers - 1
            one = MaskPredictions(*(value[layer : layer + 1] for value in self.model.layers))
            matching = MaskPredictions(*(value[:, :, num_dn:] for value in one))
            self.branch(matching, '' if last else f'_{layer}', 'last' if last else f'aux{layer}')
            if layer == 0 and self.model.encoder is None:
                continue
            known = self.layout.matches(1, torch.device('cpu'))
            pairs = torch.stack([known.image_inds, known.query_inds, known.gt_inds], 1).tolist()
            dn = MaskPredictions(*(value[:, :, :num_dn] for value in one))
            self.add(dn, pairs, '_dn' if last else f'_dn_{layer}', self.num_masks * self.layout.num_groups)
        if self.model.encoder is not None:
            self.branch(self.model.encoder, '_interm', 'interm')

    def branch(self, predictions: MaskPredictions, suffix: str, name: str) -> None:
        points = torch.cat([tensor(self.rand.pop(0)) for _ in self.targets.num_gts])[None]
        boxes = Pairwise(Predictions(*predictions[:2], ('',)).detach(), self.targets)
        samples = MaskSamples(self.model.outputs.mask_features, self.masks, points)
        masks = MaskPairwise(predictions.mask_embeddings, samples)
        cost = 4 * focal_cost(boxes.logits.sigmoid(), eps=1e-8) + 5 * boxes.l1 - 2 * boxes.giou
        cost = cost + 5 * masks.cross_entropy + 5 * masks.dice
        pairs = []
        for image, num in enumerate(self.targets.num_gts):
            gts, queries = linear_sum_assignment(cost[0, image, :num].numpy())
            found = sorted(zip(queries.tolist(), gts.tolist()))
            recorded = (self.trace[f'match.{name}.{side}_{image}'].tolist() for side in ('query', 'gt'))
            assert found == sorted(zip(*recorded)), (name, image)
            pairs += [(image, *pair) for pair in found]
        self.add(predictions, pairs, suffix, self.num_masks)

    def add(self, predictions: MaskPredictions, pairs: list, suffix: str, divisor: float) -> None:
        image_inds, query_inds, gt_inds = torch.tensor(pairs).T
        labels = self.targets.labels[image_inds, gt_inds]
        boxes, embeddings = (value[0][image_inds, query_inds] for value in predictions[1:])
        cross_entropy, dice = self.mask_losses(embeddings, image_inds, gt_inds)
        bbox = (boxes - self.targets.boxes_cxcywh[image_inds, gt_inds]).abs().sum(1)
        gt_boxes = bbox_cxcywh_to_xyxy(self.targets.boxes_cxcywh[image_inds, gt_inds])
        giou = 1 - aligned_iou_and_giou(bbox_cxcywh_to_xyxy(boxes), gt_boxes)[1]
        if self.things_only:
            bbox, giou = (loss * (labels < self.model.meta['stuff_from']) for loss in (bbox, giou))
        terms = dict(
            ce=self.class_loss(predictions.logits[0], image_inds, query_inds, labels, divisor),
            mask=cross_entropy.sum() / divisor,
            dice=dice.sum() / divisor,
            bbox=bbox.sum() / divisor,
            giou=giou.sum() / divisor,
        )
        self.losses.update({f'{name}{suffix}': loss for name, loss in terms.items()})

    def mask_losses(self, embeddings: Tensor, image_inds: Tensor, gt_inds: Tensor):
        features, rows = self.model.outputs.mask_features, self.masks.rows(image_inds, gt_inds)
        images = [
            MaskPairs(embeddings[image_inds == image], features[image], rows[image_inds == image])
            for image in range(len(features))
        ]
        draws = Draws(self.rand.pop(0), self.rand.pop(0))
        return mask_point_losses(images, self.masks, self.sampler, draws)

    def class_loss(self, logits: Tensor, image_inds: Tensor, query_inds: Tensor, labels: Tensor, divisor: float):
        num_classes = self.model.meta['num_classes']
        target = torch.full(logits.shape[:2], num_classes)
        target[image_inds, query_inds] = labels
        if self.softmax:
            weight = torch.ones(num_classes + 1)
            weight[-1] = self.model.meta['eos_coef']
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.flatten(), weight)
        return position_supervised_loss(logits, target, torch.ones(logits.shape[:2])).sum() / divisor


@pytest.mark.parametrize('file', ['mask2box', 'high2low_bitmask', 'panoptic', 'semantic'])
def test_golden_step(file):
    step = Step(file)
    step.run()
    assert step.rand == []
    recorded = {key[14:]: value for key, value in step.data.items() if key.startswith('loss_raw.loss_')}
    used = {name: float(recorded.pop(name)) for name in step.losses}
    assert all(value == 0 for value in recorded.values()), recorded
    for name, value in used.items():
        # The reference adds 1e-6 to normalised areas.
        tolerance = 5e-5 if name.startswith('giou') else 1e-5
        assert step.losses[name].item() == pytest.approx(value, rel=tolerance, abs=1e-6), name
    total = sum(WEIGHTS[name.split('_')[0]] * loss for name, loss in step.losses.items())
    assert total.item() == pytest.approx(float(step.trace['loss_total']), rel=1e-5)

    total.backward()
    model, trace = step.model, step.trace
    for stage, feat in zip((2, 3, 4, 5), model.maps):
        close(feat.grad, trace[f'grad.feats.res{stage}'], 3e-4)
    for name, norm in zip(trace['gradnorm.names'].tolist(), trace['gradnorm.values'].tolist()):
        assert model.grad(name).norm().item() == pytest.approx(norm, rel=3e-4, abs=1e-4), name
    for key in trace:
        if key.startswith(('grad.pixel_decoder', 'grad.predictor')):
            close(model.grad(key[5:]), trace[key], 3e-4)
