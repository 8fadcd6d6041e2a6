"""DDQ-DETR: its choice of distinct queries is mmdet's."""

import copy

import pytest
import torch
from mmdet.models.detectors import DDQDETR
from mmdet.models.layers.transformer.ddq_detr_layers import DDQTransformerDecoder

from tests.utils import build, samples

from ..test_mixing import model_cfg

SIZES = [(8, 12), (4, 6)]


@pytest.fixture(scope='module')
def config():
    """Of a small model whose boxes overlap in many places."""
    cfg = model_cfg('DDQ-DETR', dict(type='StableDDQDETR'))
    cfg.dqs_cfg = dict(type='nms', iou_threshold=0.5)
    cfg.decoder.num_layers = 4
    return cfg


@pytest.fixture(scope='module')
def model(config):
    return large_boxes(build(copy.deepcopy(config))).eval()


def large_boxes(model):
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    for branch in model.bbox_head.reg_branches:
        branch[-1].bias.data[2:] += 1.5
    return model


def test_queries_start_where_mmdets_do(model):
    """Three images, of which the second fills half of the input and the third a corner, with too few tokens."""
    generator = torch.Generator().manual_seed(1)
    memory = torch.randn(3, 120, 256, generator=generator)
    levels = [torch.zeros(3, *size, dtype=torch.bool) for size in SIZES]
    for level in levels:
        level[1, level.shape[1] // 2 :] = True
        level[2, level.shape[1] // 4 :] = level[2, :, level.shape[2] // 3 :] = True
    mask = torch.cat([level.flatten(1) for level in levels], 1)
    with torch.no_grad():
        wanted, _ = DDQDETR.pre_decoder(model, memory, mask, torch.tensor(SIZES))
        found, _ = model.pre_decoder(memory, mask, torch.tensor(SIZES))
    assert set(found) == set(wanted) and found['dn_mask'] is wanted['dn_mask'] is None
    missing = (found['query'] == 0).all(-1).sum(1)
    assert missing[0] == 0 and missing[2] > 0
    for key in ('query', 'memory', 'reference_points'):
        assert torch.equal(found[key], wanted[key]), key


@pytest.mark.parametrize('before, behind', [(0, 0), (6, 9)], ids=['detecting', 'training'])
def test_distinct_queries_are_mmdets(before, behind, model):
    """Layer by layer, each from the mask that the last one left; the first query is not distinct everywhere."""
    generator = torch.Generator().manual_seed(2)
    decoder, number, heads = model.decoder, model.num_queries, model.cache_dict['num_heads']
    total = before + number + behind
    masks = [torch.zeros(6 * heads, total, total, dtype=torch.bool)] * 2
    model.cache_dict['dis_query_info'] = [before, number]
    model.cache_dict['distinct_query_mask'] = []
    first_is_distinct = set()
    for layer in range(3):
        boxes = 0.2 + 0.4 * torch.rand(6, total, 4, generator=generator)
        states = torch.randn(6, total, 256, generator=generator)
        selects = DDQTransformerDecoder.select_distinct_queries, type(decoder).select_distinct_queries
        with torch.no_grad():
            masks = [select(decoder, boxes, states, mask, layer) for select, mask in zip(selects, masks)]
        wanted, found = model.cache_dict['distinct_query_mask'][-2:]
        assert torch.equal(*masks) and torch.equal(wanted, found)
        is_distinct = found[::heads].all(-1)
        assert (is_distinct.sum(1) < number).all()
        first_is_distinct |= set(is_distinct[:, 0].tolist())
        detecting = wanted[::heads, 0]
        assert torch.equal(model.detecting_queries(), detecting)
    assert first_is_distinct == {True, False}


def test_detections_are_mmdets(config, model):
    """They differ by what our attention differs, which adds up numbers in another order."""
    cfg = copy.deepcopy(config)
    cfg.type = 'DDQDETR'
    stock = build(cfg).eval()
    stock.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(3))
    batch = samples((1, 1), (96, 128))
    batch[1].set_metainfo(dict(img_shape=(80, 100)))
    found, wanted = (detector.predict(images, copy.deepcopy(batch)) for detector in (model, stock))
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one.pred_instances.scores, other.pred_instances.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(one.pred_instances.bboxes, other.pred_instances.bboxes, rtol=1e-4, atol=1e-2)
