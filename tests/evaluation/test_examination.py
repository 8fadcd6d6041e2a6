"""What is measured on a trained model."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from mmdet_stable.evaluation.examination import BY_CLASS, coco_metrics


@pytest.mark.parametrize('kinds,ap', [('bbox', 1.0), (['bbox', 'segm'], 1.0), (['segm'], 0.0), ('segm', 0.0)])
def test_ap_of_classes_is_that_of_boxes(kinds, ap, tmp_path):
    """Also beside masks, here all in a wrong place, whose AP mmdet reports under the same name."""
    polygon = [8, 8, 24, 8, 24, 24, 8, 24]
    annotation = dict(id=1, image_id=1, category_id=1, bbox=[8, 8, 16, 16], area=256, iscrowd=0, segmentation=[polygon])
    image, category = dict(id=1, width=64, height=64, file_name='a.png'), dict(id=1, name='a')
    file = tmp_path / 'truth.json'
    file.write_text(json.dumps(dict(images=[image], annotations=[annotation], categories=[category])))
    metric = ConfigDict(type='CocoMetric', ann_file=str(file), metric=kinds)
    metrics = coco_metrics(SimpleNamespace(name='model', config=ConfigDict(test_evaluator=metric)))
    evaluator = Evaluator(metrics)
    evaluator.dataset_meta = dict(classes=('a', 'of the panoptic file only'))
    masks = torch.zeros(1, 64, 64, dtype=torch.bool)
    masks[:, 40:, 40:] = True
    found = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 24, 24]]),
        scores=torch.ones(1),
        labels=torch.zeros(1, dtype=torch.int),
        masks=masks,
    )
    sample = DetDataSample(metainfo=dict(img_id=1, ori_shape=(64, 64)), pred_instances=found)
    evaluator.process([sample], {})
    by_name = evaluator.evaluate(1)
    assert by_name[f'{BY_CLASS}/a_precision'] == ap
    assert f'{BY_CLASS}/of the panoptic file only_precision' not in by_name


def test_models_without_coco_metric():
    subject = SimpleNamespace(name='model', config=ConfigDict(test_evaluator=[dict(type='VOCMetric')]))
    with pytest.raises(ValueError, match='model: no CocoMetric in test_evaluator'):
        coco_metrics(subject)
