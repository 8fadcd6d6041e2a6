"""Golden values of MaskDINO: its parts, with the weights recorded from the reference implementation."""

import json
import re
from typing import Dict, List

import numpy as np
from torch import Tensor, nn

from mmdet_stable.models.layers import MaskDINOPixelDecoder
from tests.utils import GOLDEN, tensor

PARTS = dict(pixel_decoder='pixel_decoder.', predictor='predictor.')


def meta_of(data: Dict[str, np.ndarray]) -> dict:
    return json.loads(str(data['meta']))


def reference_state(data: Dict[str, np.ndarray], part: str) -> Dict[str, Tensor]:
    """The weights of ``'pixel_decoder'`` or ``'predictor'`` (all that is not pixel decoder) under our names."""
    keymap = json.loads((GOLDEN / 'keymap_maskdino_to_mmdet.json').read_text())['map']
    state = {}
    for key, value in data.items():
        name = key[3:]
        if key.startswith('sd.') and name.startswith(PARTS[part]):
            layer = re.search(r'\.layers\.(\d+)\.', name)
            if name not in keymap and layer:  # all layers are named alike
                name = name.replace(layer[0], '.layers.0.')
                state[keymap[name].replace('layers.0.', f'layers.{layer[1]}.', 1)] = tensor(value)
            elif name in keymap:
                state[keymap[name]] = tensor(value)
    return state


def load(module: nn.Module, state: Dict[str, Tensor], prefix: str = '') -> nn.Module:
    """Load what is called ``prefix...``; nothing may be missing."""
    own = {name: state[prefix + name] for name in module.state_dict()}
    module.load_state_dict(own)
    return module


def maps_of(data: Dict[str, np.ndarray]) -> List[Tensor]:
    return [tensor(data[f'feats.res{stage}']) for stage in (2, 3, 4, 5)]


def deformable(meta: dict) -> dict:
    return dict(embed_dims=meta['hidden_dim'], num_heads=meta['heads'], num_levels=meta['total_levels'])


def pixel_decoder(data: Dict[str, np.ndarray], **overrides) -> MaskDINOPixelDecoder:
    """The pixel decoder of a golden file, with its weights."""
    meta = meta_of(data)
    settings = dict(
        in_channels=[data[f'feats.res{stage}'].shape[1] for stage in (2, 3, 4, 5)],
        feat_channels=meta['hidden_dim'],
        out_channels=meta['mask_dim'],
        num_levels=meta['total_levels'],
        num_encoder_inputs=len(meta.get('in_features', ['res3', 'res4', 'res5'])),
        level_order=meta.get('feature_order', 'low2high'),
        encoder=dict(
            num_layers=meta['enc_layers'],
            layer_cfg=dict(
                self_attn_cfg=dict(deformable(meta), dropout=0.0),
                ffn_cfg=dict(embed_dims=meta['hidden_dim'], feedforward_channels=meta['ff'], ffn_drop=0.0),
            ),
        ),
    )
    return load(MaskDINOPixelDecoder(**{**settings, **overrides}), reference_state(data, 'pixel_decoder')).eval()
