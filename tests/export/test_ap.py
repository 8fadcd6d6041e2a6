"""COCO AP of a file by the runtime, and of the detector by mmdet."""

import json

import cv2
import numpy as np
import pytest
from mmdet.apis import inference_detector

from mmdet_stable.export import Evidence, ExportError, export, exporting
from mmdet_stable.export.ap import Scored, aps
from mmdet_stable.export.exporting import check_ap, scored_pictures
from mmdet_stable.export.parity import synthetic_pictures
from mmdet_stable.runtime import Detector

TRUE = 6  # detections of a picture that are declared to be right, nearly


@pytest.fixture(scope='module')
def scored(dino, tmp_path_factory):
    """Pictures of several sizes, whose ground truth is what the detector sees best, some of it moved a little, so that
    AP is neither 0 nor 1."""
    folder = tmp_path_factory.mktemp('scored')
    dino.source.detector.cfg = dino.cfg
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for number, picture in enumerate(synthetic_pictures()):
        path = folder / f'{number}.png'
        picture = picture.repeat(number + 1, 0)[:, :: number + 1]  # pictures of another shape each
        cv2.imwrite(str(path), picture)
        images.append(dict(id=number, file_name=path.name, height=picture.shape[0], width=picture.shape[1]))
        found = inference_detector(dino.source.detector, str(path)).pred_instances
        for box, label in zip(found.bboxes[:TRUE].tolist(), found.labels[:TRUE].tolist()):
            left, top, right, bottom = (np.array(box) + rng.choice([0, 4], 4)).tolist()
            sides = [left, top, max(right - left, 1), max(bottom - top, 1)]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=sides,
                    area=sides[2] * sides[3],
                    iscrowd=0,
                )
            )
    names = dino.source.metadata['classes']
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(names)]
    path = folder / 'annotations.json'
    path.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return path


def test_runtime_has_the_ap_of_pytorch(dino, scored):
    of_file, of_model = aps(
        Scored(scored, scored.parent, dino.source.metadata['classes']),
        Detector(dino.path),
        dino.source.detector,
        'bbox',
    )
    assert 0.1 < of_model < 0.9 and of_file == pytest.approx(of_model, abs=0.001)
    line = check_ap(dino.source, Detector(dino.path), scored_pictures(dino.source, scored, None))
    assert line == f'bbox AP on 3 pictures: {of_file:.4f}, of the model {of_model:.4f}'


def test_another_ap_is_refused(dino, scored):
    detector = Detector(dino.path)
    detector.metadata['resize']['scale'] = [130, 100]  # smaller pictures than the detector sees
    with pytest.raises(ExportError, match=r'bbox AP on 3 pictures: .*; allowed are 0\.001'):
        check_ap(dino.source, detector, scored_pictures(dino.source, scored, None))


def test_missing_pictures_are_noticed_before_the_export(dino, scored, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting.onnx_file, 'exported_program', None)
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    evidence = Evidence(ann_file=scored, img_dir=elsewhere)
    with pytest.raises(ExportError, match=r'0\.png: not there, and 2 others; --img-dir says where they are'):
        export(dino.source, 'onnx', tmp_path / 'model.onnx', evidence)
