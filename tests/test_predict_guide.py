"""The examples of docs/predict.md are executed as they stand, but for the names of models and pictures."""

import json
import re
import shlex

import cv2
import pytest

from mmdet_stable.__main__ import main
from mmdet_stable.datasets import write_digit_scenes
from tests.inference.models import noise, saved, small, write, write_config
from tests.utils import ROOT

PAGE = (ROOT / 'docs' / 'predict.md').read_text()


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A work dir of the page's name, a street, a folder of shots and a clip."""
    place = tmp_path_factory.mktemp('guide')
    cfg = small('demo_digits.py')
    cfg.val_dataloader.dataset.data_root = str(write_digit_scenes(place / 'scenes', num_train=1, num_val=2))
    run = place / 'work_dirs' / 'stable_dino_r50_12e'
    saved(cfg, run)
    write_config(cfg, run / 'stable_dino_r50_12e.py')
    write(place / 'street.jpg', noise())
    write(place / 'shots' / 'a.png', noise(seed=1))
    clip = cv2.VideoWriter(str(place / 'clip.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 5, (90, 60))
    for seed in range(2):
        clip.write(noise(seed=seed))
    clip.release()
    return place


def test_python(place, monkeypatch):
    monkeypatch.chdir(place)
    *blocks, supervision = re.findall(r'```python\n(.*?)```', PAGE, flags=re.S)
    namespace = {}
    for block in blocks:
        exec(block, namespace)
    assert len(namespace['samples']) == 2 and namespace['drawn'].shape == (60, 90, 3)
    pytest.importorskip('supervision')
    exec(supervision, namespace)
    assert len(namespace['found']) == len(namespace['samples'][0].pred_instances)


def test_commands(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    lines = re.findall(
        r'^python -m mmdet_stable (.*)$', ''.join(re.findall(r'```bash\n(.*?)```', PAGE, flags=re.S)), re.M
    )
    assert len(lines) == 2
    for line in lines:
        assert main(shlex.split(line)) == 0, capsys.readouterr()
    assert len(json.loads((place / 'found' / 'predictions.json').read_text())['images']) == 4
    assert (place / 'evaluation' / 'numbers.json').exists()


def test_every_option_of_the_page_exists(capsys):
    known = set()
    for command in ('predict', 'evaluate'):
        with pytest.raises(SystemExit):
            main([command, '--help'])
        known.update(re.findall(r'--[\w-]+', capsys.readouterr().out))
    assert set(re.findall(r'`(--[\w-]+)', PAGE)) <= known
