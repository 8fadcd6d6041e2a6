"""The examples of docs/mixing.md are executed as they stand."""

import re

import pytest
import torch
from mmdet.registry import HOOKS
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config

from tests.utils import ROOT, build, samples, shrink

EXAMPLES = re.findall(r'```python\n(.*?)```', (ROOT / 'docs' / 'mixing.md').read_text(), flags=re.S)


def test_there_are_five_examples():
    assert len(EXAMPLES) == 5


@pytest.mark.parametrize('text', EXAMPLES, ids=['cost', 'loss_and_cost', 'denoising', 'fusion', 'hooks'])
def test_example_trains_and_predicts(text, tmp_path):
    path = tmp_path / 'example.py'
    path.write_text(text)
    cfg = Config.fromfile(path)
    DetLocalVisualizer.get_instance('guide')  # as the Runner has one when it builds hooks
    for hook in cfg.default_hooks.values():
        HOOKS.build(hook)
    cfg = cfg.model
    shrink(cfg, width=256)  # hard-coded in mmdet's detectors
    model = build(cfg).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((2, 1), (64, 96))
    losses = model.loss(images, batch)
    assert ('d0.dn_loss_cls' in losses) == (cfg.type in ('DNConditionalDETR', 'DINO'))
    total, _ = model.parse_losses(losses)
    total.backward()
    assert total.isfinite()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert len(model.eval().predict(images, batch)) == 2
