"""The examples of CONTRIBUTING.md are executed as they stand, in a training step."""

import re

import pytest
import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict

from mmdet_stable.models.task_modules.match_costs import has_batched_form
from tests.utils import ROOT, build, samples, tiny_model_cfg

EXAMPLES = re.findall(r'```python\n(.*?)```', (ROOT / 'CONTRIBUTING.md').read_text(), flags=re.S)
NAMES = ['MissedOverlapCost', 'SteepPositionLoss', 'MeanMemoryFusion', 'SharedContentDINO']


@pytest.fixture(autouse=True)
def registries():
    """What an example registers is gone after it."""
    yield
    for registry in (MODELS, TASK_UTILS):
        for name in NAMES:
            registry.module_dict.pop(name, None)


@pytest.mark.parametrize('text, name', zip(EXAMPLES, NAMES), ids=NAMES)
def test_example_trains_and_predicts(text, name):
    assert f'class {name}(' in text
    scope = {}
    exec(compile(text, 'CONTRIBUTING.md', 'exec'), scope)
    model = build(ConfigDict(Config._merge_a_into_b(scope['model'], tiny_model_cfg()))).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((2, 1), (64, 96))
    total, _ = model.parse_losses(model.loss(images, batch))
    total.backward()
    assert total.isfinite()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert len(model.eval().predict(images, batch)) == 2
    if name == 'MissedOverlapCost':
        assert has_batched_form(model.bbox_head.assigner.match_costs[2])


def test_every_example_is_tested():
    assert len(EXAMPLES) == len(NAMES)
