"""A stand-in for timm, which needs torchvision, and that the tests do not: small models with timm's interface.

``cnn`` and ``swin`` are hierarchical, the latter for images of one size unless ``dynamic_img_size``, and then of whole
patches; ``vit`` and ``vit14`` are plain vision transformers with a class and a register token, ``vit24`` has patches of
24 pixels, ``beit`` knows images of one size only.
"""

import enum
import sys
from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn

STRIDES = dict(cnn=(2, 4, 8, 16, 32), swin=(4, 8, 16, 32))
PATCHES = dict(vit=16, vit14=14, vit24=24, beit=16)
CONFIG = dict(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))


class Format(str, enum.Enum):
    NCHW = 'NCHW'
    NHWC = 'NHWC'


class Hierarchical(nn.Module):
    """What ``features_only`` returns of a model with several strides, in as far as it is used."""

    def __init__(self, name, dynamic_img_size=False):
        super().__init__()
        self.strides, self.output_fmt = STRIDES[name], Format.NHWC if name == 'swin' else Format.NCHW
        self.fixed = name == 'swin' and not dynamic_img_size
        self.patch = 4 if name == 'swin' else 1
        self.layers = nn.ModuleList(nn.Conv2d(3, stride + 1, stride, stride) for stride in self.strides)
        self.norm = nn.BatchNorm2d(3)
        self.feature_info = information(self.strides, [stride + 1 for stride in self.strides])
        self.default_cfg = CONFIG

    def forward(self, x):
        assert not self.fixed or x.shape[2:] == (224, 224), f'Input height ({x.shape[2]}) does not match model (224).'
        assert not x.shape[2] % self.patch and not x.shape[3] % self.patch, 'should be divisible by patch size'
        features = [layer(self.norm(x)) for layer in self.layers]
        return [f.permute(0, 2, 3, 1) for f in features] if self.output_fmt is Format.NHWC else features


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * channels)

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        return x + F.scaled_dot_product_attention(q, k, v)


class VisionTransformer(nn.Module):
    """The names of timm's parameters, two blocks of one head; registers before its children what timm does."""

    def __init__(self, patch, dynamic, channels=8):
        super().__init__()
        self.patch, self.dynamic, self.grid = patch, dynamic, 3
        self.cls_token = nn.Parameter(torch.randn(1, 1, channels))
        self.reg_token = nn.Parameter(torch.randn(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.randn(1, self.grid**2, channels))
        self.patch_embed = nn.Sequential(nn.Conv2d(3, channels, patch, patch))
        self.blocks = nn.Sequential(Block(channels), Block(channels))

    def forward(self, x):
        size = self.grid * self.patch
        if not self.dynamic:
            assert x.shape[2:] == (size, size), f'Input height ({x.shape[2]}) does not match model ({size}).'
        x = self.patch_embed(x)
        height, width = x.shape[2:]
        positions = self.pos_embed.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        positions = F.interpolate(positions, (height, width), mode='bilinear')
        x = (x + positions).flatten(2).transpose(1, 2)
        prefix = torch.cat((self.cls_token, self.reg_token), 1).expand(len(x), -1, -1)
        features, x = [], torch.cat((prefix, x), 1)
        for block in self.blocks:
            x = block(x)
            features.append(x[:, prefix.shape[1] :].transpose(1, 2).unflatten(2, (height, width)))
        return features


class FeatureGetter(nn.ModuleDict):
    """What ``features_only`` returns of a plain vision transformer: the maps of its last blocks."""

    def __init__(self, name, dynamic_img_size=False):
        super().__init__()
        self.model = VisionTransformer(PATCHES[name], dynamic_img_size)
        self.output_fmt, self.default_cfg = Format.NCHW, CONFIG
        self.feature_info = information([PATCHES[name]] * 2, [8] * 2)

    def forward(self, x):
        return self.model(x)


def information(strides, channels):
    return SimpleNamespace(reduction=lambda: list(strides), channels=lambda: list(channels))


def create_model(name, pretrained, features_only, **settings):
    assert features_only
    if name not in (*STRIDES, *PATCHES):
        raise RuntimeError(f'Unknown model ({name})')
    if settings and name in ('cnn', 'beit'):
        raise TypeError(f"__init__() got an unexpected keyword argument '{next(iter(settings))}'")
    model = (Hierarchical if name in STRIDES else FeatureGetter)(name, **settings)
    if pretrained:
        for param in model.parameters():
            nn.init.constant_(param, 0.125)
    return model


def install(monkeypatch):
    """Put the stand-in in timm's place for a test."""
    module = ModuleType('timm')
    module.create_model = create_model
    monkeypatch.setitem(sys.modules, 'timm', module)
