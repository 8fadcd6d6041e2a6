"""Checks of a config before anything is built from it: settings that nothing reads, and a model that cannot work.

The former are typos, which pass without a word where mmengine merges dicts. A misspelt argument of a component is an
error of its constructor anyway. Looked at here is what consumers read by name and otherwise leave alone: the top
level, on which a config may keep variables of any name, so that only near misses count, and dicts of few known keys,
as ``model.test_cfg``.
"""

import inspect
import sys
from difflib import get_close_matches
from typing import Any, Collection, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Type

from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.layers import CdnQueryGenerator
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_stable.models.dense_heads import SetLossHead
from mmdet_stable.models.layers import DNQueryGenerator
from mmdet_stable.models.settings import check_detector
from mmdet_stable.utils.launchers import is_first_process

# Top-level keys whose values are no dicts or lists. A variable of another kind is no near miss of a key.
SCALARS = {
    *('work_dir', 'load_from', 'resume', 'launcher', 'log_level', 'default_scope', 'experiment_name', 'runner_type'),
    *('sync_bn', 'find_unused_parameters'),
}
# The rest is what mmengine's Runner takes, and what it and mmdet's tools read from the config.
TOP_LEVEL = {
    *inspect.signature(Runner.__init__).parameters,
    *SCALARS,
    *('custom_imports', 'model_wrapper_cfg', 'activation_checkpointing', 'efficient_conv_bn_eval', 'compile'),
    *('tta_model', 'tta_pipeline'),
} - {'self', 'cfg'}
# Variables that mmdet's configs keep there, and whose names are close to those of keys.
VARIABLES = {f'{split}_{what}' for split in ('train', 'val', 'test') for what in ('pipeline', 'dataset')}

DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
PARAMWISE = {
    *('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult', 'flat_decay_mult'),
    *('dcn_offset_lr_mult', 'bypass_duplicate'),
    *('num_layers', 'decay_rate', 'decay_type'),  # of mmdet's LearningRateDecayOptimizerConstructor
}
ENVIRONMENT = {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'}
DENOISING = {
    'type',
    *inspect.signature(DNQueryGenerator.__init__).parameters,
    *inspect.signature(CdnQueryGenerator.__init__).parameters,
} - {'self'}
NMS = {
    *('type', 'iou_threshold', 'iou_thr', 'class_agnostic', 'split_thr', 'max_num', 'score_threshold', 'offset'),
    *('sigma', 'min_score', 'method'),
}
FILTERS = ('filter_empty_gt', 'min_size', 'bbox_min_size')
METAINFO = ('classes', 'palette')
SIMILAR = 0.85  # difflib's ratio from which a name is taken for another one; 'train_cfgg' and 'train_cfg' have 0.95


class UnknownKey(NamedTuple):
    """A setting that has no effect, and what to do about it."""

    key: str
    remedy: str

    def __str__(self) -> str:
        return f'{self.key}: {self.remedy}'


def check_keys(cfg: Config, options: Iterable[str], variables: Collection[str], strict: bool = False) -> None:
    """Warn of settings that nothing reads, on the main process; see :func:`unknown_keys`.

    Raises:
        ValueError: in place of the warning, where ``strict``.
    """
    found = unknown_keys(cfg, options, variables)
    if not found:
        return
    listed = '\n'.join(f'  {key}' for key in found)
    if strict:
        raise ValueError(f'{cfg.filename} has settings without effect:\n{listed}')
    if is_first_process(cfg.get('launcher', 'none')):
        bar = '*' * 100
        what = f'WARNING: {cfg.filename} has settings without effect (an error with --strict):'
        print(f'{bar}\n{what}\n{listed}\n{bar}', file=sys.stderr, flush=True)


def check_model(cfg: Config) -> None:
    """Check the settings of any detector of the DETR family, also of mmdet's own, which do not check theirs.

    Raises:
        ValueError: as :func:`check_detector`.
    """
    if _is_detr(cfg):
        kind = cfg.model.type
        check_detector(kind if isinstance(kind, str) else kind.__name__, cfg.model)


def unknown_keys(cfg: Config, options: Iterable[str] = (), variables: Collection[str] = ()) -> List[UnknownKey]:
    """What nothing will read, of a config with its ``--cfg-options`` merged in.

    Args:
        options: dotted keys of ``--cfg-options``.
        variables: top-level names of the config before it was merged with these.
    """
    options = list(options)
    given = {option.split('.')[0] for option in options}
    return [
        *(_ineffective_option(option, cfg, variables) for option in options if option.split('.')[0] not in TOP_LEVEL),
        *_near_misses_at_the_top(cfg, without=given),
        *_nested(cfg),
    ]


def _ineffective_option(option: str, cfg: Config, variables: Collection[str]) -> UnknownKey:
    """A top-level name that is no key: where it is a variable, the config has been computed with its old value."""
    name = option.split('.')[0]
    similar = _similar(name, TOP_LEVEL)
    if name in variables:
        why = 'a variable of the config file, which has been read with its old value'
    else:
        why = 'no key of the config'
    places = [path for path in _paths(cfg.to_dict()) if path.endswith(f'.{name}')]
    if similar and name not in variables:
        return UnknownKey(f'--cfg-options {option}', f'{name} is {why}; did you mean {similar}?')
    if places:
        return UnknownKey(f'--cfg-options {option}', f'{name} is {why}; set {" and ".join(places[:3])}')
    return UnknownKey(f'--cfg-options {option}', f'{name} is {why}; leave it out')


def _near_misses_at_the_top(cfg: Config, without: Collection[str]) -> Iterator[UnknownKey]:
    for name, value in cfg.items():
        if name in TOP_LEVEL or name in VARIABLES or name in without or name.startswith('_'):
            continue
        similar = _similar(name, TOP_LEVEL)
        if similar and (name.startswith(f'{similar}_') or name.endswith(f'_{similar}')):
            continue  # a variable named after a key
        if similar and isinstance(value, (dict, list, tuple)) == (similar not in SCALARS):
            yield UnknownKey(name, f'nothing reads it; did you mean {similar}?')


def _nested(cfg: Config) -> Iterator[UnknownKey]:
    for path, node, known, near_only in _dicts_of_known_keys(cfg):
        for name in node if isinstance(node, Mapping) else ():
            if name in known:
                continue
            similar = _similar(name, known)
            if similar:
                yield UnknownKey(f'{path}.{name}', f'nothing reads it; did you mean {path}.{similar}?')
            elif not near_only:
                yield UnknownKey(f'{path}.{name}', f'nothing reads it; known are {", ".join(sorted(known))}')
    test_cfg, head = _get(cfg, 'model.test_cfg'), _get(cfg, 'model.bbox_head.type')
    if isinstance(test_cfg, Mapping) and test_cfg.get('nms') and _is_detr(cfg) and not _set_loss_head(cfg):
        remedy = f'{head} does not read it; take a head of mmdet_stable, as StableDINOHead, or leave it out'
        yield UnknownKey('model.test_cfg.nms', remedy)


def _dicts_of_known_keys(cfg: Config) -> Iterator[Tuple[str, Any, Collection[str], bool]]:
    """Key, node, its known keys, and whether others than near misses may stand there, for classes of any origin."""
    if _is_detr(cfg):
        yield 'model.train_cfg', _get(cfg, 'model.train_cfg'), {'assigner', 'sampler'}, False
        yield 'model.test_cfg', _get(cfg, 'model.test_cfg'), _test_cfg_keys(cfg), False
        yield 'model.test_cfg.nms', _get(cfg, 'model.test_cfg.nms'), NMS, False
        yield 'model.dn_cfg', _get(cfg, 'model.dn_cfg'), DENOISING, False
        groups = {'dynamic', 'num_groups', 'num_dn_queries'}
        yield 'model.dn_cfg.group_cfg', _get(cfg, 'model.dn_cfg.group_cfg'), groups, False
    paramwise, custom = 'optim_wrapper.paramwise_cfg', 'optim_wrapper.paramwise_cfg.custom_keys'
    yield paramwise, _get(cfg, paramwise), PARAMWISE, _get(cfg, 'optim_wrapper.constructor') is not None
    for name, factors in (_get(cfg, custom) or {}).items():
        yield f'{custom}.{name}', factors, {'lr_mult', 'decay_mult'}, False
    yield 'env_cfg', cfg.get('env_cfg'), ENVIRONMENT, False
    yield 'auto_scale_lr', cfg.get('auto_scale_lr'), {'enable', 'base_batch_size'}, False
    hooks = cfg.get('default_hooks') or {}
    complete = {name for name, hook in hooks.items() if not isinstance(hook, Mapping) or 'type' in hook}
    yield 'default_hooks', {n: h for n, h in hooks.items() if n not in complete}, {*complete, *DEFAULT_HOOKS}, True
    for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for path, node in _datasets(_get(cfg, f'{loader}.dataset'), f'{loader}.dataset'):
            yield f'{path}.filter_cfg', node.get('filter_cfg'), FILTERS, True
            yield f'{path}.metainfo', node.get('metainfo'), METAINFO, True


def _datasets(node: Any, path: str) -> Iterator[Tuple[str, Mapping]]:
    """A data set and those that it wraps."""
    if isinstance(node, Mapping):
        yield path, node
        yield from _datasets(node.get('dataset'), f'{path}.dataset')
        parts = node.get('datasets')
        for index, part in enumerate(parts if isinstance(parts, (list, tuple)) else ()):
            yield from _datasets(part, f'{path}.datasets[{index}]')


def _is_detr(cfg: Config) -> bool:
    kind = _get(cfg, 'model.type')
    kind = MODELS.get(kind) if isinstance(kind, str) else kind
    return inspect.isclass(kind) and issubclass(kind, DetectionTransformer)


def _set_loss_head(cfg: Config) -> Optional[Type[SetLossHead]]:
    """The class of the head, if it is one of this package's."""
    head = _get(cfg, 'model.bbox_head.type')
    head = MODELS.get(head) if isinstance(head, str) else head
    return head if inspect.isclass(head) and issubclass(head, SetLossHead) else None


def _test_cfg_keys(cfg: Config) -> Collection[str]:
    head = _set_loss_head(cfg)
    return {'max_per_img', 'nms', 'chunked_size'} | (head.test_cfg_keys if head else set())


def _get(cfg: Config, path: str) -> Any:
    """The value of a dotted key; None where there is none."""
    node: Any = cfg
    for name in path.split('.'):
        node = node.get(name) if isinstance(node, (Config, Mapping)) else None
    return node


def _similar(name: str, known: Collection[str]) -> Optional[str]:
    by_lower = {key.lower(): key for key in known}
    found = get_close_matches(name.lower(), by_lower, 1, SIMILAR)
    return by_lower[found[0]] if found else None


def _paths(node: Any, prefix: str = '') -> Iterator[str]:
    """Dotted keys of all dicts of the config, whatever they hold; lists are left out."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        yield f'{prefix}{name}'
        yield from _paths(value, f'{prefix}{name}.')
