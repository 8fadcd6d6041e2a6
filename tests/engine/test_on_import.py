"""What importing the package changes in the process, and that its docstring says so."""

import subprocess
import sys

import mmdet_stable
from mmdet_stable.engine import on_import
from mmdet_stable.weights.named import NAME
from tests.utils import ROOT

CODE = """
from mmengine.runner.checkpoint import CheckpointLoader
before = dict(CheckpointLoader._schemes)
import mmdet_stable
print(*sorted(name or 'file' for name, loader in CheckpointLoader._schemes.items() if before.get(name) != loader))
"""


def test_only_the_documented_loaders_are_replaced():
    result = subprocess.run([sys.executable, '-c', CODE], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    replaced = ['file', 'http://', 'https://', 'modelzoo://', 'torchvision://']
    added = ['efficientnet_lite0://', 'published://', NAME]
    assert result.stdout.split() == sorted([*replaced, *added])
    assert on_import.__name__ in mmdet_stable.__doc__
