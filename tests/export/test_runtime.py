"""The runtime on odd pictures and files: results equal to mmdet's, or errors that say what is wrong."""

import copy
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from mmdet.registry import TRANSFORMS
from PIL import Image

from mmdet_stable.export.exporting import write_runtime
from mmdet_stable.runtime import Detector, ModelError, PictureError, pictures
from mmdet_stable.runtime.__main__ import main
from mmdet_stable.runtime.masks import survivors

from .models import det_inferencer

RNG = np.random.default_rng(0)


@pytest.fixture(scope='module')
def detector(dino):
    return Detector(dino.path, threads=1)


@pytest.fixture(scope='module')
def by_mmdet(dino, tmp_path_factory):
    """Instances that mmdet's inferencer detects on a path or an array."""
    detect = det_inferencer(dino, tmp_path_factory.mktemp('inferencer'))
    return lambda picture: detect(picture).pred_instances


def pixels(height, width, channels=3):
    small = RNG.integers(0, 256, (-(-height // 8), -(-width // 8), channels), np.uint8)
    return np.ascontiguousarray(small.repeat(8, 0).repeat(8, 1)[:height, :width])


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to see it upright
    content = io.BytesIO()
    Image.fromarray(pixels(90, 140)).save(content, 'jpeg', exif=exif)
    return content.getvalue()


def encoded(image, kind='png', **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


PICTURES = {
    'jpeg': encoded(Image.fromarray(pixels(80, 100)), 'jpeg'),
    'grey': encoded(Image.fromarray(pixels(70, 90, 1)[..., 0])),
    'alpha': encoded(Image.fromarray(pixels(70, 90, 4), 'RGBA')),
    'grey and alpha': encoded(Image.fromarray(pixels(70, 90, 2), 'LA')),
    'palette': encoded(Image.fromarray(pixels(70, 90)).convert('P')),
    '16 bits': encoded(Image.fromarray(RNG.integers(0, 2**16, (70, 90)).astype(np.uint16))),
    'EXIF rotation': rotated(),
    'one pixel': encoded(Image.fromarray(pixels(1, 1))),
    'one bit': encoded(Image.fromarray(pixels(70, 90)).convert('1')),
    'large': encoded(Image.fromarray(pixels(1500, 2000))),
    'narrow': encoded(Image.fromarray(pixels(4, 300))),
}


def assert_same(found, expected):
    """Every detection has its counterpart; near ties may stand in another order."""
    assert len(found.scores) == len(expected.scores) and np.all(np.diff(found.scores) <= 0)
    np.testing.assert_allclose(found.scores, np.sort(expected.scores.numpy())[::-1], atol=1e-4)
    boxes, labels, scores = (expected[name].numpy() for name in ('bboxes', 'labels', 'scores'))
    scale = max(1.0, np.abs(boxes).max() / 100)
    for box, label, score in zip(found.boxes, found.labels, found.scores):
        same = (labels == label) & (np.abs(scores - score) < 1e-4)
        assert np.abs(boxes[same] - box).max(1).min() < 0.02 * scale


@pytest.mark.parametrize('name', PICTURES)
def test_pictures_as_by_det_inferencer(name, detector, by_mmdet, tmp_path):
    path = tmp_path / 'picture'
    path.write_bytes(PICTURES[name])
    found = detector(path)
    assert_same(found, by_mmdet(str(path)))
    assert detector(PICTURES[name]).records() == found.records()
    assert found.names == [detector.classes[label] for label in found.labels]


@pytest.mark.parametrize('shape', [(50, 70, 3), (50, 70), (50, 70, 1), (50, 70, 4)])
def test_arrays_are_bgr(shape, detector, by_mmdet):
    array = pixels(*shape[:2], shape[2] if len(shape) == 3 else 1).reshape(shape)
    bgr = array[..., :3] if array.ndim == 3 and shape[2] > 1 else array.reshape(50, 70, 1).repeat(3, 2)
    assert_same(detector(array), by_mmdet(np.ascontiguousarray(bgr)))


@pytest.mark.parametrize(
    'picture, problem',
    [
        (np.zeros((5, 6, 3), np.float32), 'array of float32: pictures are uint8'),
        (np.zeros((5, 6, 2), np.uint8), r'array of shape \(5, 6, 2\)'),
        (np.zeros((0, 6, 3), np.uint8), r'array of shape \(0, 6, 3\)'),
        (np.zeros((1, 5, 6, 3), np.uint8), r'array of shape \(1, 5, 6, 3\)'),
        (np.zeros((1, 5000, 3), np.uint8), '5000 x 1 pixels: would become 160 x 0, too narrow'),
        (None, 'NoneType: a picture is a path, encoded bytes, or an array'),
        (b'', '0 bytes: not a picture'),
        (b'GIF is a format', '15 bytes: not a picture'),
        (PICTURES['jpeg'][:30], '30 bytes: not a picture'),
        (Path('there/is/none.jpg'), 'none.jpg: cannot be read'),
        (Path('.'), 'cannot be read'),
    ],
)
@pytest.mark.parametrize('has_cv2', [True, False], ids=['opencv', 'pillow'])
def test_what_is_no_picture(picture, problem, has_cv2, detector, monkeypatch):
    monkeypatch.setattr(pictures, 'HAS_CV2', has_cv2)
    with pytest.raises(PictureError, match=problem):
        detector(picture)


@pytest.mark.parametrize('content', ['png', 'array'])
def test_pictures_that_are_too_large(content, dino):
    small = Detector(dino.path, most_pixels=1000)
    picture = pixels(40, 60)
    with pytest.raises(PictureError, match='60 x 40 pixels, more than most_pixels=1000'):
        small(picture if content == 'array' else encoded(Image.fromarray(picture)))
    assert len(small(pixels(25, 40)).scores) == 15


def test_pictures_too_narrow_for_the_queries(dino):
    """Such inputs have fewer positions than queries, of which the exported graph cannot choose enough."""
    detector = Detector(dino.path)
    detector.metadata['input']['least_tokens'] = 10**4
    with pytest.raises(PictureError, match='positions for 10000 queries, too narrow for this file'):
        detector(pixels(50, 70))


def test_lists_and_batches(detector):
    several = [pixels(50, 70), pixels(70, 50), pixels(50, 70), pixels(90, 70)]
    alone = [detector(picture) for picture in several]
    for size in (1, 3, 4):
        for found, expected in zip(detector.many(several, batch_size=size), alone):
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.01)
            assert found.labels.tolist() == expected.labels.tolist()
    assert detector.many([]) == []


def test_threshold(detector):
    every = detector(pixels(50, 70))
    middle = float(np.median(every.scores))
    some = detector(pixels(50, 70) * 0 + 5, threshold=middle)
    assert (some.scores >= middle).all()
    for wrong in (dict(threshold=2), dict(batch_size=0)):
        with pytest.raises(ValueError, match='from 0 to 1, and at least 1'):
            detector.many([pixels(50, 70)], **wrong)


@pytest.mark.parametrize('size', [(37, 53), (200, 90), (128, 160), (400, 600)])
def test_pixels_are_mmdets(size, detector):
    picture = pixels(*size)
    resize = TRANSFORMS.build(dict(type='mmdet.Resize', scale=(160, 128), keep_ratio=True))
    expected = resize(dict(img=picture, img_shape=size))['img'][:, :, ::-1]
    np.testing.assert_array_equal(detector.prepare(picture).pixels, expected)


def test_resized_by_pillow_where_the_config_says_so(dino, tmp_path, monkeypatch):
    """As published weights are: results equal those of mmdet's pipeline, also for pictures that become much smaller."""
    by_pillow = onnx.load(dino.path)
    (entry,) = by_pillow.metadata_props
    said = json.loads(entry.value)
    said['resize']['backend'] = 'pillow'
    entry.value = json.dumps(said)
    onnx.save(by_pillow, tmp_path / 'pillow.onnx')
    cfg = copy.deepcopy(dino.cfg)
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.backend = 'pillow'
    detect = det_inferencer(dino._replace(cfg=cfg), tmp_path)
    detector = Detector(tmp_path / 'pillow.onnx', threads=1)
    for picture in (pixels(1500, 2000), pixels(50, 70)):
        assert_same(detector(picture), detect(picture).pred_instances)
    monkeypatch.setattr('mmdet_stable.runtime.detector.HAS_PILLOW', False)
    with pytest.raises(ModuleNotFoundError, match=r'pillow\.onnx: pictures are resized by Pillow .*pip install pillow'):
        Detector(tmp_path / 'pillow.onnx')
    assert main([str(tmp_path / 'pillow.onnx'), 'picture.jpg']) == 1


def test_without_opencv_pixels_differ_by_one(detector, monkeypatch):
    expected = detector.prepare(PICTURES['EXIF rotation']).pixels.astype(int)
    of_png = detector.prepare(PICTURES['large']).pixels.astype(int)
    monkeypatch.setattr(pictures, 'HAS_CV2', False)
    assert np.abs(detector.prepare(PICTURES['large']).pixels - of_png).max() <= 1
    of_jpeg = detector.prepare(PICTURES['EXIF rotation']).pixels
    assert of_jpeg.shape == expected.shape and np.abs(of_jpeg - expected).mean() < 1
    for name in ('grey', 'alpha', 'grey and alpha', 'palette', '16 bits', 'one bit', 'one pixel'):
        assert detector(PICTURES[name]).boxes.shape == (15, 4)


def test_files_that_are_no_models(dino, tmp_path):
    content = dino.path.read_bytes()
    for name, part in (('cut', content[: len(content) // 2]), ('empty', b''), ('text', b'no model')):
        path = tmp_path / name
        path.write_bytes(part)
        with pytest.raises(ModelError, match=f'{name}: (cannot be loaded|not written by)'):
            Detector(path)
    other = onnx.load(dino.path)
    del other.metadata_props[:]
    onnx.save(other, tmp_path / 'other.onnx')
    with pytest.raises(ModelError, match='not written by `python -m mmdet_stable export`'):
        Detector(tmp_path / 'other.onnx')
    with pytest.raises(FileNotFoundError, match='nowhere'):
        Detector(tmp_path / 'nowhere.onnx')


def test_a_file_of_another_format(dino, tmp_path):
    other = onnx.load(dino.path)
    (entry,) = other.metadata_props
    entry.value = json.dumps({**json.loads(entry.value), 'format': 99})
    onnx.save(other, tmp_path / 'other.onnx')
    with pytest.raises(ModelError, match='written in format 99'):
        Detector(tmp_path / 'other.onnx')


def test_settings_of_the_session(dino):
    with pytest.raises(ValueError, match='threads=0: at least 1'):
        Detector(dino.path, threads=0)
    with pytest.raises(ValueError, match='NoSuchProvider'):
        Detector(dino.path, providers=['NoSuchProvider', 'CPUExecutionProvider'])
    assert Detector(dino.path, threads=2).session.get_session_options().intra_op_num_threads == 2


def test_command_line(dino, tmp_path, capsys):
    good, bad = tmp_path / 'good.png', tmp_path / 'bad.png'
    good.write_bytes(PICTURES['jpeg'])
    bad.write_bytes(b'bad')
    assert main([str(dino.path), str(good), '--threshold', '0', '--threads', '1']) == 0
    line = json.loads(capsys.readouterr().out)
    assert line['picture'] == str(good) and len(line['detections']) == 15
    assert set(line['detections'][0]) == {'box', 'score', 'label', 'name'}
    assert main([str(dino.path), str(bad), str(good)]) == 1
    printed = capsys.readouterr()
    assert 'bad.png: not a picture' in printed.err and len(printed.out.splitlines()) == 1
    assert main([str(bad), str(good)]) == 1
    assert capsys.readouterr().err.startswith(f'error: {bad}')


def test_it_needs_neither_torch_nor_mmdet(dino, tmp_path):
    """In a process in which they, and the package, cannot be imported; with Pillow alone, too."""
    write_runtime(tmp_path)
    (tmp_path / 'picture.png').write_bytes(PICTURES['jpeg'])
    for also in ('', 'cv2'):
        code = (
            'import sys\n'
            f'for name in "torch mmcv mmdet mmengine mmdet_stable {also}".split(): sys.modules[name] = None\n'
            'from mmdet_stable_runtime import Detector\n'
            f'print(len(Detector({str(dino.path)!r}, threads=1)("picture.png").scores))\n'
        )
        done = subprocess.run([sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout == '15\n', done.stderr


def test_nms_of_masks():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 10, 10], [1, 0, 10, 10], [20, 20, 30, 30]], np.float32)
    assert survivors(boxes, np.array([0, 0, 1, 0]), 0.5).tolist() == [0, 2, 3]
    assert survivors(boxes[:0], np.array([], int), 0.5).tolist() == []
