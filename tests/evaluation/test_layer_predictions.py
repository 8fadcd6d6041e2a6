"""Predictions of every layer, of detectors of this package and of mmdet's own."""

import pytest
import torch
from mmdet.models.detectors import DDQDETR
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmengine.hub import get_config
from mmengine.structures import InstanceData

from mmdet_stable.evaluation import class_scores, match_layers, predict_layers
from mmdet_stable.evaluation.layer_predictions import ground_truth
from tests.models.detectors.test_dn_detr import dn_detr_cfg
from tests.utils import build, samples, shrink, tiny_model_cfg

DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
DEFORMABLE = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
TWO_STAGE = 'mmdet::deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py'
DAB_TWO_STAGE = dict(
    type='DABDeformableDETR',
    bbox_head=dict(type='StableDeformableDETRHead', loss_cls=dict(loss_weight=1.0)),
    train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
)
WIDE = dict(width=256, num_heads=8, num_layers=2, num_levels=4)  # width 256 is hard-coded in mmdet


def detr_cfg():
    cfg = get_config('mmdet::detr/detr_r50_8xb2-150e_coco.py').model
    shrink(cfg)
    cfg.bbox_head.num_classes = 7
    return cfg


CONFIGS = {
    'StableDINO': lambda: tiny_model_cfg(num_layers=2),
    'DINO': lambda: tiny_model_cfg(DINO, **WIDE),
    'two-stage': lambda: tiny_model_cfg(TWO_STAGE, **WIDE),
    'two-stage, one branch': lambda: tiny_model_cfg(TWO_STAGE, dict(with_box_refine=False), **WIDE),
    'DABDeformableDETR': lambda: tiny_model_cfg(TWO_STAGE, DAB_TWO_STAGE, num_layers=2),
    'DeformableDETR': lambda: tiny_model_cfg(DEFORMABLE, num_layers=2),
    'DETR': detr_cfg,
    'DNDETR': dn_detr_cfg,
}
WITH_PROPOSALS = list(CONFIGS)[:5]
SIZE = (96, 128)


def batch_of(num_gts=(3, 0)):
    """Two images, seen at three quarters of their original size."""
    inputs = [torch.randint(0, 255, (3, *SIZE), dtype=torch.uint8, generator=torch.manual_seed(i)) for i in range(2)]
    data_samples = samples(num_gts, (128, 170))
    for sample in data_samples:
        sample.set_metainfo(dict(img_shape=SIZE, scale_factor=(SIZE[1] / 170, 0.75)))
    return dict(inputs=inputs, data_samples=data_samples)


def model_of(name):
    preprocessor = dict(type='DetDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, pad_size_divisor=1)
    model = build(CONFIGS[name]()).eval()
    model.data_preprocessor = MODELS.build(preprocessor)
    for parameter in model.bbox_head.parameters():  # mmdet begins with equal scores and boxes, which hide mix-ups
        torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize('name', CONFIGS)
def test_the_last_layer_is_what_is_detected(name):
    model, batch = model_of(name), batch_of()
    predictions = predict_layers(model, batch)
    scores = class_scores(model, predictions.decoder.logits[-1])
    with torch.no_grad():
        detections = model.test_step(batch)
    for image, detected in enumerate(detections):
        assert detected.pred_instances.scores.max().item() == pytest.approx(scores[image].max().item(), rel=1e-4)
    num_layers = len(predictions.decoder.logits)
    first = 0 if name in WITH_PROPOSALS else 1
    assert predictions.layers == tuple(range(first, num_layers + 1)) and num_layers == model.decoder.num_layers


@pytest.mark.parametrize('name', WITH_PROPOSALS)
def test_proposals_are_those_that_mmdet_supervises(name):
    """mmdet hands them to its head in training only: DINO those of the queries, Deformable-DETR those of all tokens."""
    model, batch = model_of(name), batch_of((3, 2))
    predictions = predict_layers(model, batch)
    data = model.data_preprocessor(batch, False)
    model.training = True  # of the detector alone, not its parts: no dropout
    with torch.no_grad():
        found = model.forward_transformer(model.extract_feat(data['inputs']), data['data_samples'])
    logits, boxes, encoder = found['enc_outputs_class'], found['enc_outputs_coord'], predictions.encoder
    assert encoder.class_agnostic == ('DINO' not in name) and encoder.prefixes == ('enc_',)
    ours = torch.cat([encoder.boxes_cxcywh[0], encoder.logits[0]], -1)
    distance = torch.cdist(ours, torch.cat([boxes, logits], -1), p=1)
    assert distance.shape[1] == model.num_queries and distance.amin(-1).max() < 1e-4


@pytest.mark.parametrize('name', CONFIGS)
def test_matches_are_those_of_training(name):
    """The head's own assigner, image by image and layer by layer, in the pixels of the network's input."""
    model, batch = model_of(name), batch_of((3, 2))
    predictions = predict_layers(model, batch)
    matches = match_layers(model, predictions)
    data = model.data_preprocessor(batch, False)
    layers = [(branches, layer) for branches in predictions.groups for layer in range(len(branches.logits))]
    for image, sample in enumerate(data['data_samples']):
        sample.gt_instances.bboxes *= torch.tensor([*sample.scale_factor] * 2)
        for (branches, layer), found in zip(layers, matches[image].query_inds):
            gts = sample.gt_instances.clone()
            if branches.class_agnostic:
                gts.labels = torch.zeros_like(gts.labels)
            expected = assigned(model, branches.logits[layer, image], branches.boxes_cxcywh[layer, image], gts, sample)
            assert found.tolist() == expected


def assigned(model, logits, boxes_cxcywh, gts, sample):

    height, width = sample.img_shape
    preds = InstanceData(scores=logits, bboxes=bbox_cxcywh_to_xyxy(boxes_cxcywh) * torch.tensor([width, height] * 2))
    gt_inds = model.bbox_head.assigner.assign(preds, gts, sample.metainfo).gt_inds
    return [(gt_inds == gt + 1).nonzero().item() for gt in range(len(gts))]


def test_shapes_of_matches_where_images_are_empty():
    matches = match_layers(model := model_of('StableDINO'), predict_layers(model, batch_of((0, 0))))
    assert [image.query_inds.shape for image in matches] == [(3, 0), (3, 0)]


def test_mistakes_are_explained():
    model, batch = model_of('DeformableDETR'), batch_of()
    with pytest.raises(ValueError, match=r'in training mode.*model.eval\(\)'):
        predict_layers(model.train(), batch)
    other = model_of('StableDINO')
    other.__class__ = DDQDETR
    with pytest.raises(ValueError, match='DDQDETR selects its queries by NMS'):
        predict_layers(other, batch)
    with pytest.raises(ValueError, match='Linear has no decoder layers'):
        predict_layers(torch.nn.Linear(1, 1), batch)
    del batch['data_samples'][1].gt_instances
    with pytest.raises(ValueError, match=r'without ground truth; add dict.type="LoadAnnotations"'):
        ground_truth(batch['data_samples'])
    predictions = predict_layers(model.eval(), batch_of())
    del model.bbox_head.assigner
    with pytest.raises(ValueError, match='keep train_cfg'):
        match_layers(model, predictions)
