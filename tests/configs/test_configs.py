"""Every config builds, trains a step and predicts; each says in its first line what it is."""

import pytest
import torch
from mmengine.config import Config

from tests.utils import ROOT, build, samples, tiny_model_cfg

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_trains_and_predicts(path):
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ['mmdet_stable'] and cfg.randomness.seed == 60
    assert {hook.type for hook in cfg.default_hooks.values()} >= {'DatasetCheckHook', 'FineTuneClassesHook'}
    num_classes = cfg.model.bbox_head.num_classes
    model = build(tiny_model_cfg(str(path.relative_to(ROOT)), num_classes=num_classes)).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96), num_classes)
    losses = model.loss(images, batch)
    assert sum(losses.values()).isfinite()
    assert len(model.eval().predict(images, batch)[0].pred_instances) <= 15


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_first_line_explains(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith('# ') and len(first) > 40
