"""Stable-MaskDINO on the command line: two processes, resuming, drawn masks, and the tools that look into it."""

import importlib
import json
import sys

import cv2
import numpy as np
import pytest
from mmdet.apis import DetInferencer
from pycocotools import mask as run_lengths

from tests.tools.command_line import free_port, options, run
from tests.utils import ROOT

CONFIG = ROOT / 'configs' / 'demo_digits_masks.py'


def mask_options(folder, **extra):
    return options(folder, encoder='model.neck.encoder', **extra)


@pytest.fixture(scope='module')
def trained(folder):
    """One epoch on two processes by dist_train.sh; half of the images have no objects."""
    annotations = folder / 'scenes' / 'annotations' / 'instances_half.json'
    content = json.loads(annotations.with_name('instances_train.json').read_text())
    content['annotations'] = [each for each in content['annotations'] if each['image_id'] % 2]
    annotations.write_text(json.dumps(content))
    work_dir = folder / 'masks'
    settings = {'train_dataloader.dataset.ann_file': annotations, 'train_dataloader.dataset.filter_cfg': None}
    command = ['tools/dist_train.sh', CONFIG, 2, '--work-dir', work_dir, *mask_options(folder, **settings)]
    return work_dir, run(*command, PORT=free_port())


def test_training_on_two_processes(trained):
    work_dir, output = trained
    assert (work_dir / 'epoch_1.pth').exists() and '[1][2/2]' in output
    assert 'coco/segm_mAP' in output and 'loss_dice' in output and 'nan' not in output


def test_resume_continues(trained, folder):
    work_dir, _ = trained
    two_epochs = mask_options(folder, **{'train_cfg.max_epochs': 2})
    output = run(sys.executable, 'tools/train.py', CONFIG, '--work-dir', work_dir, '--resume', *two_epochs)
    assert 'resumed epoch: 1' in output and '[2][4/4]' in output and (work_dir / 'epoch_2.pth').exists()


def test_inferencer_draws_masks(trained, folder, tmp_path):
    """Predictions carry run-lengths of the picture's size, and the picture is drawn upon."""
    work_dir, _ = trained
    picture = folder / 'scenes' / 'val' / '000001.png'
    inferencer = DetInferencer(
        str(work_dir / CONFIG.name), str(work_dir / 'epoch_1.pth'), device='cpu', show_progress=False
    )
    result = inferencer(str(picture), out_dir=str(tmp_path), no_save_pred=False, pred_score_thr=0.0)
    (found,) = result['predictions']
    image = cv2.imread(str(picture))
    masks = [run_lengths.decode(mask) for mask in found['masks']]
    assert len(masks) == len(found['bboxes']) > 0 and {mask.shape for mask in masks} == {image.shape[:2]}
    drawn = cv2.imread(str(tmp_path / 'vis' / picture.name))
    assert drawn.shape == image.shape and np.abs(drawn.astype(int) - image).max() > 0


@pytest.mark.parametrize('name', ['unstable_score', 'matching_trace'])
def test_matching_can_be_looked_at(name, trained, tmp_path, monkeypatch):
    work_dir, _ = trained
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    out = tmp_path / 'figure.png'
    extra = ['--index', '0'] if name == 'matching_trace' else ['--num-images', '2']
    importlib.import_module(name).main([str(work_dir), '--trust', '--out', str(out), *extra])
    assert cv2.imread(str(out)) is not None and out.with_suffix('.csv').read_text().count('\n') > 1


def test_report_has_mask_ap(trained, tmp_path, monkeypatch):
    work_dir, _ = trained
    monkeypatch.syspath_prepend(ROOT / 'tools' / 'analysis')
    out = tmp_path / 'report.html'
    importlib.import_module('report').main([str(work_dir), '--trust', '--num-images', '2', '--out', str(out)])
    text = out.read_text()
    assert '>mask AP<' in text
