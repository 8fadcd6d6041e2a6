"""What weights in our names say about the model that they belong to, as settings of its config."""

import itertools
import re
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from torch import Tensor

from .errors import WeightsError
from .families import counts_of_ours, num_classes, shares_heads

Weights = Mapping[str, Tensor]
Settings = Dict[str, Any]  # by dotted key of the config's model
RESNETS = {(2, 2, 2, 2): 18, (3, 4, 6, 3): 50, (3, 4, 23, 3): 101, (3, 8, 36, 3): 152}
SWINS = {(96, 6): 't', (96, 18): 's', (128, 18): 'b', (192, 18): 'l'}  # channels, blocks of the third stage
PUBLISHED_WIDTH, PUBLISHED_HEADS = 256, 8
PRELU, RELU = dict(type='PReLU'), dict(type='ReLU', inplace=True)
DEFORMABLE = 'decoder.layers.0.cross_attn.sampling_offsets.weight'
FOCAL_LOSS = dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=4.0)  # MaskDINO's


class Needed(Dict[str, Tensor]):
    """Weights of a file, which says what is missing where a size is asked for."""

    def __init__(self, weights: Weights, source: str) -> None:
        super().__init__(weights)
        self.source = source

    def __missing__(self, name: str) -> Tensor:
        raise WeightsError(f'{self.source} lacks {name}, which every detector of its kind has; nothing was written')


def backbone_name(weights: Weights) -> str:
    """``'resnet'``, or ``'swin_t'``, ``'swin_s'`` and so on."""
    patches = weights.get('backbone.patch_embed.projection.weight')
    if patches is None:
        return 'resnet'
    return f'swin_{SWINS.get((len(patches), _swin(weights)["backbone.depths"][2]), "of another size")}'


def num_levels(weights: Weights) -> int:
    """Levels of features that the encoder takes."""
    if is_mask_dino(weights):
        return len(_input_convs(weights))
    counts = counts_of_ours(weights)
    return counts.scales + counts.extra


def is_mask_dino(weights: Weights) -> bool:
    return 'neck.mask_feature.weight' in weights


def structure_settings(weights: Weights, kind: str) -> Settings:
    """Which parts a detector has; these follow from names, whatever its size."""
    if is_mask_dino(weights):
        return {'as_two_stage': 'memory_trans_fc.weight' in weights}
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


def size_settings(weights: Weights, kind: str, heads: Optional[int] = None, one_to_many: int = 0) -> Settings:
    """How large a detector is.

    Args:
        weights: in our names.
        kind: of detector.
        heads: of attention, where known; shapes do not show it.
        one_to_many: how many of the learned queries are for one-to-many matching.

    Raises:
        WeightsError: where the number of heads is needed and not known, or the backbone is of no known depth.
    """
    encoder = 'neck.encoder' if is_mask_dino(weights) else 'encoder'
    width = len(weights[f'{encoder}.layers.0.norms.0.weight'])
    if heads is None and width != PUBLISHED_WIDTH:
        raise WeightsError(
            f'the weights are {width} wide, not {PUBLISHED_WIDTH} as published ones, and shapes do not show the number '
            'of attention heads: give the CONFIG of this model'
        )
    heads = heads or PUBLISHED_HEADS
    if is_mask_dino(weights):
        outputs = {'backbone.out_indices': (0, 1, 2, 3)}
        return {**_backbone(weights), **outputs, **mask_dino_settings(weights, width, heads)}
    settings = {
        **_backbone(weights),
        **_neck(weights),
        **transformer_settings(weights, width, heads, num_levels(weights)),
    }
    if kind == 'h_deformable_detr':
        settings['one_to_many.num_queries'] = one_to_many
    if 'query_embedding.weight' in weights:
        settings['num_queries'] = len(weights['query_embedding.weight']) - one_to_many
    settings['bbox_head.num_classes'] = num_classes(weights, kind)
    return settings


def mask_dino_settings(weights: Weights, width: int, heads: int) -> Settings:
    """Sizes of a MaskDINO, but for its backbone's."""
    convs = _input_convs(weights)
    inputs = [conv.shape[1] for conv in convs if conv.shape[-1] == 1]
    finest = weights['neck.lateral_convs.0.conv.weight'].shape[1]
    settings: Settings = {
        'bbox_head.embed_dims': width,
        'bbox_head.mask_dims': len(weights['neck.mask_feature.weight']),
        'bbox_head.num_classes': num_classes(weights, 'mask_dino'),
        'neck.in_channels': [finest, *sorted(inputs)][-4:],
        'neck.feat_channels': width,
        'neck.out_channels': len(weights['neck.mask_feature.weight']),
        'neck.num_levels': len(convs),
        'neck.num_encoder_inputs': len(inputs),
    }
    if len(inputs) > 1:
        settings['neck.level_order'] = 'low2high' if inputs == sorted(inputs) else 'high2low'
    if 'query_feat.weight' in weights:
        settings['num_queries'] = len(weights['query_feat.weight'])
    for part in ('neck.encoder', 'decoder'):
        settings.update(_coder(weights, part, width, heads, len(convs)))
    return settings


def scores_background(weights: Weights) -> bool:
    """Whether a MaskDINO's classes are scored by a softmax, with background as one more."""
    return len(weights['bbox_head.predictor.cls.weight']) > num_classes(weights, 'mask_dino')


def class_loss(weights: Weights) -> Settings:
    """The class loss that a MaskDINO was trained with, by whether it scores background."""
    if not scores_background(weights):
        return FOCAL_LOSS
    class_weight = [1.0] * num_classes(weights, 'mask_dino') + [0.1]
    return dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=4.0, class_weight=class_weight)


def _input_convs(weights: Weights) -> List[Tensor]:
    names = [f'neck.input_convs.{level}.conv.weight' for level in range(len(weights))]
    return [weights[name] for name in itertools.takewhile(weights.__contains__, names)]


def transformer_settings(weights: Weights, width: int, heads: int, levels: int) -> Settings:
    """Sizes of encoder, decoder and what must be as wide as they are."""
    settings: Settings = {'positional_encoding.num_feats': width // 2, 'bbox_head.embed_dims': width}
    for part in ('encoder', 'decoder'):
        settings.update(_coder(weights, part, width, heads, levels))
    if DEFORMABLE in weights:
        settings['num_feature_levels'] = levels
    return settings


def _coder(weights: Weights, part: str, width: int, heads: int, levels: int) -> Settings:
    """Sizes of an encoder or decoder, which is called ``part`` in weights and in the config."""
    first, layer = f'{part}.layers.0', f'{part}.layer_cfg'
    settings: Settings = {
        f'{part}.num_layers': _count(weights, rf'{part}\.layers\.(\d+)\.'),
        f'{layer}.ffn_cfg.embed_dims': width,
        f'{layer}.ffn_cfg.feedforward_channels': len(weights[f'{first}.ffn.layers.0.0.weight']),
    }
    for attention in ('self_attn', 'cross_attn') if part == 'decoder' else ('self_attn',):
        cfg = f'{layer}.{attention}_cfg'
        settings[f'{cfg}.embed_dims'], settings[f'{cfg}.num_heads'] = width, heads
        scores = weights.get(f'{first}.{attention}.attention_weights.weight')
        if scores is not None:
            settings[f'{cfg}.num_levels'] = levels
            settings[f'{cfg}.num_points'] = len(scores) // (heads * levels)
    return settings


def _neck(weights: Weights) -> Settings:
    convs = [weights[f'neck.convs.{i}.conv.weight'] for i in range(counts_of_ours(weights).scales)]
    settings: Settings = {
        'neck.in_channels': [conv.shape[1] for conv in convs],
        'neck.out_channels': len(convs[0]),
        'neck.num_outs': num_levels(weights),
    }
    if backbone_name(weights) == 'resnet':
        settings['backbone.out_indices'] = tuple(range(4 - len(convs), 4))
    return settings


def _backbone(weights: Weights) -> Settings:
    if backbone_name(weights) != 'resnet':
        return _swin(weights)
    blocks = tuple(_count(weights, rf'backbone\.layer{stage}\.(\d+)\.') for stage in range(1, 5))
    bottleneck = 'backbone.layer1.0.conv3.weight' in weights
    if blocks not in RESNETS or (RESNETS[blocks] > 34) != bottleneck:
        raise WeightsError(
            f'the backbone has {blocks} blocks {"with" if bottleneck else "without"} bottleneck, as no ResNet known '
            f'here ({", ".join(map(str, RESNETS.values()))}), and is no Swin'
        )
    return {'backbone.depth': RESNETS[blocks], 'backbone.base_channels': len(weights['backbone.conv1.weight'])}


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
DEFAULTS_OF_MASK_DINO = {'as_two_stage': True}
DEFAULTS_BY_LAST_KEY = {'num_levels': 4, 'num_points': 4, 'num_heads': 8, 'embed_dims': 256, 'act_cfg': RELU}


def _looked_up(model: Mapping[str, Any], key: str) -> Any:
    node: Any = model
    for part in key.split('.'):
        if not isinstance(node, Mapping) or part not in node:
            defaults = {**DEFAULTS, **(DEFAULTS_OF_MASK_DINO if model.get('type') == 'MaskDINO' else {})}
            return defaults.get(key, DEFAULTS_BY_LAST_KEY.get(key.rsplit('.', 1)[-1]))
        node = node[part]
    if isinstance(node, Mapping):
        return {name: value for name, value in node.items() if name != '_scope_'}
    return node
