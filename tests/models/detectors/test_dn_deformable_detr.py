"""DN-Deformable-DETR against the reference implementation; plain and two-stage models train."""

import pytest
import torch

from tests.models.detectors.test_dn_detr import check_losses, recorded_queries
from tests.utils import (
    build,
    close,
    golden,
    golden_samples,
    load_reference_weights,
    samples,
    tensor,
    tiny_model_cfg,
    unmasked_samples,
)

DEFORMABLE = 'mmdet::deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py'
IMAGES = torch.randn(2, 3, 64, 96)


def dn_deformable(as_two_stage=False, fusion=None, detector='DNDeformableDETR', **model):
    """mmdet's Deformable-DETR as DN-Deformable-DETR by config alone."""
    overrides = dict(
        type=detector,
        as_two_stage=as_two_stage,
        encoder=dict(fusion=fusion),
        bbox_head=dict(type='StableDeformableDETRHead', loss_cls=dict(loss_weight=1.0)),
        train_cfg=dict(assigner=dict(type='StableHungarianAssigner')),
        **model,
    )
    if detector == 'DNDeformableDETR':
        overrides['dn_cfg'] = dict(num_groups=3)
    cfg = tiny_model_cfg(DEFORMABLE, overrides, num_queries=15)
    for coder in (cfg.encoder, cfg.decoder):
        coder.layer_cfg.self_attn_cfg.dropout = coder.layer_cfg.ffn_cfg.ffn_drop = 0.0
    cfg.decoder.layer_cfg.cross_attn_cfg.dropout = 0.0
    return build(cfg)


@pytest.fixture(scope='module')
def reference():
    data = golden('dn_deformable_detr_forward')
    model = dn_deformable()
    load_reference_weights(model, data)
    return data, model, tuple(tensor(data[f'feats_{level}']) for level in range(3))


def test_outputs_of_the_reference(reference):
    data, model, feats = reference
    batch = unmasked_samples(data)
    with torch.no_grad():
        states = model.eval().forward_transformer(feats, batch)
        logits, boxes = model.bbox_head(**states)
    close(states['references'][0], data['eval.init_reference'])
    close(torch.stack(states['references'][1:]), data['eval.inter_references'])
    close(logits, data['eval.pred_logits_layers'])
    close(boxes, data['eval.pred_boxes_layers'])


def test_losses_and_gradients_of_the_reference(reference, monkeypatch):
    data, model, feats = reference
    batch = golden_samples(data)
    monkeypatch.setattr(model.dn_query_generator, 'forward', lambda _: recorded_queries(data))
    model.train()
    feats = [feat.clone().requires_grad_() for feat in feats]
    losses = model.bbox_head.loss(**model.forward_transformer(feats, batch), batch_data_samples=batch)
    check_losses(losses, data)
    sum(losses.values()).backward()
    for level, feat in enumerate(feats):
        expected = tensor(data[f'grad.feats_{level}'])
        assert (feat.grad - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize('num_gts', [(3, 1), (0, 0)], ids=str)
@pytest.mark.parametrize('detector', ['DABDeformableDETR', 'DNDeformableDETR'])
@pytest.mark.parametrize('as_two_stage', [False, True], ids=['plain', 'two_stage'])
def test_every_parameter_learns(as_two_stage, detector, num_gts):
    model = dn_deformable(as_two_stage, dict(type='DenseMemoryFusion'), detector).train()
    batch = samples(num_gts, (64, 96))
    losses = model.loss(IMAGES, batch)
    assert all(value.isfinite() for value in losses.values()) and ('enc_loss_cls' in losses) == as_two_stage
    sum(losses.values()).backward()
    silent = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert not silent
    results = model.eval().predict(IMAGES, batch)
    assert len(results) == 2 and len(results[0].pred_instances) <= 15


def test_anchors_must_be_refined():
    with pytest.raises(ValueError, match='with_box_refine=False'):
        dn_deformable(with_box_refine=False)
