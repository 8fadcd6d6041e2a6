"""A whole training step of MaskDINO through detector and head: every match, loss and gradient of the reference."""

from functools import reduce

import pytest
import torch

from mmdet_stable.models.dense_heads.mask_inference import ImagePredictions, ImageSizes
from mmdet_stable.models.detectors.mask_ground_truth import targets_with_masks
from mmdet_stable.models.layers.denoising import centre_size_noise, flip_labels
from tests.models.mask_dino import (
    golden_batch,
    golden_detector,
    maps_of,
    meta_of,
    our_names,
    spread_draws,
)
from tests.utils import close, golden, tensor

WEIGHTS = dict(cls=4.0, mask=5.0, dice=5.0, bbox=5.0, iou=2.0)
NAMES = dict(cls='ce', iou='giou')
PAIRS_AT_A_TIME = 128


class Recorded:
    """What the reference drew and found, in the order of this package's layers and pairs.

    The reference goes layer by layer: the last, those before it from the first on, the encoder; this package by image,
    matching layers before the encoder and denoising queries.
    """

    def __init__(self, data, trace, num_layers, two_stage):
        self.data, self.trace = data, trace
        self.draws = iter(tensor(data[key]) for key in sorted(data) if key.startswith('crit_rand.'))
        self.num_images = sum(key.startswith('gt_labels_') for key in data)
        order = [num_layers - 1, *range(num_layers - 1), *([num_layers] if two_stage else [])]
        self.names = [*(f'aux{layer}' for layer in range(num_layers - 1)), 'last', 'interm']
        self.points, rows, dn_rows = {}, {}, {}
        for layer in order:
            self.points[layer] = torch.cat([next(self.draws) for _ in range(self.num_images)])
            rows[layer] = self.by_image(self.names[layer])
            if layer < num_layers and (two_stage or layer):
                draws = next(self.draws), next(self.draws)
                num_gts = [len(data[f'gt_labels_{image}']) for image in range(self.num_images)]
                groups = len(draws[0]) // sum(num_gts)
                dn_rows[layer] = list(zip(*(draw.split([num * groups for num in num_gts]) for draw in draws)))
        assert next(self.draws, None) is None
        self.calls = iter(
            self.in_our_order([rows[layer] for layer in sorted(rows)] + [dn_rows[layer] for layer in sorted(dn_rows)])
        )

    def in_our_order(self, layers):
        """Candidates and random points of the pairs of all layers, some pairs of an image after the others."""
        for image in range(self.num_images):
            draws = [torch.cat(parts) for parts in zip(*(layer[image] for layer in layers))]
            for start in range(0, len(draws[0]), PAIRS_AT_A_TIME):
                yield from (draw[start : start + PAIRS_AT_A_TIME] for draw in draws)

    def pairs(self, name, image):
        """Matched (query, ground truth) by query."""
        return sorted(zip(*(self.trace[f'match.{name}.{side}_{image}'].tolist() for side in ('query', 'gt'))))

    def by_image(self, name):
        """Candidates and random points of each image's pairs, which stand by ground truth here."""
        draws = next(self.draws), next(self.draws)
        pairs = [self.pairs(name, image) for image in range(self.num_images)]
        parts = zip(*(draw.split([len(each) for each in pairs]) for draw in draws))
        orders = [sorted(range(len(each)), key=lambda row, each=each: each[row][1]) for each in pairs]
        return [tuple(draw[order] for draw in part) for part, order in zip(parts, orders)]

    def rand(self, *shape, device):
        draw = next(self.calls)
        assert draw.shape == shape
        return draw

    def match_points(self, *_):
        return torch.stack([self.points[layer] for layer in sorted(self.points)])


@pytest.mark.parametrize('file', ['mask2box', 'high2low_bitmask', 'panoptic', 'semantic'])
def test_training_step(file, monkeypatch):
    data = golden(f'maskdino_{file}')
    trace = golden('maskdino_mask2box_trace') if file == 'mask2box' else data
    meta = meta_of(data)
    model = golden_detector(data).train()
    head = model.bbox_head
    recorded = Recorded(data, trace, meta['dec_layers'] + 1, model.as_two_stage)
    monkeypatch.setattr(head, 'match_points', recorded.match_points)
    monkeypatch.setattr(head.mask_losses, 'rand', recorded.rand)
    # Stuff is annotated as instances in these files.
    monkeypatch.setattr(model, 'ground_truth', lambda batch: targets_with_masks(batch, *[meta['num_classes']] * 2))
    monkeypatch.setattr(model.dn_query_generator, 'noised', lambda *args: recorded_noise(data, *args))
    found = []
    assign = head.assigner.assign_batch
    monkeypatch.setattr(head.assigner, 'assign_batch', lambda *args: found.extend(assign(*args)) or found)

    batch, maps = golden_batch(data), [feat.requires_grad_() for feat in maps_of(data)]
    head_inputs = model.forward_transformer(model.neck(maps), batch)
    losses = head.loss(**head_inputs, batch_data_samples=batch)
    assert next(recorded.calls, None) is None

    for matches, names in zip(found, (recorded.names[:-1], recorded.names[-1:])):
        for layer, image, query, gt in zip(*(inds.tolist() for inds in matches[:4])):
            assert (query, gt) in recorded.pairs(names[layer], image)
        assert len(matches.query_inds) == sum(len(recorded.pairs(*key)) for key in keys(names, recorded.num_images))

    expected = {key[14:]: float(value) for key, value in data.items() if key.startswith('loss_raw.loss_')}
    for name, loss in losses.items():
        value, term = expected.pop(reference_name(name)), name.split('loss_')[1]
        # The reference adds 1e-6 to normalised areas.
        tolerance = 5e-5 if term == 'iou' else 1e-5
        assert loss.item() / WEIGHTS[term] == pytest.approx(value, rel=tolerance, abs=1e-6), name
    assert not any(expected.values()), expected
    total = sum(losses.values())
    assert total.item() == pytest.approx(float(trace['loss_total']), rel=1e-5)

    total.backward()
    for stage, feat in zip((2, 3, 4, 5), maps):
        close(feat.grad, trace[f'grad.feats.res{stage}'], 3e-4)
    for name, norm in zip(trace['gradnorm.names'].tolist(), trace['gradnorm.values'].tolist()):
        assert grad(model, data, name).norm().item() == pytest.approx(norm, rel=3e-4, abs=1e-4), name
    for key in trace:
        if key.startswith(('grad.pixel_decoder', 'grad.predictor')):
            close(grad(model, data, key[5:]), trace[key], 3e-4)


@torch.no_grad()
@pytest.mark.parametrize('file', ['mask2box', 'high2low_bitmask', 'panoptic', 'semantic'])
def test_predictions(file):
    """From features to instances: the last layer is the reference's, and its best pairs are what is predicted."""
    data = golden(f'maskdino_{file}')
    model = golden_detector(data).eval()
    batch = golden_batch(data)
    head_inputs = model.forward_transformer(model.neck(maps_of(data)), batch)
    logits, boxes, embeddings = (values[-1] for values in model.bbox_head(**head_inputs))
    close(logits, data['eval.pred_logits_layers'][-1], 1e-5)
    close(boxes, data['eval.pred_boxes_layers'][-1], 1e-5)
    masks = torch.einsum('bqe,behw->bqhw', embeddings, head_inputs['mask_features'])
    recorded = 'eval.pred_masks_layers'
    close(masks, data[recorded][-1] if recorded in data else data['eval.pred_masks'], 1e-5)

    found = model.bbox_head.predict(**head_inputs, batch_data_samples=batch)
    for image, (results, sample) in enumerate(zip(found, batch)):
        size = tuple(sample.ori_shape)
        recorded = ImagePredictions(
            tensor(data['eval.pred_logits_layers'])[-1, image],
            tensor(data['eval.pred_boxes_layers'])[-1, image],
            torch.eye(len(masks[image])),
            masks[image],
            ImageSizes(size, size, size),
        )
        expected = model.bbox_head.inference(recorded)['pred_instances']
        instances = results['pred_instances']
        assert torch.equal(instances.labels, expected.labels)
        torch.testing.assert_close(instances.scores, expected.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(instances.bboxes, expected.bboxes, rtol=1e-4, atol=1e-2)
        assert (instances.masks != expected.masks).float().mean() < 1e-4


def keys(names, num_images):
    return [(name, image) for name in names for image in range(num_images)]


def recorded_noise(data, labels, boxes, layout):
    flip = tensor(data['train.rand_label_p'])
    random_labels = torch.zeros(len(flip), dtype=torch.long)
    random_labels[flip < 0.2] = tensor(data['train.randint_label'])
    spread = (layout.num_slots, layout.num_shown)
    labels = flip_labels(labels, spread_draws(flip, *spread), spread_draws(random_labels, *spread), 0.2)
    draws = spread_draws(tensor(data['train.rand_box']) * 2 - 1, *spread)
    return labels, centre_size_noise(boxes, draws, (0.4, 0.4))


def reference_name(name):
    """``'d3.dn_loss_cls'`` -> ``'ce_dn_3'``."""
    prefix, term = name.split('loss_')
    layer, _, kind = prefix.rpartition('.')
    suffix = {'': '', 'dn_': '_dn', 'enc_': '_interm'}[kind] + (f'_{layer[1:]}' if layer else '')
    return NAMES.get(term, term) + suffix


def grad(model, data, name):
    """Gradient of a parameter by the reference's name."""
    part = name.split('.')[0]
    ours = our_names(data, part)[name]
    return reduce(getattr, ours.split('.'), model).grad
