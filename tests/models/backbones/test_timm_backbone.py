"""Models of timm as backbones: which features, whose weights, and what a config needs for them."""

import sys

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_stable.models.backbones import TimmBackbone
from mmdet_stable.training.backbones import find_backbone
from tests import timm_stand_in


@pytest.fixture(autouse=True)
def timm(monkeypatch):
    timm_stand_in.install(monkeypatch)


def built(settings, **changes):
    settings = {key: value for key, value in settings.items() if key != '_delete_'}
    return MODELS.build({**settings, **changes})


@pytest.mark.parametrize('name,settings', [('cnn', {}), ('swin', dict(dynamic_img_size=True))])
def test_features(name, settings):
    model = MODELS.build(dict(type='TimmBackbone', name=name, **settings)).train()
    assert model.channels == [9, 17, 33]
    features = model(torch.randn(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [(2, 9, 8, 12), (2, 17, 4, 6), (2, 33, 2, 3)]
    assert not model.model.norm.training and TimmBackbone(name, norm_eval=False).train().model.norm.training


def test_weights_are_loaded_when_a_training_begins():
    """And not when a trained detector is built, which then needs no download."""
    model = TimmBackbone('cnn')
    before = [p.clone() for p in model.parameters()]
    assert any((p != 0.125).any() for p in before)
    model.init_weights()
    assert all((p == 0.125).all() for p in model.parameters())
    model = TimmBackbone('cnn', pretrained=False)
    before = [p.clone() for p in model.parameters()]
    model.init_weights()
    assert all(old.equal(new) for old, new in zip(before, model.parameters()))


@pytest.mark.parametrize('name,patch', [('vit', 16), ('vit14', 14)])
def test_plain_vision_transformer(name, patch):
    """Its last map, without class and register tokens, for images of any whole number of patches."""
    model = TimmBackbone(name, strides=(patch,), dynamic_img_size=True)
    image = torch.randn(2, 3, 4 * patch, 6 * patch)
    (features,) = model(image)
    assert features.shape == (2, 8, 4, 6) and model.channels == [8]
    features.square().mean().backward()
    assert all(p.grad.any() for p in model.parameters())
    assert features.equal(model.model(image)[-1])
    with pytest.raises(ValueError, match=f'64 x 65 into patches of {patch} pixels; set .*pad_size_divisor={2 * patch}'):
        model(torch.randn(1, 3, 64, 65))


def test_settings_of_a_config():
    found = find_backbone('timm:cnn')
    assert found.name == 'timm:cnn' and found.pretrained and found.neck == dict(in_channels=[9, 17, 33])
    assert found.preprocessor == dict(mean=[127.5] * 3, std=[51.0] * 3)
    assert (found.layers, found.plain) == (0, False)
    assert built(found.settings).channels == [9, 17, 33]


def test_settings_of_a_model_that_is_made_for_one_size():
    found = find_backbone('timm:swin')
    assert found.settings['dynamic_img_size'] and found.preprocessor['pad_size_divisor'] == 32
    assert [f.shape[2:] for f in built(found.settings)(torch.randn(1, 3, 64, 96))] == [(8, 12), (4, 6), (2, 3)]


@pytest.mark.parametrize('name,patch', [('vit', 16), ('vit14', 14)])
def test_settings_of_a_plain_vision_transformer(name, patch):
    found = find_backbone(f'timm:{name}')
    assert found.plain and found.layers == 2 and found.preprocessor['pad_size_divisor'] == 2 * patch
    backbone, neck = built(found.settings), built(found.neck)
    levels = neck(backbone(torch.randn(1, 3, 4 * patch, 6 * patch)))
    assert [tuple(level.shape) for level in levels] == [(1, 256, 8, 12), (1, 256, 4, 6), (1, 256, 2, 3), (1, 256, 1, 2)]


@pytest.mark.parametrize(
    'name,problem',
    [
        ('dog', r'backbone=timm:dog: Unknown model \(dog\)'),
        ('beit', 'backbone=timm:beit does not take images of all sizes: Input height .* Detectors need that'),
        ('vit24', 'backbone=timm:vit24 has patches of 24 pixels; simple feature pyramids are known for 8, 14, 16, 32'),
    ],
)
def test_models_that_do_not_fit(name, problem):
    with pytest.raises(ValueError, match=problem):
        find_backbone(f'timm:{name}')


def test_strides_that_there_are_not():
    with pytest.raises(ValueError, match=r'features of strides 16, not of 8, 16, 32; take backbone.strides=\(16,\)'):
        TimmBackbone('vit')
    with pytest.raises(ValueError, match='features of strides 2, 4, 8, 16, 32, not of 64; convnext_tiny'):
        TimmBackbone('cnn', strides=(64,))


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match='pip install timm, which brings torchvision along'):
        TimmBackbone('cnn')
