"""Query selection, decoder and predictions are the reference's, layer by layer."""

import pytest

from tests.models.mask_dino import GoldenMaskDINO
from tests.utils import close, golden

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


@pytest.mark.parametrize('file', TRAINED)
def test_golden_training(file):
    """Denoising queries, their mask, and the predictions of both kinds of queries and of the encoder."""
    data = golden(f'maskdino_{file}')
    trace = golden('maskdino_mask2box_trace') if file == 'mask2box' else data
    model = GoldenMaskDINO(data)
    content, boxes, mask, layout, _ = model.denoising()
    close(content, trace['train.dn_content'], 1e-6)
    close(boxes, trace['train.dn_box_unsigmoid'], 1e-5)
    assert mask.tolist() == trace['train.attn_mask'].tolist()
    model(content, boxes, mask)
    num_dn = layout.num_queries
    assert num_dn == int(data['train.pad_size'])
    for prefix, part in (('train.', slice(num_dn, None)), ('train.dn.', slice(num_dn))):
        logits, found, embeddings = (value[:, :, part] for value in model.layers)
        close(logits, data[f'{prefix}pred_logits_layers'], 1e-5)
        close(found, data[f'{prefix}pred_boxes_layers'], 1e-5)
        if f'{prefix}pred_masks_layers' in data:
            close(model.masks(embeddings), data[f'{prefix}pred_masks_layers'], 1e-5)
        elif f'{prefix}pred_masks' in data:
            close(model.masks(embeddings[-1]), data[f'{prefix}pred_masks'], 1e-5)
    if model.two_stage:
        assert model.tokens.inds.tolist() == trace['train.topk_index'].tolist()
        close(model.encoder.logits[0], data['train.interm_pred_logits'], 1e-5)
        close(model.encoder.boxes_cxcywh[0], data['train.interm_pred_boxes'], 1e-5)
        close(model.masks(model.encoder.mask_embeddings[0]), data['train.interm_pred_masks'], 1e-5)
