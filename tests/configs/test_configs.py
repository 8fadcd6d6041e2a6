"""Every config builds, trains a step and predicts; each says in its first line what it is."""

from functools import lru_cache

import pytest
import torch
from mmengine.config import Config

from tests.utils import ROOT, build, samples, tiny_model_cfg

CONFIGS = sorted(path for path in (ROOT / 'configs').rglob('*.py') if '_base_' not in path.parts)


load = lru_cache(maxsize=None)(Config.fromfile)


def tiny(path):
    """The model of a config with its own kind of backbone, number of scales and detector, as small as these allow."""
    cfg = load(path)
    backbone = cfg.model.backbone
    overrides = dict(neck=dict(in_channels=[8 * 2**stage for stage in backbone.out_indices]))
    if backbone.type == 'SwinTransformer':
        small = dict(embed_dims=8, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4, init_cfg=None)
        overrides['backbone'] = dict(backbone, _delete_=True, **small)
    width = 256 if cfg.model.type == 'DINO' else 32  # mmdet's DINO allows no other
    return tiny_model_cfg(
        str(path.relative_to(ROOT)),
        overrides,
        width=width,
        num_levels=cfg.model.neck.num_outs,
        num_classes=cfg.model.bbox_head.num_classes,
    )


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config_trains_and_predicts(path):
    cfg = load(path)
    assert cfg.custom_imports.imports == ['mmdet_stable'] and cfg.randomness.seed == 60
    assert {hook.type for hook in cfg.default_hooks.values()} >= {'DatasetCheckHook', 'FineTuneClassesHook'}
    num_classes = cfg.model.bbox_head.num_classes
    model = build(tiny(path)).train()
    images, batch = torch.randn(2, 3, 64, 96), samples((3, 1), (64, 96), num_classes)
    losses = model.loss(images, batch)
    sum(value.sum() for value in losses.values()).backward()
    assert sum(losses.values()).isfinite()
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)
    assert len(model.eval().predict(images, batch)[0].pred_instances) <= 15


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_first_line_explains(path):
    first = path.read_text().splitlines()[0]
    assert first.startswith('# ') and len(first) > 40


def test_all_rows_of_the_components_table_add_up():
    """PSL, PMC and fusion switched on one after another end at the config of the whole, and none at DINO with NMS."""
    model = {path.stem: load(path).model for path in CONFIGS}
    off, psl, both, whole = (model[stem] for stem in ('dino_nms', 'psl', 'psl_pmc', 'stable_dino_r50_12e'))
    assert (off.encoder.fusion, psl.encoder.fusion, both.encoder.fusion) == (None, None, None)
    assert model['dense_fusion'].encoder == whole.encoder and model['dense_fusion'].bbox_head == off.bbox_head
    assert model['pmc'].train_cfg == whole.train_cfg == both.train_cfg and model['pmc'].bbox_head == off.bbox_head
    assert psl.bbox_head == both.bbox_head == whole.bbox_head and psl.train_cfg == off.train_cfg
    dino = model['dino_r50_12e']
    assert dino.bbox_head.loss_cls == off.bbox_head.loss_cls
    assert dino.train_cfg.assigner.match_costs == off.train_cfg.assigner.match_costs
    assert dino.positional_encoding == off.positional_encoding == whole.positional_encoding


def test_swin_l_has_imagenet_22k_weights_of_its_own():
    for path in CONFIGS:
        backbone = load(path).model.backbone
        if 'swin_l' in path.stem:
            assert backbone.init_cfg.checkpoint.endswith('swin_large_patch4_window12_384_22k.pth')
        elif path.stem != 'demo_digits':
            assert backbone.init_cfg.checkpoint == 'torchvision://resnet50'


def test_schedules():
    """The learning rate drops, and training ends, when the file name and the first line say."""
    drops = {'12e': [11], '24e': [20], '36e': [30], '26e': [24], '18e': [15]}
    for path in CONFIGS:
        cfg = load(path)
        epochs = path.stem.split('_')[-1] if path.stem[-1] == 'e' and path.stem[-2].isdigit() else '12e'
        if path.stem == 'demo_digits':
            continue
        (scheduler,) = cfg.param_scheduler
        assert f'{cfg.train_cfg.max_epochs}e' == f'{scheduler.end}e' == epochs, path
        assert scheduler.milestones == ([27, 33] if path.stem == 'dino_swin_l_36e' else drops[epochs])
