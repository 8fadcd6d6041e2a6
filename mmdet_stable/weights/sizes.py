"""What weights in our names say about the model that they belong to, as settings of its config."""

import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from torch import Tensor

from .errors import WeightsError
from .families import ONE_TO_MANY, counts_of_ours, shares_heads

Weights = Mapping[str, Tensor]
Settings = Dict[str, Any]  # by dotted key of the config's model
RESNETS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
SWINS = {(96, 6): 't', (96, 18): 's', (128, 18): 'b', (192, 18): 'l'}  # channels, blocks of the third stage
PUBLISHED_WIDTH, PUBLISHED_HEADS = 256, 8
PRELU, RELU = dict(type='PReLU'), dict(type='ReLU', inplace=True)
DEFORMABLE = 'decoder.layers.0.cross_attn.sampling_offsets.weight'


def backbone_name(weights: Weights) -> str:
    """``'resnet'``, or ``'swin_t'``, ``'swin_s'`` and so on."""
    patches = weights.get('backbone.patch_embed.projection.weight')
    if patches is None:
        return 'resnet'
    return f'swin_{SWINS.get((len(patches), _swin(weights)["backbone.depths"][2]), "of another size")}'


def num_levels(weights: Weights) -> int:
    """Levels of features that the encoder takes."""
    counts = counts_of_ours(weights)
    return counts.scales + counts.extra


def structure_settings(weights: Weights, kind: str) -> Settings:
    """Which parts a detector has; these follow from names, whatever its size."""
    layers = counts_of_ours(weights).layers
    prelu = 'encoder.layers.0.ffn.layers.0.1.weight' in weights
    settings: Settings = {
        'neck.bias': _neck_bias(weights),
        'encoder.layer_cfg.ffn_cfg.act_cfg': PRELU if prelu else RELU,
        'decoder.layer_cfg.ffn_cfg.act_cfg': PRELU if prelu else RELU,
    }
    if kind in ('dab_detr', 'dn_detr'):
        settings['num_patterns'] = len(weights.get('patterns.weight', ()))
    if DEFORMABLE in weights:
        settings['as_two_stage'] = two_stage = f'bbox_head.cls_branches.{layers}.weight' in weights
        if kind == 'deformable_detr':
            settings['with_box_refine'] = two_stage or not shares_heads(weights)
            mixed = two_stage and 'query_embedding.weight' in weights
            settings['mixed_selection'] = settings['look_forward_twice'] = mixed
    return settings


def _neck_bias(weights: Weights) -> bool:
    """Whether the neck needs biases before its norms. Those that are all zero, as where we add them, do nothing."""
    biases = [tensor for name, tensor in weights.items() if re.fullmatch(r'neck\.\w+\.\d+\.conv\.bias', name)]
    return 'neck.convs.0.gn.weight' in weights and any(bias.any() for bias in biases)


def size_settings(weights: Weights, kind: str, heads: Optional[int] = None) -> Settings:
    """How large a detector is.

    Args:
        weights: in our names.
        kind: of detector.
        heads: of attention, where known; shapes do not show it.

    Raises:
        WeightsError: where the number of heads is needed and not known, or the backbone is of no known depth.
    """
    width = len(weights['encoder.layers.0.norms.0.weight'])
    if heads is None and width != PUBLISHED_WIDTH:
        raise WeightsError(
            f'the weights are {width} wide, not {PUBLISHED_WIDTH} as published ones, and shapes do not show the number '
            'of attention heads: give the CONFIG of this model'
        )
    heads = heads or PUBLISHED_HEADS
    settings = {**_backbone(weights), **transformer_settings(weights, width, heads, num_levels(weights))}
    if kind == 'h_deformable_detr':
        settings['one_to_many.num_queries'] = ONE_TO_MANY
    if 'query_embedding.weight' in weights:
        rows = len(weights['query_embedding.weight'])
        settings['num_queries'] = rows - (ONE_TO_MANY if kind == 'h_deformable_detr' else 0)
    shared = 'bbox_head.fc_cls.weight' in weights
    head = weights['bbox_head.fc_cls.weight' if shared else 'bbox_head.cls_branches.0.weight']
    settings['bbox_head.num_classes'] = len(head) - (kind == 'detr')  # which scores background, too
    return settings


def transformer_settings(weights: Weights, width: int, heads: int, levels: int) -> Settings:
    """Sizes of encoder, decoder and what must be as wide as they are."""
    settings: Settings = {'positional_encoding.num_feats': width // 2, 'bbox_head.embed_dims': width}
    for part in ('encoder', 'decoder'):
        attentions = ['self_attn'] if part == 'encoder' else ['self_attn', 'cross_attn']
        first = f'{part}.layers.0'
        settings[f'{part}.num_layers'] = _count(weights, rf'{part}\.layers\.(\d+)\.')
        settings[f'{part}.layer_cfg.ffn_cfg.embed_dims'] = width
        settings[f'{part}.layer_cfg.ffn_cfg.feedforward_channels'] = len(weights[f'{first}.ffn.layers.0.0.weight'])
        for attention in attentions:
            cfg = f'{part}.layer_cfg.{attention}_cfg'
            settings[f'{cfg}.embed_dims'], settings[f'{cfg}.num_heads'] = width, heads
            scores = weights.get(f'{first}.{attention}.attention_weights.weight')
            if scores is not None:
                settings[f'{cfg}.num_levels'] = levels
                settings[f'{cfg}.num_points'] = len(scores) // (heads * levels)
    if DEFORMABLE in weights:
        settings['num_feature_levels'] = levels
    return settings


def _backbone(weights: Weights) -> Settings:
    convs = [weights[f'neck.convs.{i}.conv.weight'] for i in range(counts_of_ours(weights).scales)]
    settings: Settings = {
        'neck.in_channels': [conv.shape[1] for conv in convs],
        'neck.out_channels': len(convs[0]),
        'neck.num_outs': num_levels(weights),
    }
    if backbone_name(weights) != 'resnet':
        return {**settings, **_swin(weights)}
    blocks = tuple(_count(weights, rf'backbone\.layer{stage}\.(\d+)\.') for stage in range(1, 5))
    bottleneck = 'backbone.layer1.0.conv3.weight' in weights
    if blocks not in RESNETS or (RESNETS[blocks] > 34) != bottleneck:
        raise WeightsError(
            f'the backbone has {blocks} blocks {"with" if bottleneck else "without"} bottleneck, as no ResNet known '
            f'here ({", ".join(map(str, RESNETS.values()))}), and is no Swin'
        )
    settings['backbone.depth'] = RESNETS[blocks]
    settings['backbone.base_channels'] = len(weights['backbone.conv1.weight'])
    settings['backbone.out_indices'] = tuple(range(4 - len(convs), 4))
    return settings


def _swin(weights: Weights) -> Settings:
    tables = {
        int(match[1]): tensor
        for name, tensor in weights.items()
        for match in [re.fullmatch(r'backbone\.stages\.(\d+)\.blocks\.0\..*relative_position_bias_table', name)]
        if match
    }
    window = (round(len(tables[0]) ** 0.5) + 1) // 2
    stages = range(len(tables))
    return {
        'backbone.type': 'SwinTransformer',
        'backbone.embed_dims': len(weights['backbone.patch_embed.projection.weight']),
        'backbone.depths': [_count(weights, rf'backbone\.stages\.{stage}\.blocks\.(\d+)\.') for stage in stages],
        'backbone.num_heads': [tables[stage].shape[1] for stage in stages],
        'backbone.window_size': window,
        'backbone.pretrain_img_size': 384 if window == 12 else 224,
        'backbone.out_indices': tuple(stage for stage in stages if f'backbone.norm{stage}.weight' in weights),
    }


def _count(names: Iterable[str], pattern: str) -> int:
    return max((int(match[1]) + 1 for match in map(re.compile(pattern).match, names) if match), default=0)


def different(settings: Settings, model: Mapping[str, Any]) -> List[Tuple[str, Any, Any]]:
    """Settings that a config's model does not have: (key, the config's value, the wanted one)."""
    result = []
    for key, wanted in settings.items():
        value = _looked_up(model, key)
        if isinstance(value, (list, tuple)) and isinstance(wanted, (list, tuple)):
            value, wanted_plain = list(value), list(wanted)
        else:
            wanted_plain = wanted
        if value != wanted_plain:
            result.append((key, value, wanted))
    return result


# What mmdet's and our classes take where a config does not say it.
DEFAULTS = {
    'neck.bias': False,
    'num_feature_levels': 4,
    'num_patterns': 0,
    'mixed_selection': False,
    'look_forward_twice': False,
    'with_box_refine': False,
    'as_two_stage': False,
    'backbone.base_channels': 64,
    'bbox_head.embed_dims': 256,
    'positional_encoding.offset': 0.0,
    'positional_encoding.temperature': 10000,
}
DEFAULTS_BY_LAST_KEY = {'num_levels': 4, 'num_points': 4, 'num_heads': 8, 'embed_dims': 256, 'act_cfg': RELU}


def _looked_up(model: Mapping[str, Any], key: str) -> Any:
    node: Any = model
    for part in key.split('.'):
        if not isinstance(node, Mapping) or part not in node:
            return DEFAULTS.get(key, DEFAULTS_BY_LAST_KEY.get(key.rsplit('.', 1)[-1]))
        node = node[part]
    if isinstance(node, Mapping):
        return {name: value for name, value in node.items() if name != '_scope_'}
    return node
