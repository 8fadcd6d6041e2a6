"""The commands of README and docs/own_data.md are read as they stand, and the first one runs."""

import argparse
import re
import shlex

import pytest

from mmdet_stable.__main__ import main
from mmdet_stable.commands import train
from mmdet_stable.training.backbones import BACKBONES, Backbone
from mmdet_stable.training.plan import SIZES
from tests.datasets.layouts import coco_scenes
from tests.training.test_plan import plan
from tests.training.test_train import options
from tests.utils import ROOT

PAGE = (ROOT / 'docs' / 'own_data.md').read_text()
COMMANDS = [
    shlex.split(line, comments=True)[4:]
    for text in (PAGE, (ROOT / 'README.md').read_text())
    for line in re.findall(r'^python -m mmdet_stable train .*', text, flags=re.M)
]


@pytest.fixture(scope='module')
def parser():
    parser = argparse.ArgumentParser()
    train.add_arguments(parser)
    return parser


def test_commands_are_read(parser):
    assert len(COMMANDS) == 2
    for words in COMMANDS:
        assert parser.parse_args(words).data == ['data/bccd']


def test_every_option_is_documented(parser):
    known = {option for action in parser._actions for option in action.option_strings if option.startswith('--')}
    assert known - {'--help'} == set(re.findall(r'--[a-z][a-z-]+', PAGE))
    assert all(f'`{name}`' in PAGE for name in (*SIZES, *BACKBONES))


def test_every_line_of_the_plan_is_documented(monkeypatch):
    monkeypatch.setitem(BACKBONES, 'vit', Backbone('vit', layers=12, plain=True))
    decisions = plan(average='ema', backbone='vit').decisions
    table = re.findall(r'^\| ([a-z ]+) \| .*`--', PAGE, flags=re.M)
    assert sorted(table) == sorted(decisions)


def test_the_command_runs(tmp_path, monkeypatch, capsys):
    """On digit scenes, of which one epoch is trained by a small model."""
    coco_scenes(tmp_path / 'data' / 'bccd', num_train=3, num_val=2)
    monkeypatch.chdir(tmp_path)
    small = options(**{'train_cfg.max_epochs': 1})
    assert main(['train', *COMMANDS[0], *small]) == 0
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob('*') if path.is_file()}
    for name in ('setup/bccd.py', 'setup/samples.jpg', 'best_coco_bbox_mAP_epoch_1.pth', 'epoch_1.pth', 'report.html'):
        assert f'work_dirs/bccd/{name}' in written, capsys.readouterr()
