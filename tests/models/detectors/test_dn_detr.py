"""DN-DETR against the reference implementation, and what denoising must never do."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.hub import get_config

from mmdet_stable.structures import DenoisingLayout
from tests.utils import DAB_DETR_NAMES, build, golden, golden_samples, load_reference_weights, tensor

SIZES = dict(embed_dims=32, num_heads=4, feedforward_channels=64, num_layers=3)


def dn_detr_cfg(in_channels=64, dn_cfg=None, **model):
    """mmdet's DAB-DETR as DN-DETR by config alone, with 15 queries and 7 classes, 32 wide."""

    def shrink(node):
        for key, value in node.items():
            if isinstance(value, dict):
                shrink(value)
            elif key in SIZES:
                node[key] = SIZES[key]

    cfg = get_config('mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py').model
    shrink(cfg)
    cfg.update(type='DNDETR', num_queries=15, dn_cfg=dn_cfg or dict(num_groups=3), **model)
    cfg.backbone.update(depth=18, base_channels=8, frozen_stages=-1, init_cfg=None)
    cfg.neck.update(in_channels=[in_channels], out_channels=32)
    cfg.positional_encoding.num_feats = 16
    cfg.bbox_head.update(type='DNDETRHead', num_classes=7)
    cfg.train_cfg.assigner.type = 'StableHungarianAssigner'
    cfg.test_cfg.max_per_img = 10
    return ConfigDict(cfg)


@pytest.fixture(scope='module')
def reference():
    data = golden('dn_detr_forward')
    model = build(dn_detr_cfg(in_channels=24))
    load_reference_weights(model, data, DAB_DETR_NAMES)
    return data, model


def close(found, expected, tolerance=2e-5):
    expected = tensor(expected)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance * expected.abs().max().item())


def test_outputs_of_the_reference(reference):
    """The reference masks no padding at test time: as if the second image filled the batch's shape."""
    data, model = reference
    batch = golden_samples(data)
    for sample in batch:
        sample.set_metainfo(dict(img_shape=sample.batch_input_shape))
    with torch.no_grad():
        states = model.eval().forward_transformer(model.neck((tensor(data['feats_0']),)), batch)
        close(states['hidden_states'], data['eval.hidden_states'])
        close(states['references'], data['eval.references'])
        logits, boxes = model.bbox_head(**states)
        close(logits, data['eval.pred_logits_layers'])
        close(boxes, data['eval.pred_boxes_layers'])


def test_losses_and_gradients_of_the_reference(reference, monkeypatch):
    """From the recorded denoising queries. In the reference, padding slots count as background, and the decoder's
    cross-attention sees the padding of images."""
    data, model = reference
    batch = golden_samples(data)
    num_gts, num_groups = (3, 2), int(data['train.groups'])
    layout = DenoisingLayout(num_groups, int(data['train.max_gt']), num_gts)
    dn_meta = dict(num_denoising_queries=layout.num_queries, num_denoising_groups=num_groups, layout=layout)
    queries = [tensor(data[f'train.{name}']) for name in ('dn_label_query', 'dn_box_query_unact', 'attn_mask')]
    monkeypatch.setattr(model.dn_query_generator, 'forward', lambda _: (*queries, dn_meta))
    decode = model.forward_decoder
    monkeypatch.setattr(model, 'forward_decoder', lambda **inputs: decode(**{**inputs, 'memory_mask': None}))
    model.train()
    feats = tensor(data['feats_0']).requires_grad_()
    states = model.forward_transformer(model.neck((feats,)), batch)
    losses = model.bbox_head.loss(**states, batch_data_samples=batch)
    names = {'loss_cls': 'class', 'loss_bbox': 'bbox', 'loss_iou': 'giou'}
    assert len(losses) == 18
    for key, value in losses.items():
        parts = key.split('.')
        layer = f'_{parts[0][1:]}' if len(parts) == 2 else ''
        dn = '_dn' if 'dn_' in parts[-1] else ''
        expected = data[f'loss_weighted.loss_{names[parts[-1].replace("dn_", "")]}{dn}{layer}']
        # The reference's GIoU has an epsilon of its own.
        torch.testing.assert_close(value, tensor(expected), rtol=1e-3 if 'iou' in key else 2e-5, atol=1e-6, msg=key)
    sum(losses.values()).backward()
    difference = (feats.grad - tensor(data['grad.feats_0'])).norm() / tensor(data['grad.feats_0']).norm()
    assert difference < 1e-3
