"""Calls of the tools, as a user types them, on tiny data with a tiny model."""

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.utils import ROOT

CONFIG = ROOT / 'configs' / 'demo_digits.py'
ENVIRONMENT = {
    **os.environ,
    'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}',  # the shell scripts call "python"
    'OMP_NUM_THREADS': '1',
}


def options(folder, encoder='model.encoder', **extra):
    """--cfg-options for the tiny data, a tiny model, and one epoch of two iterations."""
    annotations = f'{folder}/scenes/annotations/instances_val.json'
    settings = {
        **{f'{split}_dataloader.dataset.data_root': f'{folder}/scenes' for split in ('train', 'val', 'test')},
        **{f'{split}_dataloader.num_workers': 0 for split in ('train', 'val', 'test')},
        **{f'{split}_dataloader.persistent_workers': False for split in ('train', 'val', 'test')},
        'val_evaluator.ann_file': annotations,
        'test_evaluator.ann_file': annotations,
        'train_dataloader.batch_size': 2,
        'model.decoder.num_layers': 1,
        f'{encoder}.num_layers': 1,
        'train_cfg.max_epochs': 1,
        'train_cfg.val_interval': 1,
        'default_hooks.checkpoint.max_keep_ckpts': 3,
        **extra,
    }
    return ['--cfg-options', *(f'{key}={value}' for key, value in settings.items())]


def run(*command, cwd=ROOT, check=True, **environment):
    result = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert not check or result.returncode == 0, result.stdout[-3000:]
    return result.stdout


def free_port():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return str(sock.getsockname()[1])
