"""Detectors by name, path and work dir; their results are DetInferencer's, whatever the pictures come as."""

import http.server
import os
import shutil
import threading
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer
from PIL import Image

import mmdet_stable
from mmdet_stable.inference import find_model
from mmdet_stable.weights import Kept
from tests.inference.models import DIGITS, noise, saved, small, work_dir, write, write_config

FAMILIES = [
    'stable_dino_r50_12e.py',
    'dino/dino_r50_12e.py',
    'dn_detr/dn_detr_r50_50e.py',
    'dn_detr/dab_detr_r50_50e.py',
    'dn_detr/dn_deformable_detr_r50_12e.py',
    'deformable_detr/stable_dab_deformable_detr_r50_12e.py',
    'deformable_detr/stable_h_deformable_detr_r50_12e.py',
    'mask_dino/stable_mask_dino_r50_12e.py',
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    'mmdet::detr/detr_r50_8xb2-150e_coco.py',
    'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py',
]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Three pictures of two sizes."""
    folder = tmp_path_factory.mktemp('pictures')
    for name, size, seed in (('b.png', (60, 90), 1), ('a.png', (60, 90), 0), ('c.JPG', (70, 50), 2)):
        write(folder / name, noise(*size, seed=seed))
    (folder / 'notes.txt').write_text('no picture')
    return folder


@pytest.fixture(scope='module')
def detector(tmp_path_factory):
    return mmdet_stable.load(work_dir(tmp_path_factory.mktemp('digits')), device='cpu')


def same(samples, expected):
    assert len(samples) == len(expected)
    for sample, other in zip(samples, expected):
        assert sample.metainfo == other.metainfo
        for key, value in other.pred_instances.items():
            torch.testing.assert_close(sample.pred_instances[key], value, rtol=0, atol=0, msg=key)
        assert set(sample.pred_instances.keys()) == set(other.pred_instances.keys())


@pytest.mark.parametrize('name', FAMILIES)
def test_results_are_those_of_mmdets_inferencer(name, folder, tmp_path):
    """For files and arrays, and for batches of several sizes, masks included."""
    cfg = small(name)
    checkpoint = saved(cfg, tmp_path)
    detector = mmdet_stable.load(cfg, checkpoint, device='cpu')
    inferencer = DetInferencer(cfg, str(checkpoint), device='cpu', show_progress=False)
    inputs = [str(folder / 'a.png'), str(folder / 'c.JPG'), noise(seed=4)]
    found = detector.predict(inputs, batch_size=2)
    assert len(found) == 3 and found[0].img_path == inputs[0]
    same(found, inferencer(inputs, batch_size=2, return_datasamples=True)['predictions'])
    assert ('masks' in found[0].pred_instances) == ('mask' in name)


def test_the_order_is_that_of_the_inputs(detector, folder):
    """A folder and a pattern are sorted by name; a mix keeps its order."""
    paths = [str(folder / name) for name in ('a.png', 'b.png', 'c.JPG')]
    assert [sample.img_path for sample in detector.predict(folder, batch_size=2)] == paths
    assert [sample.img_path for sample in detector.predict(f'{folder}/*.png')] == paths[:2]
    mix = [folder / 'c.JPG', noise(), f'{folder}/[ab].png', str(folder)]
    found = detector.predict(mix, batch_size=4)
    assert [sample.img_path for sample in found] == [paths[2], None, *paths[:2], *paths]


def test_urls(detector, folder):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f'http://127.0.0.1:{server.server_port}'
        (found,) = detector.predict(f'{url}/a.png')
        outcomes = list(detector.stream([f'{url}/none.png', f'{url}/b.png']))
        server.shutdown()
    (expected,) = detector.predict(folder / 'a.png')
    torch.testing.assert_close(found.pred_instances.bboxes, expected.pred_instances.bboxes, rtol=0, atol=0)
    assert outcomes[0].problem.startswith(f'{url}/none.png: ') and '404' in outcomes[0].problem
    assert outcomes[1].sample.img_path == f'{url}/b.png'


def test_scores_below_the_threshold_are_left_out(detector):
    (everything,) = detector.predict(noise())
    middle = everything.pred_instances.scores.median().item()
    (found,) = detector.predict(noise(), score_threshold=middle)
    assert 0 < len(found.pred_instances) < len(everything.pred_instances)
    assert found.pred_instances.scores.min() >= middle


@pytest.mark.parametrize('settings', [dict(batch_size=0), dict(score_threshold=30)])
def test_impossible_settings(detector, settings):
    ((key, value),) = settings.items()
    with pytest.raises(ValueError, match=f'{key}={value}: '):
        detector.predict(noise(), **settings)


@pytest.mark.parametrize('suffix', ['.jpg', '.png'])
def test_pictures_are_turned_upright(detector, tmp_path, suffix):
    """As their EXIF says; a PIL image of the same file, too."""
    image = Image.fromarray(noise(60, 90))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = tmp_path / f'turned{suffix}'
    image.save(path, exif=exif)
    (outcome,) = detector.stream(path)
    assert outcome.image.shape == (90, 60, 3) and outcome.sample.ori_shape == (90, 60)
    (of_pil,) = detector.stream(Image.open(path))
    assert np.abs(of_pil.image.astype(int) - outcome.image).max() <= 4  # of two decoders


def test_greyscale_alpha_and_16_bits(detector, tmp_path):
    """A file and the array that it holds give the same; DetInferencer takes such files, but not such arrays."""
    image = noise()
    deep = np.random.default_rng(0).integers(0, 2**16, (60, 90, 3), np.uint16)
    kinds = dict(
        grey=image[..., 0],
        grey16=deep[..., 0],
        alpha=np.dstack([image, image[..., 0]]),
        deep=deep,
        deep_alpha=np.dstack([deep, deep[..., 0]]),
    )
    for name, array in kinds.items():
        of_file, of_array = detector.stream([write(tmp_path / f'{name}.png', array), array])
        assert of_file.image.dtype == np.uint8 and of_file.image.shape == (60, 90, 3), name
        np.testing.assert_array_equal(of_file.image, of_array.image, err_msg=name)
        boxes = (of_file.sample.pred_instances.bboxes, of_array.sample.pred_instances.bboxes)
        torch.testing.assert_close(*boxes, rtol=0, atol=0)
    (column,) = detector.stream(image[..., :1])
    np.testing.assert_array_equal(column.image, np.repeat(image[..., :1], 3, axis=2))


def test_what_is_no_picture_is_named(detector, folder, tmp_path):
    with pytest.raises(ValueError, match=r'array 1 has shape \(4, 60, 90, 3\) and type uint8; a picture is'):
        detector.predict([noise(), np.stack([noise()] * 4)])
    with pytest.raises(ValueError, match=r'array 0 has shape \(60, 90, 3\) and type float64'):
        detector.predict(noise() / 255)
    with pytest.raises(TypeError, match='input 0 is a Tensor; a detector takes paths'):
        detector.predict([torch.zeros(3, 8, 8)])
    with pytest.raises(ValueError, match='the folder holds no picture or video'):
        detector.predict(tmp_path)
    with pytest.raises(ValueError, match=r'\*\.gif: no file matches this pattern'):
        detector.predict(f'{folder}/*.gif')
    with pytest.raises(ValueError, match=r'^none\.png: FileNotFoundError'):
        detector.predict('none.png')
    (tmp_path / 'bad.png').write_bytes(b'no image')
    with pytest.raises(ValueError, match=r'bad\.png: cannot identify image file'):
        detector.predict(tmp_path / 'bad.png')


def test_the_stream_goes_on_after_bad_files(detector, folder, tmp_path):
    """Also within a batch, and also where the pipeline fails."""
    bad = tmp_path / 'bad.png'
    bad.write_bytes(b'')
    thin = write(tmp_path / 'thin.png', noise(1, 4000))
    inputs = [str(folder / 'a.png'), str(bad), thin, str(folder / 'b.png'), 'none.jpg']
    outcomes = list(detector.stream(inputs, batch_size=2))
    assert [outcome.picture.path for outcome in outcomes] == inputs
    assert [bool(outcome.problem) for outcome in outcomes] == [False, True, True, False, True]
    assert [outcome.sample is None for outcome in outcomes] == [False, True, True, False, True]
    assert all(outcome.problem.startswith(outcome.picture.path) for outcome in outcomes if outcome.problem)
    same([outcomes[0].sample, outcomes[3].sample], detector.predict([inputs[0], inputs[3]], batch_size=2))


def test_videos_are_their_frames(detector, tmp_path):
    path = str(tmp_path / 'clip.avi')
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 5, (90, 60))
    for seed in range(3):
        writer.write(noise(seed=seed))
    writer.release()
    outcomes = list(detector.stream(path))
    assert [outcome.picture.frame for outcome in outcomes] == [0, 1, 2]
    same([outcomes[1].sample], detector.predict(outcomes[1].image))
    (tmp_path / 'cut.mp4').write_bytes(b'no video')
    with pytest.raises(ValueError, match=r'cut\.mp4: OpenCV reads no frame of it'):
        detector.predict(tmp_path / 'cut.mp4')


def test_drawing(detector):
    image = noise()
    (sample,) = detector.predict(image, score_threshold=0.05)
    drawn = detector.draw(image, sample)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8 and (drawn != image).any()
    sample.pred_instances = sample.pred_instances[:0]
    np.testing.assert_array_equal(detector.draw(image, sample), image)


def test_the_best_checkpoint_of_a_work_dir_otherwise_the_last(tmp_path):
    folder = work_dir(tmp_path / 'run', name='demo_digits.py')
    assert find_model(folder).checkpoint == str(folder / 'epoch_1.pth')
    shutil.copy(folder / 'epoch_1.pth', folder / 'epoch_2.pth')
    assert find_model(folder).checkpoint == str(folder / 'epoch_2.pth')
    best = folder / 'best_coco_bbox_mAP_epoch_1.pth'
    shutil.copy(folder / 'epoch_1.pth', best)
    assert find_model(str(folder)).checkpoint == str(best) and find_model(folder).found
    cut = folder / 'best_coco_bbox_mAP_epoch_3.pth'
    cut.write_bytes(best.read_bytes()[:1000])
    os.utime(cut, (2**31, 2**31))
    assert find_model(folder).checkpoint == str(best)
    assert find_model(folder, folder / 'epoch_1.pth').checkpoint == str(folder / 'epoch_1.pth')
    detector = mmdet_stable.load(folder / 'epoch_2.pth', device='cpu')
    assert detector.classes == tuple('0123456789') and len(detector.predict(noise())) == 1


def test_a_checkpoint_beside_its_config(tmp_path):
    """As the converter of weights writes both."""
    folder = work_dir(tmp_path, name='demo_digits.py')
    (folder / 'demo_digits.py').rename(folder / 'epoch_1.py')
    write_config(small('demo_digits.py'), folder / 'another.py')
    assert find_model(folder / 'epoch_1.pth').config.filename == str(folder / 'epoch_1.py')


def test_work_dirs_that_do_not_tell_their_model(tmp_path):
    with pytest.raises(ValueError, match='one config that mmengine saved is needed to know the model, found: none'):
        find_model(tmp_path)
    folder = work_dir(tmp_path / 'run')
    # What a config inherits from is not in it; the saved one has everything.
    (folder / 'short.py').write_text(f"_base_ = '{DIGITS}'\n")
    assert find_model(folder).config.filename == str(folder / 'demo_digits.py')
    (folder / 'runs.py').write_text("print('never run')\n")
    assert find_model(folder).config.filename == str(folder / 'demo_digits.py')
    write_config(small('demo_digits.py'), folder / 'other.py')
    with pytest.raises(ValueError, match=r'found: demo_digits.py, other.py\n  .*runs.py, line 1: not a plain value'):
        find_model(folder)
    empty = tmp_path / 'empty'
    empty.mkdir()
    write_config(small('demo_digits.py'), empty / 'demo_digits.py')
    for remedy in ('train first', 'all are damaged; copy them again, or train anew'):
        with pytest.raises(FileNotFoundError, match=f'there is no whole checkpoint in this work dir; {remedy}'):
            find_model(empty)
        (empty / 'epoch_1.pth').write_bytes(b'cut')


def test_models_by_name(tmp_path, monkeypatch):
    checkpoint = saved(small('demo_digits.py'), tmp_path)
    assert find_model('demo_digits', checkpoint).config.filename == str(DIGITS)
    assert find_model(DIGITS, str(checkpoint)).checkpoint == str(checkpoint)
    published = find_model('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py')
    assert published.checkpoint.startswith('https://') and not published.found
    monkeypatch.setattr('mmdet_stable.inference.model_files.fetch', {'dino-r50-12e': Kept(checkpoint, DIGITS)}.get)
    kept = find_model('dino-r50-12e')
    assert kept.config.filename == str(DIGITS) and kept.checkpoint == str(checkpoint) and not kept.found
    same = find_model('published://dino-r50-12e')
    assert (same.config.filename, same.checkpoint, same.found) == (kept.config.filename, kept.checkpoint, False)
    other = saved(small('demo_digits.py'), tmp_path / 'other')
    assert find_model('published://dino-r50-12e', other).checkpoint == str(other)
    with pytest.raises(FileNotFoundError, match='demo_digits: a config has no weights; give the checkpoint'):
        find_model('demo_digits')
    with pytest.raises(FileNotFoundError, match=r'none\.pth: there is no such checkpoint'):
        find_model('demo_digits', 'none.pth')
    with pytest.raises(ValueError, match=r'dino_r50_12: there is no such file .* did you mean .*dino_r50_12e'):
        find_model('dino_r50_12')
    with pytest.raises(ValueError, match=r'https://host/a\.pth: a URL tells no config; give the config as MODEL'):
        find_model('https://host/a.pth')
    with pytest.raises(ValueError, match='mmdet::dino: write it like mmdet::dino/dino-4scale'):
        find_model('mmdet::dino')


def test_a_name_that_nobody_has_published():
    with pytest.raises(ValueError, match=r'dino-r50-12: .*no weights of this name; near are dino-r50-12e'):
        find_model('published://dino-r50-12')


def test_a_checkpoint_gives_its_config_to_another_one(tmp_path):
    folder = work_dir(tmp_path / 'run')
    other = saved(small('demo_digits.py'), tmp_path / 'other')
    files = find_model(folder / 'epoch_1.pth', other)
    assert files.config.filename == str(folder / 'demo_digits.py') and files.checkpoint == str(other) and files.found


def test_the_callers_config_stays_as_it_is(tmp_path):
    cfg = small('demo_digits.py')
    before = cfg.pretty_text
    detector = mmdet_stable.load(cfg, saved(cfg, tmp_path), 'cpu', cfg_options={'model.test_cfg.max_per_img': 7})
    assert detector.model.test_cfg['max_per_img'] == 7
    assert cfg.pretty_text == before


@pytest.mark.parametrize(
    'name,found', [('demo_digits.py', 40), ('mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py', 20)], ids=['ours', 'mmdets']
)
def test_weights_of_another_model_are_refused(name, found, tmp_path):
    """For mmdet's models, too, of which mmengine would leave such weights random."""
    cfg = small(name)
    checkpoint = saved(cfg, tmp_path)
    with pytest.raises(ValueError, match=rf'query_embedding.weight: \({found}, \d+\) in the checkpoint, \(17, '):
        mmdet_stable.load(cfg, checkpoint, 'cpu', cfg_options={'model.num_queries': 17})


def test_class_names_come_from_the_config_where_the_checkpoint_has_none(tmp_path):
    cfg = small('demo_digits.py')
    detector = mmdet_stable.load(cfg, saved(cfg, tmp_path, classes=False), 'cpu')
    assert tuple(detector.classes) == tuple('0123456789')


@pytest.mark.parametrize('name', ['demo_digits.py', 'mask_dino/stable_mask_dino_r50_12e.py'])
def test_supervision_takes_the_samples(name, tmp_path):
    supervision = pytest.importorskip('supervision')
    cfg = small(name)
    (sample,) = mmdet_stable.load(cfg, saved(cfg, tmp_path), 'cpu').predict(noise(), score_threshold=0.01)
    found = supervision.Detections.from_mmdetection(sample)
    assert len(found) == len(sample.pred_instances) > 0
    np.testing.assert_array_equal(found.xyxy, sample.pred_instances.bboxes.numpy())
    np.testing.assert_array_equal(found.class_id, sample.pred_instances.labels.numpy())
    if 'mask' in name:
        assert found.mask.shape == (len(found), 60, 90) and found.mask.dtype == bool
