"""Instances, panoptic and semantic maps by the runtime: those of the model, on the predictions of the reference."""

import copy
import json

import numpy as np
import onnx
import pytest
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from PIL import Image

from mmdet_stable.export import Evidence, ExportError, Settings, export, source_of
from mmdet_stable.export.exporting import write_checked
from mmdet_stable.export.spec import rule_of_masks
from mmdet_stable.models.dense_heads.mask_inference import MaskInference
from mmdet_stable.runtime import Detector, masks, pictures
from mmdet_stable.runtime.__main__ import main
from mmdet_stable.runtime.pictures import Prepared
from tests.models.dense_heads.test_mask_inference import IMAGES, META, inference, recorded
from tests.utils import build

from .models import CLASSES, det_inferencer

WITHOUT_OPENCV = pytest.mark.parametrize('has_cv2', [True, False], ids=['opencv', 'plain'])


def outputs_of(predictions, model):
    """What an exported file returns for these predictions."""
    scores, inds = model.scores(predictions.logits).flatten().topk(min(model.max_per_img, model.num_classes * 14))
    queries = inds // model.num_classes
    height, width = predictions.sizes.padded
    boxes = bbox_cxcywh_to_xyxy(predictions.boxes_cxcywh[queries]) * scores.new_tensor([width, height] * 2)
    found = dict(
        boxes=boxes,
        scores=scores,
        labels=inds % model.num_classes,
        masks=predictions.mask_features[queries],
        query_logits=predictions.logits,
        query_masks=predictions.mask_features,
    )
    return {name: value.numpy() for name, value in found.items()}


def found_by_runtime(predictions, model):
    detector = Detector.__new__(Detector)
    detector.metadata, detector.classes = dict(masks=rule_of_masks(model)), CLASSES
    padded, image, original = predictions.sizes
    picture = Prepared(np.zeros((*image, 3), np.uint8), original)
    return detector._found(outputs_of(predictions, model), picture, padded, 0.0)


@WITHOUT_OPENCV
@pytest.mark.parametrize('image', IMAGES)
@pytest.mark.parametrize('case', META['cases'])
def test_maps(case, image, has_cv2, monkeypatch):
    monkeypatch.setattr(pictures, 'HAS_CV2', has_cv2)
    predictions, model = recorded(image, 'pred_logits_ce' if case == 'sem_ce' else 'pred_logits'), inference(case)
    found, expected = found_by_runtime(predictions, model), model(predictions)
    for name, kind in (('panoptic', 'pred_panoptic_seg'), ('semantic', 'pred_sem_seg')):
        codes = getattr(found, name)
        assert (codes is not None) == (kind in expected)
        if codes is not None:
            np.testing.assert_array_equal(codes, expected[kind].sem_seg[0])
    if 'pred_instances' not in expected:
        assert len(found.scores) == 0 and found.masks is None


@WITHOUT_OPENCV
@pytest.mark.parametrize('image', IMAGES)
@pytest.mark.parametrize(
    'model',
    [
        inference('inst'),
        inference('inst_focus'),
        inference('pan'),
        MaskInference(4, 7, max_per_img=30, nms=dict(type='nms', iou_threshold=0.8)),
        MaskInference(4, 7, max_per_img=30, boxes_from_masks=True),
    ],
    ids=['plain', 'focus on box', 'things only', 'nms', 'boxes from masks'],
)
def test_instances(model, image, has_cv2, monkeypatch):
    monkeypatch.setattr(pictures, 'HAS_CV2', has_cv2)
    predictions = recorded(image)
    found, expected = found_by_runtime(predictions, model), model(predictions)['pred_instances']
    expected = expected[expected.scores > 0]  # others have empty masks
    assert len(found.scores) == len(expected) > 0
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.masks, expected.masks)
    np.testing.assert_allclose(found.boxes, expected.bboxes, rtol=1e-5, atol=1e-3)


def test_segments_of_the_command_line():
    codes = np.array([[2003, 2003, 5], [7, 7, 1003]])
    assert masks.sizes_of(codes, CLASSES) == [
        dict(code=5, name='f', pixels=1),
        dict(code=1003, name='d', pixels=1),
        dict(code=2003, name='d', pixels=2),
    ]


@pytest.fixture(scope='module')
def panoptic(families):
    return families('MaskDINO, panoptic and semantic')


def test_maps_as_by_det_inferencer(panoptic, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8).repeat(12, 0).repeat(11, 1)
    found, expected = Detector(panoptic.path, threads=1)(picture), det_inferencer(panoptic, tmp_path)(picture)
    for codes, of_mmdet in ((found.panoptic, expected.pred_panoptic_seg), (found.semantic, expected.pred_sem_seg)):
        assert (codes == of_mmdet.sem_seg[0].numpy()).mean() > 0.999
    assert len(np.unique(found.panoptic)) > 2 and (found.labels < 4).all()
    assert len(found.scores) == len(expected.pred_instances) > 0
    np.testing.assert_allclose(found.scores, expected.pred_instances.scores, atol=1e-4)


def test_a_file_without_instances(panoptic, tmp_path, capsys):
    """It returns what maps are made of alone, and the command line says what it sees."""
    cfg = copy.deepcopy(panoptic.cfg)
    cfg.model.test_cfg.update(instance_on=False, panoptic_on=False)
    detector = build(copy.deepcopy(cfg.model)).eval()
    detector.load_state_dict(panoptic.source.detector.state_dict())
    source = source_of(detector, cfg, CLASSES, Settings())
    path = tmp_path / 'model.onnx'
    write_checked(source, onnx.ModelProto.FromString(panoptic.content), path)
    assert Detector(path).outputs == ['query_logits', 'query_masks']
    picture = tmp_path / 'picture.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(picture)
    assert main([str(path), str(picture), '--threads', '1']) == 0
    line = json.loads(capsys.readouterr().out)
    assert line['detections'] == [] and sum(part['pixels'] for part in line['semantic']) == 40 * 60
    (tmp_path / 'x.json').touch()
    evidence = Evidence(ann_file=tmp_path / 'x.json')
    with pytest.raises(ExportError, match=r'--ann-file: scores instances, which test_cfg\.instance_on=False'):
        export(source, 'onnx', path, evidence)


@pytest.mark.parametrize('name', ['query_logits', 'query_masks'])
def test_what_maps_are_made_of_is_checked(name, panoptic, tmp_path):
    model = onnx.ModelProto.FromString(panoptic.content)
    for node in model.graph.node:
        node.output[:] = [f'{name}.right' if output == name else output for output in node.output]
    model.graph.node.append(onnx.helper.make_node('Neg', [f'{name}.right'], [name]))
    with pytest.raises(ExportError, match='does not compute what the model does'):
        write_checked(panoptic.source, model, tmp_path / 'model.onnx')
