"""The NMS inside of DDQ-DETR: how it is exported, and which mistakes of a file are noticed."""

import copy

import numpy as np
import onnxruntime
import pytest
import torch
from mmdet.structures import DetDataSample

from mmdet_stable.export import ExportError, Settings
from mmdet_stable.export.distinct import shortfall
from mmdet_stable.export.exporting import write_checked
from mmdet_stable.export.nms import PASSES, distinct_survivors
from mmdet_stable.export.parity import FP32, compare
from mmdet_stable.models.layers import distinct_boxes

from .models import FAMILIES, onnx, source

NMS = dict(type='nms', iou_threshold=0.3)


def crowded(batch, number):
    """Boxes of several images with many overlaps, and scores."""
    generator = torch.Generator().manual_seed(number)
    corners = torch.rand(batch, number, 2, generator=generator)
    sizes = 0.1 + 0.4 * torch.rand(batch, number, 2, generator=generator)
    scores = torch.randn(batch, number, generator=generator)
    return torch.cat([corners, corners + sizes], -1), scores, generator


@pytest.mark.parametrize('number', [10, 40, 300])
def test_distinct_queries_are_mmcvs(number):
    """More and fewer boxes than asked for; the fewer of them are candidates, the fewer of them are kept."""
    boxes, scores, generator = crowded(4, number)
    share = torch.tensor([[1.0], [0.7], [0.2], [0.02]])
    candidates = torch.rand(scores.shape, generator=generator) < share
    candidates[:, 3] = True
    found = distinct_survivors(boxes, scores, candidates, 20, NMS)
    assert torch.equal(found, distinct_boxes(boxes, scores, candidates, 20, NMS))
    kept = (found >= 0).sum(1)
    assert kept[3] < 20 and (number < 20 or kept[0] == 20)


def test_distinct_queries_in_a_long_chain():
    """Every second box of a row is kept, each as its neighbour is removed: one pass settles one box."""
    left = torch.arange(100.0)[None, :, None]
    boxes = torch.cat([left, left * 0, left + 2, left * 0 + 1], -1)
    scores, candidates = torch.linspace(1, 0, 100)[None], torch.ones(1, 100, dtype=torch.bool)
    found = distinct_survivors(boxes, scores, candidates, 40, NMS)
    assert PASSES < 40 and found[0].tolist() == list(range(0, 80, 2))


def test_other_nms_cannot_be_exported():
    boxes, scores, _ = crowded(1, 10)
    with pytest.raises(ExportError, match=r"dqs_cfg=.*soft_nms.*: exported is dict\(type='nms', iou_threshold=...\)"):
        distinct_survivors(boxes, scores, scores > 0, 5, dict(type='soft_nms', iou_threshold=0.5))


@pytest.fixture
def choice():
    """Arguments of ``shortfall`` for a right choice, of all that are distinct, and for one of the best 5."""
    boxes, scores, generator = crowded(1, 60)
    candidates = torch.rand(1, 60, generator=generator) < 0.8
    chosen = distinct_boxes(boxes, scores, candidates, 30, NMS)
    assert 10 < (chosen >= 0).sum() < 30
    return boxes[0], scores[0], candidates[0], chosen[0]


def test_a_right_choice(choice):
    assert shortfall(*choice, NMS['iou_threshold']) == 0
    assert shortfall(*choice[:3], choice[3][:5], NMS['iou_threshold']) == 0
    assert shortfall(*choice[:2], torch.zeros(60, dtype=torch.bool), choice[3].fill_(-1), NMS['iou_threshold']) == 0


def test_each_mistake_is_found(choice):
    """Left out, chosen too much, twice, in another order, no candidate, and a gap."""
    *asked, chosen = choice
    kept = chosen[chosen >= 0]
    others = [index for index in range(60) if index not in kept.tolist()]
    wrong = [torch.cat([kept[:rank], kept[rank + 1 :]]) for rank in range(len(kept))]
    wrong += [torch.cat([kept, torch.tensor([index])]) for index in others]
    wrong += [torch.cat([kept[:1], kept[:1], kept[1:]]), kept.flip(0)]
    for answer in wrong:
        padded = torch.cat([answer, torch.full((30 - len(answer),), -1)])
        assert shortfall(*asked, padded, NMS['iou_threshold']) > 1e-3, answer
    assert shortfall(*asked, torch.cat([chosen[:3], chosen[-1:], chosen[3:-1]]), NMS['iou_threshold']) == float('inf')
    for ranks in ([1, 2, 3, 4, 5], [0, 1, 2, 3, 5]):
        assert shortfall(*asked, chosen[ranks], NMS['iou_threshold']) > 1e-3, ranks


def test_near_ties_may_turn_out_either_way():
    """Of two boxes in the same place, and of the last two."""
    boxes = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [2, 0, 3, 1], [4, 0, 5, 1]])
    scores, candidates = torch.tensor([0.9, 0.901, 0.5, 0.502]), torch.ones(4, dtype=torch.bool)
    answers = {(1, 3): 0, (0, 3): 0.001, (1, 2): 0.002, (0, 2): 0.002, (3, 1): 0.399, (0, 1): float('inf')}
    for answer, expected in answers.items():
        assert shortfall(boxes, scores, candidates, torch.tensor(answer), 0.5) == pytest.approx(expected, abs=1e-6)


def test_pictures_of_fewer_tokens_than_queries(families):
    """The file fills up queries as mmdet, and leaves out detections of queries that are not distinct, in any batch."""
    found = families('DDQ-DETR')
    assert found.source.metadata['input']['least_tokens'] == 0
    session = onnxruntime.InferenceSession(found.content)
    names = [output.name for output in session.get_outputs()]
    fewest, detecting = [], []
    for batch, height, width in ((1, 24, 40), (4, 32, 48), (3, 16, 160)):
        images = np.random.default_rng(0).integers(0, 256, (batch, 3, height, width), np.uint8)
        outputs = dict(zip(names, session.run(names, dict(images=images))))
        sizes = torch.tensor([[height, width]] * batch)
        difference = compare(found.source.module, found.source.detector, torch.from_numpy(images), sizes, outputs)
        assert not difference.problems(FP32), difference
        fewest.append((outputs['distinct'][:, 0] >= 0).sum(1).min())
        detecting += found.source.detector.detecting_queries().sum(1).tolist()
    assert min(fewest) < 20 and min(detecting) < 20 == max(detecting)


def test_what_was_exported_still_runs(families):
    """Although mmdet's modules share a dictionary, of which torch.export gives each its own."""
    found = families('DDQ-DETR')
    images = torch.randint(0, 256, (1, 3, 96, 128), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.no_grad():
        outputs = {name: value.numpy() for name, value in found.source.module(images).items()}
    sizes = torch.tensor([[96, 128]])
    assert not compare(found.source.module, found.source.detector, images, sizes, outputs).problems(FP32)


@pytest.mark.parametrize('what', ['threshold', 'cls_branches.0', 'cls_branches.3', 'query_map'])
def test_another_choice_is_found(what, families, tmp_path):
    """The detector is another one than what was exported, also where that changes nothing but what NMS keeps."""
    found = families('DDQ-DETR')
    detector = copy.deepcopy(found.source.detector)
    if what == 'threshold':
        detector.dqs_cfg['iou_threshold'] = 0.5
        assert detector.cache_dict['dqs_cfg']['iou_threshold'] == 0.5
    for name, parameter in detector.named_parameters():
        if what in name:
            parameter.data += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    model = onnx.ModelProto.FromString(found.content)
    with pytest.raises(ExportError, match='the file does not compute what the model does'):
        write_checked(found.source._replace(detector=detector), model, tmp_path / 'file')


def test_nms_of_detections_behind_that_of_queries():
    """Detections of queries that are not distinct stand last, and need no better one that removes them."""
    exported, _ = source(FAMILIES['DDQ-DETR'], Settings(), nms=0.3)
    images = torch.randint(0, 256, (3, 3, 16, 160), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.no_grad():
        outputs = {name: value.numpy() for name, value in exported.module(images).items()}
    sizes = torch.tensor([[16, 160]] * 3)
    assert not compare(exported.module, exported.detector, images, sizes, outputs).problems(FP32)
    assert (outputs['scores'] == 0).any() and (np.diff(outputs['scores'], axis=1) <= 0).all()
    assert not exported.detector.detecting_queries().all()


def test_detections_are_those_of_the_head():
    """mmdet's, which leaves out queries that are not distinct, and fills nothing up."""
    exported, _ = source(FAMILIES['DDQ-DETR'], Settings())
    images = torch.randint(0, 256, (3, 3, 96, 128), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    preprocessor = exported.detector.data_preprocessor
    samples = [DetDataSample(metainfo=dict(img_shape=(96, 128), batch_input_shape=(96, 128))) for _ in images]
    with torch.no_grad():
        found = exported.module(images)
        wanted = exported.detector.predict((images - preprocessor.mean) / preprocessor.std, samples, rescale=False)
    assert not exported.detector.detecting_queries().all()
    for image, sample in enumerate(wanted):
        for name, values in (('scores', 'scores'), ('boxes', 'bboxes')):
            torch.testing.assert_close(found[name][image], sample.pred_instances[values], rtol=1e-4, atol=1e-2)
