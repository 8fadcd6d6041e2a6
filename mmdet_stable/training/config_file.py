"""Writes a plan as an ordinary config, with the reason for each setting."""

from pathlib import Path
from pprint import pformat
from typing import Any, Mapping, NamedTuple, Optional, Sequence

from matplotlib.colors import to_rgb

import mmdet_stable.shipped
from mmdet_stable.datasets.folder import DataStatistics, FoundData, Split
from mmdet_stable.engine import load_from_local
from mmdet_stable.utils.work_dir import checkpoint_of, config_beside, saved_config
from mmdet_stable.visualization.canvas import BOX_COLOURS
from mmdet_stable.weights import fetch
from mmdet_stable.weights.named import PREFIX, named_weights

from .plan import JITTER, SIZES, Plan, PlanError, steps_per_epoch

WARM_UP = 100  # steps, or a tenth of all
DROP_AT = 5 / 6  # of the epochs, after which the learning rate drops
VIT_LR = 1e-4  # ViTDet's, for the last layer of a backbone whose learning rates fall layer by layer
VALIDATIONS = 10  # about as many in a training
EMA_SPAN = 0.1  # of the steps, over which weights are averaged
SWA_BEGIN = 2 / 3  # of the epochs, after which weights are averaged
METRIC = 'coco/bbox_mAP'
BETTER = 0.001  # an AP, from 0 to 1, that is better by less is not better


class Start(NamedTuple):
    """What a training starts from: the path of the config to inherit from, and a checkpoint of a detector or None."""

    config: str
    checkpoint: Optional[str] = None


def starting_point(plan: Plan) -> Start:
    """The config to inherit from, and the weights of a detector to load.

    Raises:
        PlanError: where weights are neither a known name nor a file with its config.
    """
    if plan.weights is None:
        assert plan.backbone is not None
        return Start(mmdet_stable.shipped.config(plan.backbone.config))
    name = plan.weights[len(PREFIX) :] if plan.weights.startswith(PREFIX) else plan.weights
    if name in named_weights():
        kept = fetch(name)
        return Start(str(kept.config), str(kept.checkpoint))
    path = Path(plan.weights).expanduser().resolve()
    try:
        if path.is_dir():
            return Start(saved_config(path).filename, checkpoint_of(path))
        if path.is_file():
            load_from_local(str(path))  # which refuses what is damaged
            return Start(config_beside(path).filename, str(path))
    except (ValueError, OSError) as error:
        raise PlanError(f'weights={plan.weights}: {error}') from error
    raise PlanError(
        f'weights={plan.weights}: no such file or folder, and no name of published weights; '
        '`python -m mmdet_stable weights` lists these'
    )


def config_text(
    plan: Plan, data: FoundData, statistics: DataStatistics, work_dir: Path, seed: int, start: Start
) -> str:
    """A config file that any tool of this package and of mmdet reads."""
    width, height = plan.image_size
    steps = steps_per_epoch(statistics, plan.batch_size)
    drop = max(round(DROP_AT * plan.epochs), 1)
    interval = max(plan.epochs // VALIDATIONS, 1)
    warm_up = max(min(WARM_UP, steps * plan.epochs // 10), 1)
    transforms = [
        "dict(type='LoadImageFromFile')",
        "dict(type='LoadAnnotations', with_bbox=True)",
        *(["dict(type='RandomFlip', prob=0.5)"] if plan.flip else []),
        f"dict(type='RandomResize', scale=image_size, ratio_range={JITTER}, keep_ratio=True)",
        "dict(type='PackDetInputs')",
    ]
    why = {name: f'# {decision.what}: {decision.reason}' for name, decision in plan.decisions.items()}
    lines = [
        '# Written by `python -m mmdet_stable train`. It is an ordinary config: change it, and train with',
        f'#     python tools/train.py {own_path(work_dir)}',
        f'_base_ = {start.config!r}',
        f'work_dir = {str(work_dir)!r}',
        f'randomness = dict(seed={seed})',
        f'load_from = {start.checkpoint!r}',
        'resume = False',  # a config that mmengine saved may say otherwise
        '',
        f'classes = {data.classes!r}',
        *metainfo_lines(data.classes),
        why['image size'],
        f'image_size = {(width, height)!r}',
        why['mirror images'],
        'train_pipeline = [',
        *(f'    {transform},' for transform in transforms),
        ']',
        'test_pipeline = [',
        "    dict(type='LoadImageFromFile'),",
        "    dict(type='Resize', scale=image_size, keep_ratio=True),",
        "    dict(type='LoadAnnotations', with_bbox=True),",
        "    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),",
        ']',
        why['batch'],
        why['workers'],
        *loader_lines('train', data.train, plan),
        *loader_lines('val', data.val, plan),
        'test_dataloader = val_dataloader',
        "val_evaluator = dict(_delete_=True, type='CocoMetric', metric='bbox', classwise=True, "
        f'ann_file={str(data.val.ann_file)!r})',
        'test_evaluator = val_evaluator',
        '',
        *model_lines(plan, data, why),
        '',
        why['learning rate'],
        *([why['layer decay']] if 'layer decay' in why else []),
        f'optim_wrapper = {as_dict(optimizer_settings(plan))}',
        why['epochs'],
        f'train_cfg = dict(max_epochs={plan.epochs}, val_interval={interval})',
        'param_scheduler = [',
        f"    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={warm_up}),",
        f"    dict(type='MultiStepLR', by_epoch=True, begin=0, end={plan.epochs}, milestones=[{drop}], gamma=0.1),",
        *plateau_lines(plan),
        ']',
        '# The best checkpoint, and the last one, from which --resume goes on.',
        'default_hooks = dict(',
        f"    checkpoint=dict(interval=1, max_keep_ckpts=1, save_best={METRIC!r}, rule='greater'),",
        f'    logger=dict(interval={min(max(steps // 4, 1), 50)}),',
        *hook_lines(plan, steps),
        ')',
    ]
    return '\n'.join(lines) + '\n'


def plateau_lines(plan: Plan) -> list:
    """The drop of the learning rate where AP rises no more, which comes before training stops."""
    if plan.patience is None:
        return []
    settings = dict(type='ReduceOnPlateauLR', monitor=METRIC, rule='greater', patience=plan.patience - 1)
    settings.update(factor=0.1, threshold=BETTER, threshold_rule='abs')
    return [f'    {as_dict(settings, 4)},']


def hook_lines(plan: Plan, steps: int) -> list:
    """Averaging and early stopping, where they are wanted."""
    hooks = {}
    if plan.average == 'ema':
        span = max(round(EMA_SPAN * plan.epochs * steps), 2)
        hooks['average'] = dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=1 / span, gamma=span)
    if plan.average == 'swa':
        begin = max(round(SWA_BEGIN * plan.epochs) + 1, 1)
        hooks['average'] = dict(type='EMAHook', ema_type='StochasticWeightAverage', begin_epoch=begin)
    if plan.patience is not None:
        stop = dict(monitor=METRIC, rule='greater', min_delta=BETTER, patience=2 * plan.patience)
        hooks['early_stopping'] = dict(type='EarlyStoppingHook', **stop)
    return [f'    {name}={as_dict(settings, 4)},' for name, settings in hooks.items()]


def metainfo_lines(classes: Sequence[str]) -> list:
    """Classes with their colours: those of the figures for up to ten, else mmdet's for COCO, some of them alike."""
    if len(classes) > len(BOX_COLOURS):
        return ['metainfo = dict(classes=classes)']
    palette = [tuple(round(255 * part) for part in to_rgb(colour)) for colour in BOX_COLOURS]
    colours = [f'    {colour},  # {name!r}' for name, colour in zip(classes, palette)]
    return ['palette = [', *colours, ']', 'metainfo = dict(classes=classes, palette=palette)']


def loader_lines(name: str, split: Split, plan: Plan) -> list:
    """The data loader of a part of the data, whole."""
    training = name == 'train'
    return [
        f'{name}_dataloader = dict(',
        '    _delete_=True,',
        f'    batch_size={plan.batch_size},',
        f'    num_workers={plan.workers},',
        f'    persistent_workers={plan.workers > 0},',
        *([] if training else ['    drop_last=False,']),
        f"    sampler=dict(type='DefaultSampler', shuffle={training}),",
        *(["    batch_sampler=dict(type='AspectRatioBatchSampler'),"] if training else []),
        '    dataset=dict(',
        "        type='CocoDataset',",
        '        metainfo=metainfo,',
        f'        ann_file={str(split.ann_file)!r},',
        f'        data_prefix=dict(img={f"{split.image_folder}/"!r}),',
        *(['        filter_cfg=dict(filter_empty_gt=False),'] if training else ['        test_mode=True,']),
        f'        pipeline={name if training else "test"}_pipeline,',
        '    ),',
        ')',
    ]


def model_lines(plan: Plan, data: FoundData, why: Mapping[str, str]) -> list:
    """The model: as the base has it, in another size, or that of the weights with other classes."""
    if plan.size is None or plan.backbone is None or plan.num_queries is None:
        return [why['model'], 'model = dict(bbox_head=dict(num_classes=len(classes)))']
    size, backbone = SIZES[plan.size], plan.backbone
    ffn = dict(feedforward_channels=size.feedforward)
    settings: dict = dict(
        num_queries=plan.num_queries,
        data_preprocessor=backbone.preprocessor or None,
        backbone=backbone.settings,
        neck=backbone.neck or None,
        encoder=dict(num_layers=size.encoder, layer_cfg=dict(ffn_cfg=ffn)),
        decoder=dict(num_layers=size.decoder, layer_cfg=dict(ffn_cfg=ffn)),
        dn_cfg=dict(num_queries=size.dn_queries),
        bbox_head=dict(num_classes=len(data.classes)),
        test_cfg=dict(max_per_img=min(300, plan.num_queries * len(data.classes))),
    )
    settings = {key: value for key, value in settings.items() if value is not None}
    return [why['model'], why['backbone'], why['queries'], f'model = {as_dict(settings)}']


def optimizer_settings(plan: Plan) -> dict:
    """Learning rates: the full one for a backbone of random weights, by layer for one whose rates decay."""
    settings: dict = dict(optimizer=dict(lr=plan.lr))
    if plan.backbone is not None and plan.layer_decay < 1:
        settings['constructor'] = 'LayerDecayOptimWrapperConstructor'
        settings['paramwise_cfg'] = dict(
            layer_decay_rate=plan.layer_decay,
            num_layers=plan.backbone.layers,
            custom_keys=dict(_delete_=True, backbone=dict(lr_mult=min(round(VIT_LR / plan.lr, 4), 1.0))),
        )
    elif plan.backbone is not None and not plan.backbone.pretrained:
        settings['paramwise_cfg'] = dict(norm_decay_mult=None, custom_keys=dict(backbone=dict(lr_mult=1.0)))
    return settings


def as_dict(settings: Mapping[str, Any], indent: int = 0) -> str:
    """Nested settings as a call of ``dict``, one line for each, short ones in one line."""
    flat = f'dict({", ".join(f"{key}={_inline(value)}" for key, value in settings.items())})'
    if indent and len(flat) < 90:
        return flat
    space = ' ' * (indent + 4)
    body = ''.join(
        f'{space}{key}={as_dict(value, indent + 4) if isinstance(value, dict) else _inline(value)},\n'
        for key, value in settings.items()
    )
    return f'dict(\n{body}{" " * indent})'


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={_inline(entry)}" for key, entry in value.items())})'
    return pformat(value, width=10**6)


def own_path(work_dir: Path) -> Path:
    """Where the config of a work dir is written: not where mmengine saves the whole one, of the same name."""
    return work_dir / 'setup' / f'{work_dir.name}.py'


def existing_config(work_dir: Path) -> Optional[Path]:
    """The config of a training that was begun in a work dir; None where there is none."""
    path = own_path(work_dir)
    return path if path.is_file() else None
