"""Files of random weights as published ones come, the tiny models they belong to, and how to compare outputs."""

import gzip
import json
from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from torch import Tensor, nn

from tests.utils import GOLDEN, ROOT, STABLE_DINO

FILES = GOLDEN / 'weights'
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def tiny_config(file: str) -> Config:
    """A config of this package, made as small as the models that the files were recorded from."""
    dn_detr = 'dn_detr' in file
    cfg = Config.fromfile(ROOT / ('configs/dn_detr/dn_detr_r50_50e.py' if dn_detr else STABLE_DINO))
    attention = dict(embed_dims=32, num_heads=2)
    points = dict(attention, num_levels=4, num_points=2 if file.startswith('official_dino') else 4)
    ffn = dict(embed_dims=32, feedforward_channels=16)
    model = dict(
        num_queries=20,
        backbone=dict(depth=18, base_channels=1, init_cfg=None),
        neck=dict(in_channels=[8] if dn_detr else [2, 4, 8], out_channels=32),
        encoder=dict(
            num_layers=2 if dn_detr else 1, layer_cfg=dict(self_attn_cfg=attention if dn_detr else points, ffn_cfg=ffn)
        ),
        decoder=dict(
            num_layers=2,
            layer_cfg=dict(self_attn_cfg=attention, cross_attn_cfg=attention if dn_detr else points, ffn_cfg=ffn),
        ),
        positional_encoding=dict(num_feats=16),
        bbox_head=dict(num_classes=15 if file.startswith('detrex') else 80, embed_dims=32),
    )
    if file.startswith('official_dino'):
        model['encoder']['fusion'] = None
    cfg.merge_from_dict(dict(model=model))
    return cfg


def raw_outputs(model: nn.Module, image: np.ndarray) -> Tuple[Tensor, Tensor]:
    """Logits (1, Q, C) and boxes (1, Q, 4) of the last decoder layer, for an RGB image (3, H, W)."""
    pixels = (torch.from_numpy(image).float() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    shape = image.shape[1:]
    sample = DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape))
    with torch.no_grad():
        logits, boxes = model.eval()(pixels[None], [sample], mode='tensor')[:2]
    return logits[-1], boxes[-1]


def manifests() -> Dict[str, Dict[str, Any]]:
    """Names and shapes of published models, and which names are one tensor: name of the model -> names, groups."""
    content: Dict[str, Any] = json.loads(gzip.decompress((GOLDEN / 'published_names.json.gz').read_bytes()))
    return content


def weights_of(manifest: Dict[str, Any]) -> Dict[str, Tensor]:
    """Weights of a manifest that take no memory: each tensor has one value of its own."""
    first: Dict[str, str] = {name: names[0] for names in manifest['second_names'] for name in names}
    place: Dict[str, int] = {name: index for index, name in enumerate(manifest['names'])}
    return {
        name: torch.full([1] * len(shape), 1.0 + place[first.get(name, name)]).expand(shape)
        for name, shape in manifest['names'].items()
    }


def names_of(manifest: Dict[str, Any]) -> List[str]:
    return list(manifest['names'])
