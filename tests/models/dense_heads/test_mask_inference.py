"""Instances, panoptic segments and semantic maps of the reference, pixel by pixel."""

import json

import pytest
import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET

from mmdet_stable.models.dense_heads import mask_inference
from mmdet_stable.models.dense_heads.mask_inference import ImagePredictions, ImageSizes, MaskInference
from tests.utils import golden, tensor

DATA = golden('maskdino_inference')
META = json.loads(str(DATA['meta']))
NAMES = dict(object_mask_threshold='object_mask_thr', overlap_threshold='iou_thr')
IMAGES = range(2)


def recorded(image, logits='pred_logits'):
    masks = tensor(DATA['pred_masks'])[image]
    sizes = (DATA['padded_size'], DATA['image_sizes'][image], DATA['original_sizes'][image])
    return ImagePredictions(
        tensor(DATA[logits])[image],
        tensor(DATA['pred_boxes'])[image],
        torch.eye(len(masks)),
        masks,
        ImageSizes(*(tuple(int(v) for v in size) for size in sizes)),
    )


def inference(case):
    options = {**META['defaults'], **META['cases'][case]}
    sharpen = META['temperature'] if options.pop('transform_eval') else None
    resize_first = options.pop('sem_seg_postprocess_before_inference', True)
    options = {NAMES.get(name, name): value for name, value in options.items()}
    settings = dict(instance_on=False, max_per_img=META['topk'], softmax=options.pop('semantic_ce_loss', False))
    settings.update(options, sharpen=sharpen, resize_first=resize_first)
    return MaskInference(META['num_things'], META['num_classes'], **settings)


@pytest.fixture(params=[1, 5, 16], autouse=True, ids='parts of {}'.format)
def parts(request, monkeypatch):
    monkeypatch.setattr(mask_inference, 'MASKS_AT_A_TIME', request.param)


@pytest.mark.parametrize('image', IMAGES)
@pytest.mark.parametrize('case', ['inst', 'inst_focus', 'pan'])
def test_instances(case, image):
    found = inference(case)(recorded(image))['pred_instances']
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    order = tensor(DATA[f'{case}.scores_{image}']).argsort(descending=True)
    torch.testing.assert_close(found.scores, tensor(DATA[f'{case}.scores_{image}'])[order], rtol=1e-6, atol=1e-6)
    assert torch.equal(found.labels, tensor(DATA[f'{case}.labels_{image}'])[order])
    assert torch.equal(found.masks, tensor(DATA[f'{case}.masks_{image}'])[order])
    torch.testing.assert_close(found.bboxes, tensor(DATA[f'{case}.boxes_{image}'])[order], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize('image', IMAGES)
@pytest.mark.parametrize('case', ['pan', 'pan_plain', 'pan_strict', 'pan_none'])
def test_panoptic(case, image):
    model = inference(case)
    numbers, segments = model.panoptic(recorded(image))
    assert torch.equal(numbers, tensor(DATA[f'{case}.panoptic_{image}']))
    found = [[segment.number, int(segment.is_thing), segment.label] for segment in segments]
    assert found == DATA[f'{case}.segments_{image}'].tolist()

    codes = model(recorded(image))['pred_panoptic_seg'].sem_seg
    assert codes.shape == (1, *numbers.shape) and codes.dtype == torch.int32
    assert torch.equal(codes[0] == META['num_classes'], numbers == 0)
    for segment in segments:
        (code,) = codes[0][numbers == segment.number].unique().tolist()
        assert code % INSTANCE_OFFSET == segment.label
        assert (code // INSTANCE_OFFSET > 0) == segment.is_thing


@pytest.mark.parametrize('image', IMAGES)
@pytest.mark.parametrize('case', ['pan', 'sem_after', 'sem_sigmoid', 'sem_ce'])
def test_semantic(case, image):
    predictions = recorded(image, 'pred_logits_ce' if case == 'sem_ce' else 'pred_logits')
    model = inference(case)
    maps, expected = model.semantic(predictions), tensor(DATA[f'{case}.semantic_{image}'])
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)
    labels = model(predictions)['pred_sem_seg'].sem_seg
    assert torch.equal(labels, expected.argmax(0, keepdim=True))


def test_nms_and_boxes_from_masks():
    predictions = recorded(0)._replace(boxes_cxcywh=torch.full((14, 4), 0.4))
    settings = dict(max_per_img=30)
    plain = MaskInference(4, 7, **settings).instances(predictions)
    assert len(plain.scores) == 30
    kept = MaskInference(4, 7, nms=dict(type='nms', iou_threshold=0.8), **settings).instances(predictions)
    assert sorted(kept.labels.tolist()) == sorted(set(plain.labels.tolist()))
    found = MaskInference(4, 7, boxes_from_masks=True, **settings).instances(predictions)
    assert torch.equal(found.masks, plain.masks)
    for mask, (x1, y1, x2, y2) in zip(found.masks, found.bboxes.int().tolist()):
        inside = mask[y1:y2, x1:x2]
        assert mask.sum() == inside.sum() and (not inside.numel() or (inside.any(0)[[0, -1]].all()))


def test_soft_nms_lowers_scores_and_sorts_by_them():
    boxes = torch.full((14, 4), 0.4) + torch.arange(14)[:, None] * 1e-3  # nearly the same
    predictions = recorded(0)._replace(boxes_cxcywh=boxes)
    settings = dict(max_per_img=30, focus_on_box=True)
    plain = MaskInference(4, 7, **settings).instances(predictions)
    found = MaskInference(4, 7, nms=dict(type='soft_nms', iou_threshold=0.3), **settings).instances(predictions)
    assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
    assert found.scores[0] == plain.scores[0] and found.scores.sum() < 0.8 * plain.scores.sum()
    assert len(found.masks) == len(found.scores) == len(found.bboxes)


@pytest.mark.parametrize('nms', [None, dict(type='nms', iou_threshold=0.8), dict(type='soft_nms')], ids=str)
def test_no_things_among_the_best(nms):
    """With panoptic segments, instances are things only; here all classes are stuff."""
    found = MaskInference(0, 7, panoptic_on=True, nms=nms).instances(recorded(0))
    assert len(found.scores) == len(found.labels) == 0
    assert found.bboxes.shape == (0, 4) and found.masks.shape[0] == 0


def test_more_instances_than_pairs_and_errors():
    assert len(MaskInference(4, 7, max_per_img=1000).instances(recorded(0)).scores) == 14 * 7
    with pytest.raises(ValueError, match='at least one of instance_on'):
        MaskInference(4, 7, instance_on=False)
    with pytest.raises(ValueError, match='sharpen=0'):
        MaskInference(4, 7, sharpen=0)
