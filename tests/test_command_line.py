"""`python -m mmdet_stable COMMAND`, where users stop it, or stop reading."""

import subprocess
import sys

import mmdet_stable.training
from mmdet_stable.__main__ import main
from tests.utils import ROOT


def stop(*args, **kwargs):
    raise KeyboardInterrupt


def test_a_stopped_training_says_how_to_go_on(monkeypatch, capsys):
    monkeypatch.setattr(mmdet_stable.training, 'train', stop)
    assert main(['train', 'data']) == 130
    assert capsys.readouterr().err.split('\n')[1:] == [
        'The same command with --resume goes on from the last checkpoint.',
        'stopped',
        '',
    ]


def test_whoever_reads_may_have_enough():
    """As `head`, which closes the pipe before all is written."""
    command = [sys.executable, '-m', 'mmdet_stable', 'weights']
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 1 and errors == ''
