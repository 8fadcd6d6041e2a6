"""Rates that fall layer by layer: every parameter's rate and weight decay, against values found by hand."""

import pytest
import torch
from mmdet.models.backbones import SwinTransformer
from mmengine.optim import build_optim_wrapper
from torch import nn

from mmdet_stable.engine.layer_decay import layers_of
from tests.timm_stand_in import FeatureGetter

LR, DECAY = 1e-3, 0.05
BLOCK = {'norm.weight': 0.0, 'norm.bias': 0.0, 'qkv.weight': DECAY, 'qkv.bias': 0.0}


class Detector(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(8, 2)
        self.norm = nn.LayerNorm(8)


def optimizer(model, lr=LR, weight_decay=DECAY, **paramwise):
    settings = dict(
        type='OptimWrapper',
        constructor='LayerDecayOptimWrapperConstructor',
        optimizer=dict(type='AdamW', lr=lr, weight_decay=weight_decay),
        paramwise_cfg=paramwise,
    )
    return build_optim_wrapper(model, settings).optimizer


def settings_of(model, **options):
    """Rate and weight decay of every parameter, by name."""
    names = {id(param): name for name, param in model.named_parameters()}
    groups = optimizer(model, **options).param_groups
    found = [(names[id(param)], (group['lr'], group['weight_decay'])) for group in groups for param in group['params']]
    assert len(found) == len(dict(found))
    return dict(found)


def test_every_parameter_of_a_vision_transformer():
    """Two layers and 0.5: an eighth for what comes before them, a quarter, a half; the rest of the detector in full."""
    model = Detector(FeatureGetter('vit'))
    expected = {
        'backbone.model.cls_token': (LR / 8, 0.0),
        'backbone.model.reg_token': (LR / 8, 0.0),
        'backbone.model.pos_embed': (LR / 8, 0.0),
        'backbone.model.patch_embed.0.weight': (LR / 8, DECAY),
        'backbone.model.patch_embed.0.bias': (LR / 8, 0.0),
        **{f'backbone.model.blocks.0.{name}': (LR / 4, decay) for name, decay in BLOCK.items()},
        **{f'backbone.model.blocks.1.{name}': (LR / 2, decay) for name, decay in BLOCK.items()},
        'head.weight': (LR, DECAY),
        'head.bias': (LR, DECAY),
        'norm.weight': (LR, DECAY),
        'norm.bias': (LR, DECAY),
    }
    found = settings_of(model, layer_decay_rate=0.5, num_layers=2)
    assert found.keys() == expected.keys()
    for name, (lr, decay) in expected.items():
        assert found[name] == (pytest.approx(lr), decay), name


def test_other_options_go_on():
    """Rates multiply, and what is outside of the backbone is mmengine's alone."""
    keys = dict(backbone=dict(lr_mult=0.1), head=dict(lr_mult=3.0))
    found = settings_of(Detector(FeatureGetter('vit')), layer_decay_rate=0.5, custom_keys=keys, norm_decay_mult=0.0)
    assert found['backbone.model.blocks.1.qkv.weight'] == (pytest.approx(0.1 * LR / 2), DECAY)
    assert found['backbone.model.pos_embed'] == (pytest.approx(0.1 * LR / 8), 0.0)
    assert found['head.weight'] == (pytest.approx(3 * LR), DECAY)
    assert found['norm.weight'] == (LR, 0.0)


def test_frozen_parameters_are_left_out():
    model = Detector(FeatureGetter('vit'))
    model.backbone.model.blocks[0].requires_grad_(False)
    found = settings_of(model, layer_decay_rate=0.5)
    assert not any('blocks.0' in name for name in found) and found['backbone.model.blocks.1.norm.bias'][0] == LR / 2


def test_no_decay_of_rates():
    found = settings_of(Detector(FeatureGetter('vit')), layer_decay_rate=1)
    assert {lr for lr, _ in found.values()} == {LR}


def test_a_step_moves_parameters_by_their_rates():
    """AdamW's first step moves each by its rate, whatever the gradient."""
    model = Detector(FeatureGetter('vit', dynamic_img_size=True))
    first, last = model.backbone.model.pos_embed, model.backbone.model.blocks[1].qkv.bias
    adam = optimizer(model, weight_decay=0.0, layer_decay_rate=0.5)
    before = first.clone(), last.clone()
    sum((param * torch.randn_like(param)).sum() for param in model.parameters()).backward()
    adam.step()
    assert (first - before[0]).abs().max().item() == pytest.approx(LR / 8, rel=1e-3)
    assert (last - before[1]).abs().max().item() == pytest.approx(LR / 2, rel=1e-3)


def test_swin():
    """Two blocks in each of two stages; merging patches belongs to the stage before, norms of outputs come last."""
    swin = SwinTransformer(
        embed_dims=8, depths=(2, 2), num_heads=(2, 2), strides=(4, 2), out_indices=(0, 1), use_abs_pos_embed=True
    )
    layers, number = layers_of(swin)
    assert number == 4
    expected = dict(absolute_pos_embed=0, patch_embed=0, norm0=5, norm1=5)
    expected.update({f'stages.{n // 2}.blocks.{n % 2}': n + 1 for n in range(4)}, **{'stages.0.downsample': 2})
    for name, layer in layers.items():
        assert [number for start, number in expected.items() if name.startswith(start)] == [layer], name
    found = settings_of(Detector(swin), layer_decay_rate=0.5)
    table = 'attn.w_msa.relative_position_bias_table'
    assert found[f'backbone.stages.0.blocks.0.{table}'] == (LR / 16, 0.0)
    assert found['backbone.absolute_pos_embed'] == (LR / 32, 0.0) and found['backbone.norm1.weight'] == (LR, 0.0)
    assert found['backbone.stages.0.downsample.reduction.weight'] == (LR / 8, DECAY)


@pytest.mark.parametrize('rate', [0, -0.5, 1.1, None, '0.7', True, float('nan')])
def test_wrong_rates(rate):
    with pytest.raises(ValueError, match=r'paramwise_cfg.layer_decay_rate=.* must be above 0 and at most 1'):
        optimizer(Detector(FeatureGetter('vit')), layer_decay_rate=rate)


def test_models_that_do_not_fit():
    vit = Detector(FeatureGetter('vit'))
    with pytest.raises(ValueError, match=r'num_layers=12: FeatureGetter has 2 layers; write that number, or leave it'):
        optimizer(vit, layer_decay_rate=0.7, num_layers=12)
    with pytest.raises(ValueError, match=r'Sequential has no layers for optim_wrapper.paramwise_cfg.layer_decay_rate'):
        optimizer(Detector(nn.Sequential(nn.Linear(8, 8))), layer_decay_rate=0.7)
    with pytest.raises(ValueError, match=r'Linear has no backbone for optim_wrapper.paramwise_cfg.layer_decay_rate'):
        optimizer(nn.Linear(8, 8), layer_decay_rate=0.7)
    with pytest.raises(ValueError, match=r'optim_wrapper.optimizer.lr=None: .*needs a number'):
        optimizer(vit, lr=None, layer_decay_rate=0.7)
    with pytest.raises(ValueError, match='layer_decay_rate=None'):
        optimizer(vit)
