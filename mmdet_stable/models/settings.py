"""Checks of model settings that would fail only at the first step or validation, or train something wrong unnoticed.

Detectors, heads, losses and costs call them when they are built; ``tools/train.py`` and ``tools/test.py`` also call
:func:`check_detector` for mmdet's own detectors. Settings come as they stand in a config: numbers, texts and dicts.
"""

import math
from typing import Any, Iterable, Iterator, List, Mapping, Optional, Tuple

# mmdet's defaults of what a config may leave out.
NUM_QUERIES = 100
NUM_LEVELS = 4
LOSS_CLS = dict(type='CrossEntropyLoss', use_sigmoid=False)

NMS_TYPES = ('nms', 'soft_nms')
LOSSES = ('loss_cls', 'loss_bbox', 'loss_iou')


def check_detector(name: str, settings: Mapping[str, Any]) -> None:
    """Check the settings of a DETR-like detector as a whole.

    Args:
        name: of the detector, for the message.
        settings: arguments of the detector: its node of the config.

    Raises:
        ValueError: listing everything that is wrong, by key, value and remedy.
    """
    head = settings.get('bbox_head') or {}
    test_cfg = settings.get('test_cfg')
    num_queries = settings.get('num_queries', NUM_QUERIES) * max(settings.get('num_patterns') or 0, 1)
    _raise_for(
        name,
        [
            *_at_least_one('model.num_queries', num_queries, 'the number of objects to look for, as 300 or 900'),
            *_head_problems(head, test_cfg),
            *_max_per_img_problems(num_queries, head, test_cfg or {}),
            *_level_problems(settings),
            *_cost_problems(settings.get('train_cfg') or {}, head),
        ],
    )


def check_head(name: str, settings: Mapping[str, Any]) -> None:
    """Check the settings of a DETR head: classes, weights of losses, and ``test_cfg.nms``.

    Raises:
        ValueError: as :func:`check_detector`.
    """
    _raise_for(name, list(_head_problems(settings, settings.get('test_cfg'))))


def check_weights(name: str, weights: Iterable[Tuple[str, Optional[float]]]) -> None:
    """Check weights of losses or matching costs, given with their keys; None is none.

    Raises:
        ValueError: as :func:`check_detector`.
    """
    _raise_for(name, [problem for key, weight in weights for problem in _weight_problems(key, weight)])


def scores_by_softmax(loss_cls: Optional[Mapping[str, Any]]) -> bool:
    """Whether a DETR head with this classification loss scores classes and background by a softmax."""
    loss_cls = loss_cls or LOSS_CLS
    return not loss_cls.get('use_sigmoid', loss_cls.get('type') != 'CrossEntropyLoss')


def _raise_for(name: str, problems: List[str]) -> None:
    if problems:
        raise ValueError(f'{name} cannot work with these settings:\n  ' + '\n  '.join(problems))


def _head_problems(head: Mapping[str, Any], test_cfg: Optional[Mapping[str, Any]]) -> Iterator[str]:
    if 'num_classes' in head:
        yield from _at_least_one('model.bbox_head.num_classes', head['num_classes'], 'the number of classes')
    for loss in LOSSES:
        settings = head.get(loss) or {}
        yield from _weight_problems(f'model.bbox_head.{loss}.loss_weight', settings.get('loss_weight'))
        if settings.get('reduction', 'mean') != 'mean':
            yield (
                f'model.bbox_head.{loss}.reduction={settings["reduction"]!r}: a DETR head divides losses by the number '
                "of matched boxes, as 'mean' says; leave it out, and scale by loss_weight"
            )
    yield from _weight_problems('model.bbox_head.dn_cls_loss_weight', head.get('dn_cls_loss_weight'))
    yield from _nms_problems((test_cfg or {}).get('nms'))


def _nms_problems(nms: Optional[Mapping[str, Any]]) -> Iterator[str]:
    if not nms:
        return
    kind = nms.get('type', 'nms')
    if isinstance(kind, str) and kind not in NMS_TYPES:
        yield f'model.test_cfg.nms.type={kind!r}: known are {", ".join(map(repr, NMS_TYPES))}'
    threshold = nms.get('iou_threshold', nms.get('iou_thr'))
    if threshold is None and kind == 'nms':
        yield 'model.test_cfg.nms.iou_threshold is missing: set it to a number from 0 to 1, as 0.8'
    elif threshold is not None and not 0 <= threshold <= 1:
        yield f'model.test_cfg.nms.iou_threshold={threshold}: set it to a number from 0 to 1, as 0.8'


def _max_per_img_problems(num_queries: int, head: Mapping[str, Any], test_cfg: Mapping[str, Any]) -> Iterator[str]:
    """A head takes the best ``max_per_img`` of its scores; there must be so many."""
    max_per_img, num_classes = test_cfg.get('max_per_img'), head.get('num_classes')
    if max_per_img is None:
        return
    yield from _at_least_one('model.test_cfg.max_per_img', max_per_img, 'the number of detections, or leave it out')
    if num_classes is None or min(num_queries, num_classes) < 1:
        return
    if scores_by_softmax(head.get('loss_cls')):
        most, product = num_queries, f'model.num_queries={num_queries}'
    else:
        most = num_queries * num_classes
        product = f'model.num_queries={num_queries} times model.bbox_head.num_classes={num_classes} is {most}'
    if max_per_img > most:
        yield (
            f'model.test_cfg.max_per_img={max_per_img}: there are fewer scores to choose from, as {product}; set it to '
            f'{most} or less, or raise model.num_queries'
        )


def _level_problems(settings: Mapping[str, Any]) -> Iterator[str]:
    """Levels of deformable attention against what the neck gives; nothing for other detectors."""
    encoder = _attention(settings.get('encoder'), 'self_attn_cfg')
    decoder = _attention(settings.get('decoder'), 'cross_attn_cfg')
    if 'num_feature_levels' not in settings and 'num_levels' not in {*encoder, *decoder}:
        return
    levels = {
        'model.num_feature_levels': settings.get('num_feature_levels', NUM_LEVELS),
        'model.encoder.layer_cfg.self_attn_cfg.num_levels': encoder.get('num_levels', NUM_LEVELS),
        'model.decoder.layer_cfg.cross_attn_cfg.num_levels': decoder.get('num_levels', NUM_LEVELS),
    }
    neck = settings.get('neck') or {}
    if not settings.get('encoder') and 'num_levels' in neck:  # MaskDINO, whose neck is the encoder
        levels = {
            'model.neck.num_levels': neck['num_levels'],
            'model.decoder.layer_cfg.cross_attn_cfg.num_levels': decoder.get('num_levels', NUM_LEVELS),
        }
    outputs = _neck_outputs(neck)
    if outputs is not None:
        levels['model.neck.num_outs'] = outputs
    if len(set(levels.values())) > 1:
        shown = ', '.join(f'{key}={value}' for key, value in levels.items())
        yield f'{shown}: numbers of feature maps differ; set all of them to the same'


def _attention(coder: Optional[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return ((coder or {}).get('layer_cfg') or {}).get(name) or {}


def _neck_outputs(neck: Mapping[str, Any]) -> Optional[int]:
    """How many feature maps a neck gives; None where its settings do not say."""
    if neck.get('type') == 'ChannelMapper' and 'in_channels' in neck:
        return max(len(neck['in_channels']), neck.get('num_outs') or 0)
    return neck.get('num_outs')


def _cost_problems(train_cfg: Mapping[str, Any], head: Mapping[str, Any]) -> Iterator[str]:
    costs = (train_cfg.get('assigner') or {}).get('match_costs') or []
    costs = [costs] if isinstance(costs, Mapping) else costs
    for index, cost in enumerate(costs):
        key = f'model.train_cfg.assigner.match_costs[{index}]'
        yield from _weight_problems(f'{key}.weight', cost.get('weight'))
        if cost.get('type') == 'PositionModulatedFocalCost' and scores_by_softmax(head.get('loss_cls')):
            loss = (head.get('loss_cls') or LOSS_CLS)['type']
            yield (
                f"{key}.type='PositionModulatedFocalCost': it takes one sigmoid score for each class, but the head "
                f'scores by a softmax, as bbox_head.loss_cls.type={loss!r} demands; set loss_cls to '
                "'PositionSupervisedLoss' or 'FocalLoss', or, in a head of mmdet, take 'ClassificationCost'"
            )


def _weight_problems(key: str, weight: Optional[float]) -> Iterator[str]:
    if weight is not None and not 0 <= weight < math.inf:
        yield f'{key}={weight}: set it to a number from 0 up; 0 switches the term off'


def _at_least_one(key: str, value: Any, what: str) -> Iterator[str]:
    if not isinstance(value, int) or value < 1:
        yield f'{key}={value!r}: at least 1 is needed; set it to {what}'
