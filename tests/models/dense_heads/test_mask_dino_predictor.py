"""Query selection, decoder and predictions are the reference's, layer by layer."""

import pytest
import torch

from mmdet_stable.models.dense_heads import MaskDINOPredictor
from tests.models.mask_dino import GoldenMaskDINO
from tests.utils import close, golden, tensor

TRAINED = ['mask2box', 'high2low_bitmask', 'panoptic', 'semantic']


@pytest.mark.parametrize('file', [*TRAINED, '5level'])
def test_golden_inference(file):
    data = golden(f'maskdino_{file}')
    model = GoldenMaskDINO(data)
    model()
    logits, boxes, embeddings = model.layers
    if file == '5level':
        logits, boxes = logits[-1], boxes[-1]
    layers = '' if file == '5level' else '_layers'
    close(logits, data[f'eval.pred_logits{layers}'], 1e-5)
    close(boxes, data[f'eval.pred_boxes{layers}'], 1e-5)
    if 'eval.pred_masks_layers' in data:
        close(model.masks(embeddings), data['eval.pred_masks_layers'], 1e-5)
    else:
        close(model.masks(embeddings[-1]), data['eval.pred_masks'], 1e-5)
    if 'eval.interm_pred_logits' in data:
        close(model.encoder.logits[0], data['eval.interm_pred_logits'], 1e-5)
        close(model.encoder.boxes_cxcywh[0], data['eval.interm_pred_boxes'], 1e-5)
