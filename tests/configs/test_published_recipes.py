"""Every published config has the settings of the published code, in the file and in what is built from it."""

import copy

import mmengine
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_stable.evaluation import flatten
from tests.utils import ROOT, build, shrink

CONFIGS = ROOT / 'configs'
RECIPES = mmengine.load(ROOT / 'tests' / 'configs' / 'published_recipes.yml')['recipes']
CASES = {config: (settings, recipe) for recipe in RECIPES for config, settings in recipe['configs'].items()}


def small(cfg):
    """The model of a config as small as tests need it, with what freezes its backbone left as it is."""
    model = copy.deepcopy(cfg.model)
    kept = {key: model.backbone[key] for key in ('frozen_stages', 'norm_cfg', 'norm_eval') if key in model.backbone}
    kept = copy.deepcopy(kept)
    model.bbox_head.embed_dims = 256
    shrink(model, width=256 if model.type in ('DINO', 'DeformableDETR') else 32)  # mmdet's allow no other
    model.backbone.update(kept)
    if model.backbone.type == 'SwinTransformer':
        model.backbone.depths = [1, 1, 2, 1]
    return build(model).train()


def kind(name, module):
    """Which entry of a recipe's ``parameters`` is about a parameter."""
    is_norm = isinstance(module, (nn.LayerNorm, nn.GroupNorm, nn.BatchNorm2d, nn.SyncBatchNorm))
    if name.startswith('backbone.'):
        return 'backbone_norms' if is_norm else 'backbone'
    if 'sampling_offsets' in name or 'reference_points' in name:
        return 'offsets'
    if isinstance(module, nn.Embedding):
        return 'embeddings'
    return 'norms' if is_norm else 'rest'


def test_every_flagship_has_a_recipe():
    names = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob('*.py')}
    names = {name for name in names if not name.startswith(('_base_', 'ablations', 'demo_'))}
    assert set(CASES) == {name for name in names if 'objects365' not in name} | {'ablations/table6/dino_nms.py'}


@pytest.mark.parametrize('config', CASES)
def test_settings(config):
    expected, _ = CASES[config]
    found = dict(flatten(Config.fromfile(CONFIGS / config).to_dict()))
    pairs = {name: (value, found.get(name, 'not set')) for name, value in flatten(expected)}
    assert not {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}  # published, ours


@pytest.mark.parametrize('config', CASES)
def test_what_is_built(config):
    """Above all the optimiser: mmengine's options for parameters go by the longest key that matches, and no other."""
    _, recipe = CASES[config]
    cfg = Config.fromfile(CONFIGS / config)
    model = small(cfg)

    optimizer = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper)).optimizer
    assert isinstance(optimizer, torch.optim.AdamW)
    rates = {id(p): (group['lr'], group['weight_decay']) for group in optimizer.param_groups for p in group['params']}
    kinds = set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.requires_grad:
                found = kind(name, module)
                found = 'rest' if found == 'embeddings' and found not in recipe['parameters'] else found
                kinds.add(found)
                assert rates[id(parameter)] == pytest.approx(recipe['parameters'][found]), name
    assert kinds == set(recipe['parameters'])

    learning = {name: any(p.requires_grad for p in part.parameters()) for name, part in model.backbone.named_children()}
    with_parameters = {name.split('.')[0] for name, _ in model.backbone.named_parameters()}
    assert {name for name in with_parameters if not learning[name]} == set(recipe['frozen'])

    dropout = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    dropout += [m.dropout for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    assert max(dropout) == recipe['dropout']

    if recipe.get('class_prior', 0.01) is None:
        return
    head = model.bbox_head
    for branch in head.cls_branches if hasattr(head, 'cls_branches') else [head.fc_cls]:
        torch.testing.assert_close(branch.bias.sigmoid(), torch.full_like(branch.bias, 0.01))  # the focal loss' prior
