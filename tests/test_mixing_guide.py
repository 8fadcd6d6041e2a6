"""The examples of docs/mixing.md are executed as they stand."""

import ast
import inspect
import re

import pytest
import torch
from mmdet.registry import HOOKS, METRICS, MODELS, TASK_UTILS
from mmdet.visualization import DetLocalVisualizer
from mmengine.config import Config

from mmdet_stable.models.dense_heads.set_loss_head import SetLossHead
from mmdet_stable.models.detectors.one_to_many import OneToMany
from mmdet_stable.models.losses.position_supervised_loss import POSITION_TARGETS
from tests.utils import ROOT, build, samples, shrink

PAGE = (ROOT / 'docs' / 'mixing.md').read_text()
EXAMPLES = re.findall(r'```python\n(.*?)```', PAGE, flags=re.S)


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


def documented_settings():
    """(component, setting, default) of each row of the table of settings."""
    component = ''
    for row in PAGE.split('## Settings')[1].split('\n## ')[0].splitlines():
        cells = [cell.strip().strip('`') for cell in row.split('|')[1:4]]
        if len(cells) == 3 and cells[1] not in ('setting', '---'):
            component = cells[0] or component
            yield component, cells[1], cells[2]


def parameters(component):
    """The arguments of a component's constructor, by name."""
    others = {'Stable...Head': SetLossHead, 'one_to_many': OneToMany}
    found = others.get(component) or next(
        registry.get(component) for registry in (MODELS, TASK_UTILS, HOOKS, METRICS) if registry.get(component)
    )
    return inspect.signature(found).parameters


def test_settings_have_these_defaults():
    rows = list(documented_settings())
    assert len(rows) > 30
    for component, setting, default in rows:
        actual = parameters(component)[setting].default
        assert (inspect.Parameter.empty if default == 'needed' else ast.literal_eval(default)) == actual, setting


def test_every_setting_of_the_parts_is_in_the_table():
    rows = list(documented_settings())
    known = {'num_classes', 'embed_dims', 'use_sigmoid', 'reduction', 'eps', 'match_costs'}  # the detector's, mmdet's
    for component in ('PositionSupervisedLoss', 'StableHungarianAssigner', 'DNQueryGenerator', 'DenoisingNoiseHook'):
        listed = {setting for name, setting, _ in rows if name == component}
        assert set(parameters(component)) - known - {'sigmoid_eps'} == listed, component
    assert all(f"`'{name}'`" in PAGE for name in POSITION_TARGETS)
