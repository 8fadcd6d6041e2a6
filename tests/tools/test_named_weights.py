"""The tools take names of published weights where they take checkpoints."""

import json
import sys

import torch
from mmengine.config import Config

from mmdet_stable.weights.configs import text_of
from mmdet_stable.weights.named import VERSION, named_weights
from tests.tools.command_line import CONFIG, options, run
from tests.utils import build

NAME = 'dino-r50-12e'


def test_names_in_the_tools(folder, tmp_path):
    """A demo model lies where the converted weights would, so that nothing is downloaded."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.encoder.num_layers = cfg.model.decoder.num_layers = 1
    kept = tmp_path / 'hub' / 'mmdet_stable'
    kept.mkdir(parents=True)
    (kept / f'{NAME}.py').write_text(text_of(cfg))
    torch.save(dict(state_dict=build(cfg.model).state_dict(), meta={}), kept / f'{NAME}.pth')
    record = dict(version=VERSION, source=named_weights()[NAME].source, sha256='')
    (kept / f'{NAME}.json').write_text(json.dumps(record))

    here = dict(TORCH_HOME=str(tmp_path))
    found = run(sys.executable, '-m', 'mmdet_stable', 'weights', NAME, **here).split()
    assert found == [str(kept / f'{NAME}.py'), str(kept / f'{NAME}.pth')]
    arguments = ['--work-dir', tmp_path / 'work', *options(folder)]
    output = run(sys.executable, 'tools/test.py', CONFIG, NAME, *arguments, **here)
    assert f'{NAME} computes what was published with the config {found[0]}' in output and 'bbox_mAP' in output
