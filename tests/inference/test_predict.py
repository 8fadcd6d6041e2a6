"""``python -m mmdet_stable predict``: what it writes, what it says, and what it does about bad files."""

import json
import sys

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from pycocotools import mask as rle
from pycocotools.coco import COCO

import mmdet_stable
from mmdet_stable.__main__ import main
from mmdet_stable.evaluation.operating_point import OperatingPoint, keep_operating_point
from mmdet_stable.inference import drawings
from mmdet_stable.inference.coco_results import CocoResults
from mmdet_stable.inference.drawings import Drawings
from mmdet_stable.inference.pictures import Picture
from tests.inference.models import noise, saved, small, work_dir, write


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    return work_dir(tmp_path_factory.mktemp('digits'))


@pytest.fixture
def scene(tmp_path):
    """Two pictures in a folder, and one elsewhere of the same name."""
    for number, name in enumerate(('shots/a.png', 'shots/b.jpg', 'more/a.png')):
        write(tmp_path / name, noise(seed=number))
    return tmp_path


def predict(model, *arguments, trust=True):
    return main(['predict', str(model), *map(str, arguments), '--device', 'cpu', *(['--trust'] if trust else [])])


def test_pictures_and_folders(model, scene, capsys):
    """One COCO file, a drawing of each picture under a name of its own, and a summary."""
    out = scene / 'out'
    arguments = [scene / 'shots', scene / 'more' / 'a.png', '--out', out, '--batch-size', 2, '--score-threshold', 0.01]
    assert predict(model, *arguments) == 0
    coco = COCO(str(out / 'predictions.json'))
    paths = [str(scene / name) for name in ('shots/a.png', 'shots/b.jpg', 'more/a.png')]
    assert [image['file_name'] for image in coco.dataset['images']] == paths
    assert coco.dataset['images'][0] == dict(id=1, file_name=paths[0], width=90, height=60)
    assert coco.dataset['info']['complete'] is True and coco.dataset['categories'][3] == dict(id=4, name='3')
    detector = mmdet_stable.load(model, device='cpu')
    for image, sample in zip(coco.dataset['images'], detector.predict(paths, batch_size=2, score_threshold=0.01)):
        found = coco.imgToAnns[image['id']]
        expected = sample.pred_instances
        boxes = torch.tensor([annotation['bbox'] for annotation in found], dtype=torch.float32)
        torch.testing.assert_close(boxes[:, :2] + boxes[:, 2:], expected.bboxes[:, 2:], atol=1e-3, rtol=0)
        assert [annotation['score'] for annotation in found] == expected.scores.tolist()
        assert [annotation['category_id'] - 1 for annotation in found] == expected.labels.tolist()
    assert sorted(path.name for path in (out / 'drawings').iterdir()) == ['a.png', 'a_2.png', 'b.jpg']
    (sample,) = detector.predict(paths[0], score_threshold=0.01)
    drawn = cv2.imread(str(out / 'drawings' / 'a.png'))
    np.testing.assert_array_equal(drawn, detector.draw(noise(seed=0), sample))
    output = capsys.readouterr().out
    assert f'{paths[0]}: ' in output and 'pictures 3, detections 90 with a score of at least 0.01' in output
    assert 'pictures per second: ' in output and f'written: {out / "predictions.json"} and {out / "drawings"}' in output


def test_nothing_of_other_libraries_is_printed(model, scene, capsys):
    assert predict(model, scene / 'shots', '--out', scene / 'out') == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f'{scene / "shots" / "a.png"}: ') and not shown.err


def test_the_threshold_that_suits_the_model(model, scene, capsys):
    """What `train` keeps beside a checkpoint is the default; nothing else is said, not by libraries either."""
    point, kept = OperatingPoint(0.0125, 0.5, 0.5), model / 'score_threshold.json'
    keep_operating_point(point, model / 'epoch_1.pth')
    try:
        assert predict(model, scene / 'shots', '--out', scene / 'out') == 0
        assert mmdet_stable.load(model, device='cpu').operating_point == point
    finally:
        kept.unlink()
    output = capsys.readouterr()
    assert 'with a score of at least 0.0125' in output.out and 'Warning' not in output.err
    scores = [entry['score'] for entry in COCO(str(scene / 'out' / 'predictions.json')).dataset['annotations']]
    assert min(scores) >= 0.0125
    assert predict(model, scene / 'shots', '--out', scene / 'out') == 0
    assert 'with a score of at least 0.3' in capsys.readouterr().out


def test_bad_files_are_listed_at_the_end(model, scene, capsys):
    bad = scene / 'shots' / 'bad.png'
    bad.write_bytes(b'')
    arguments = ['none.jpg', scene / 'shots', f'{scene}/*.gif', scene / 'more', '--out', scene / 'out']
    assert predict(model, *arguments) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-4:] == [
        '3 could not be done:',
        "  none.jpg: FileNotFoundError: [Errno 2] No such file or directory: 'none.jpg'",
        f'  {bad}: the file is empty (0 bytes); write the file again, or remove the image and its annotations',
        f'  {scene}/*.gif: no file matches this pattern',
    ]
    results = json.loads((scene / 'out' / 'predictions.json').read_text())
    assert 'pictures 3, detections 0' in printed.out and len(results['images']) == 3


def test_nothing_but_bad_files(model, tmp_path, capsys):
    assert predict(model, tmp_path, '--out', tmp_path / 'out') == 1
    assert json.loads((tmp_path / 'out' / 'predictions.json').read_text())['images'] == []
    assert 'the folder holds no picture or video' in capsys.readouterr().err


def test_videos(model, tmp_path, capsys):
    """Drawn frames make a video of the same length and rate; the results number them."""
    path = tmp_path / 'clip.avi'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (90, 60))
    for seed in range(4):
        writer.write(noise(seed=seed))
    writer.release()
    (tmp_path / 'cut.mp4').write_bytes(b'no video')
    write(tmp_path / 'a.png', noise())
    assert predict(model, path, tmp_path / 'a.png', tmp_path / 'cut.mp4', '--out', tmp_path / 'out') == 1
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'drawings' / 'clip.avi.mp4'))
    assert video.get(cv2.CAP_PROP_FPS) == 5 and video.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    assert video.read()[1].shape == (60, 90, 3)
    images = json.loads((tmp_path / 'out' / 'predictions.json').read_text())['images']
    assert [image.get('frame') for image in images] == [0, 1, 2, 3, None]
    assert 'cut.mp4: OpenCV reads no frame of it' in capsys.readouterr().err


def test_masks_as_run_lengths(tmp_path):
    cfg = small('mask_dino/stable_mask_dino_r50_12e.py')
    path = write(tmp_path / 'a.png', noise())
    checkpoint = saved(cfg, tmp_path / 'model')
    detector = mmdet_stable.load(cfg, checkpoint, 'cpu')
    (sample,) = detector.predict(path, score_threshold=0.01)
    results = CocoResults(detector.classes)
    results.add(sample, path)
    results.write(tmp_path / 'out' / 'masks.json')
    found = json.loads((tmp_path / 'out' / 'masks.json').read_text())['annotations']
    assert len(found) == len(sample.pred_instances) > 0
    for annotation, mask in zip(found, sample.pred_instances.masks.numpy()):
        np.testing.assert_array_equal(rle.decode(annotation['segmentation']), mask)


def test_category_ids():
    """COCO's own for its classes, of which the last is 90."""
    assert CocoResults(CocoDataset.METAINFO['classes']).categories[-1] == dict(id=90, name='toothbrush')
    assert CocoResults(['car', 'bus']).category_ids == [1, 2]
    assert CocoResults(['car', 'bus'], [7, 3]).category_ids == [7, 3]


def test_models_without_instances_are_refused():
    with pytest.raises(ValueError, match=r'street\.jpg: the model gives no instances'):
        CocoResults(['car']).add(DetDataSample(metainfo=dict(ori_shape=(2, 2))), 'street.jpg')


def test_an_interrupted_work_keeps_what_is_done(model, scene, monkeypatch):
    def stop(self, picture, drawn):
        if picture.name.endswith('b.jpg'):
            raise KeyboardInterrupt

    monkeypatch.setattr(drawings.Drawings, 'write', stop)
    assert predict(model, scene / 'shots', '--out', scene / 'out') == 130
    results = json.loads((scene / 'out' / 'predictions.json').read_text())
    assert results['info']['complete'] is False and len(results['images']) == 2


def test_pictures_are_not_replaced_by_their_drawings(tmp_path):
    path = write(tmp_path / 'a.png', noise())
    with Drawings(tmp_path) as target, pytest.raises(ValueError, match='would replace the picture itself'):
        target.write(Picture(path, path), noise(seed=1))


@pytest.mark.parametrize(
    'name,expected',
    [('http://host/dir/a%20b.png?size=3', 'a b.png'), ('http://host/', 'picture.jpg'), ('scan.pgm', 'scan.pgm.jpg')],
)
def test_names_of_drawings(name, expected, tmp_path):
    with Drawings(tmp_path) as target:
        target.write(Picture(name, name), noise())
    assert [path.name for path in tmp_path.iterdir()] == [expected]


@pytest.mark.parametrize('command', ['predict', 'evaluate'])
def test_a_folder_that_cannot_be_written_to_is_named_before_the_work(command, model, scene, capsys):
    (scene / 'file').write_text('x')
    image, category = dict(id=1, file_name='a.png'), dict(id=1, name='3')
    content = dict(
        images=[image], categories=[category], annotations=[dict(image_id=1, category_id=1, bbox=[1, 2, 9, 9])]
    )
    (scene / 'shots' / 'own.json').write_text(json.dumps(content))
    what = scene / 'shots' if command == 'predict' else scene / 'shots' / 'own.json'
    assert main([command, str(model), str(what), '--trust', '--out', str(scene / 'file')]) == 1
    shown = capsys.readouterr()
    assert f'folder {scene / "file"} cannot be written to; choose another by --out' in shown.err and not shown.out


@pytest.mark.parametrize(
    'device,problem', [('warp', 'device=warp: torch knows no such'), ('cuda:99', 'device=cuda:99: torch sees')]
)
def test_devices_that_are_not_there(device, problem, model, scene, capsys):
    assert main(['predict', str(model), str(scene), '--trust', '--device', device, '--out', str(scene / 'out')]) == 1
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    'name,hint', [('model.onnx', 'run by `python -m mmdet_stable.runtime`'), ('a.jpg', 'no config')]
)
def test_files_that_are_no_model(name, hint, tmp_path, monkeypatch, capsys):
    (tmp_path / name).write_bytes(b'x')
    monkeypatch.chdir(tmp_path)
    assert main(['predict', name, 'picture.jpg']) == 1
    assert f'error: {name} is no config (.py' in (error := capsys.readouterr().err) and hint in error


@pytest.mark.parametrize(
    'text,message',
    [
        ('\nmodel = [', 'config.py is no config, as it is no Python: line 2'),
        ('lr = 1', 'config.py: has no "model"; give'),
    ],
)
def test_configs_that_are_no_model(text, message, tmp_path, capsys):
    (tmp_path / 'config.py').write_text(text)
    (tmp_path / 'a.pth').touch()
    assert main(['predict', str(tmp_path / 'config.py'), '--checkpoint', str(tmp_path / 'a.pth'), 'picture.jpg']) == 1
    assert (error := capsys.readouterr().err).startswith('error: ') and message in error


def test_work_dirs_ask_for_trust(model, scene, capsys):
    assert predict(model, scene / 'shots', '--out', scene / 'out', trust=False) == 1
    assert 'nothing was built, as what the configs there name can run any code' in capsys.readouterr().err
    assert not (scene / 'out').exists()
    arguments = [scene / 'shots', '--out', scene / 'out', '--checkpoint', model / 'epoch_1.pth', '--no-drawings']
    assert predict(model / 'demo_digits.py', *arguments, trust=False) == 0  # the config is named
    assert [path.name for path in (scene / 'out').iterdir()] == ['predictions.json']


@pytest.mark.parametrize(
    'arguments,message',
    [
        (['nowhere', 'a.png'], 'error: nowhere: there is no such file or folder'),
        (['demo_digits', 'a.png'], 'error: demo_digits: a config has no weights'),
    ],
)
def test_unknown_models(arguments, message, capsys):
    assert main(['predict', *arguments]) == 1
    assert message in capsys.readouterr().err


def test_slices_need_sahi(model, scene, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'sahi', None)
    monkeypatch.delitem(sys.modules, 'mmdet_stable.inference.slicing', raising=False)
    (scene / 'out').mkdir()
    (scene / 'out' / 'predictions.json').write_text('of an earlier call')
    assert predict(model, scene / 'shots', '--slice', 50, '--out', scene / 'out') == 1
    assert (scene / 'out' / 'predictions.json').read_text() == 'of an earlier call'
    assert "slices need the library SAHI: pip install 'mmdet_stable[slicing]'" in capsys.readouterr().err


class Spots:
    """In place of a model: finds the white spots of an image, which are 10 pixels wide, each with a score."""

    classes = ('spot', 'ring')

    def __init__(self, masks=False):
        self.masks = masks
        self.seen = []

    def predict(self, images, batch_size=1, score_threshold=0.0):
        samples = []
        for image in images:
            self.seen.append(image.shape)
            _, _, stats, _ = cv2.connectedComponentsWithStats(image[..., 0])
            boxes = torch.tensor([[x, y, x + w, y + h] for x, y, w, h, _ in stats[1:]]).reshape(-1, 4).float()
            sample = DetDataSample(metainfo=dict(ori_shape=image.shape[:2]))
            sample.pred_instances = InstanceData(
                bboxes=boxes, scores=torch.full((len(boxes),), 0.8), labels=torch.ones(len(boxes), dtype=torch.int64)
            )
            if self.masks:
                masks = [image[..., 0] > 0 for _ in boxes]
                sample.pred_instances.masks = torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, 1, 1)
            samples.append(sample)
        return samples


@pytest.mark.parametrize('masks', [False, True])
def test_slices_are_merged(masks):
    """A spot in one slice, one across a border of two, and one in the overlap of two: each is found once."""
    pytest.importorskip('sahi')
    from mmdet_stable.inference.slicing import predict_sliced

    image = np.zeros((100, 180, 3), np.uint8)
    corners = [(5, 5), (95, 50), (86, 80)] if not masks else [(86, 80)]
    for x, y in corners:
        image[y : y + 10, x : x + 10] = 255
    model = Spots(masks)
    sample = predict_sliced(model, image, size=100, overlap=0.2, batch_size=2, score_threshold=0.3)
    found = sorted(sample.pred_instances.bboxes.tolist())
    expected = sorted([x, y, x + 10, y + 10] for x, y in corners)
    np.testing.assert_allclose(
        found, expected, atol=1 if masks else 0
    )  # where there are masks, SAHI's boxes are theirs
    assert model.seen == [(100, 100, 3), (100, 100, 3), (100, 180, 3)]
    assert sample.pred_instances.labels.tolist() == [1] * len(corners) and sample.ori_shape == (100, 180)
    if masks:
        assert sample.pred_instances.masks.shape == (1, 100, 180)
        overlap = (sample.pred_instances.masks[0].numpy() & (image[..., 0] > 0)).sum()
        assert overlap >= 0.8 * 100  # SAHI keeps masks as polygons


def test_slices_of_the_command(model, scene):
    pytest.importorskip('sahi')
    arguments = [scene / 'shots', '--slice', 50, '--score-threshold', 0.01, '--out', scene / 'out']
    assert predict(model, *arguments) == 0
    results = json.loads((scene / 'out' / 'predictions.json').read_text())
    assert [image['file_name'] for image in results['images']] == [
        str(scene / 'shots' / name) for name in ('a.png', 'b.jpg')
    ]
    assert all(annotation['bbox'][0] >= 0 for annotation in results['annotations'])
