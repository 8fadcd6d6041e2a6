"""Models of timm as backbones; a stand-in has its place, as it needs torchvision, which the tests do not."""

import enum
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

from mmdet_stable.models.backbones import TimmBackbone
from mmdet_stable.training.backbones import find_backbone

STRIDES = dict(cnn=(2, 4, 8, 16, 32), swin=(4, 8, 16, 32), vit=(16, 16, 16))


class Format(str, enum.Enum):
    NCHW = 'NCHW'
    NHWC = 'NHWC'


class Features(nn.Module):
    """What ``timm.create_model(name, features_only=True)`` returns, in as far as it is used."""

    def __init__(self, name):
        super().__init__()
        self.strides, self.output_fmt = STRIDES[name], Format.NHWC if name == 'swin' else Format.NCHW
        self.layers = nn.ModuleList(nn.Conv2d(3, stride + 1, stride, stride) for stride in self.strides)
        self.norm = nn.BatchNorm2d(3)
        self.feature_info = SimpleNamespace(
            reduction=lambda: list(self.strides), channels=lambda: [stride + 1 for stride in self.strides]
        )
        self.default_cfg = dict(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))

    def forward(self, x):
        features = [layer(self.norm(x)) for layer in self.layers]
        return [f.permute(0, 2, 3, 1) for f in features] if self.output_fmt is Format.NHWC else features


def create_model(name, pretrained, features_only):
    assert features_only
    if name not in STRIDES:
        raise RuntimeError(f'Unknown model ({name})')
    model = Features(name)
    model.pretrained = pretrained
    return model


@pytest.fixture(autouse=True)
def timm(monkeypatch):
    module = ModuleType('timm')
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, 'timm', module)


@pytest.mark.parametrize('name', ['cnn', 'swin'])
def test_features(name):
    model = MODELS.build(dict(type='TimmBackbone', name=name)).train()
    assert model.model.pretrained and model.channels == [9, 17, 33]
    before = [p.clone() for p in model.parameters()]
    model.init_weights()
    assert all(old.equal(new) for old, new in zip(before, model.parameters()))
    features = model(torch.randn(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [(2, 9, 8, 12), (2, 17, 4, 6), (2, 33, 2, 3)]
    assert not model.model.norm.training and TimmBackbone(name, norm_eval=False).train().model.norm.training


def test_settings_of_a_config():
    found = find_backbone('timm:cnn')
    assert found.name == 'timm:cnn' and found.pretrained and found.neck == dict(in_channels=[9, 17, 33])
    assert found.preprocessor == dict(mean=[127.5] * 3, std=[51.0] * 3)
    settings = {key: value for key, value in found.settings.items() if key != '_delete_'}
    assert MODELS.build(settings).channels == [9, 17, 33]


def test_models_that_do_not_fit():
    for build in (TimmBackbone, lambda name: find_backbone(f'timm:{name}')):
        with pytest.raises(ValueError, match='timm:vit has features of strides 16; 8, 16, 32 are needed'):
            build('vit')
    with pytest.raises(ValueError, match=r'backbone=timm:dog: Unknown model \(dog\)'):
        find_backbone('timm:dog')


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ImportError, match='pip install timm, which brings torchvision along'):
        TimmBackbone('cnn')
