"""From a folder of images to a trained detector with its report, in one call."""

import time as clock
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Union

import numpy as np
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.runner import set_random_seed

from mmdet_stable.datasets.folder import data_statistics, describe, fault_lines, read_data
from mmdet_stable.engine.config_checks import check_keys
from mmdet_stable.engine.console import build_runner
from mmdet_stable.engine.downloads import fetch_weights
from mmdet_stable.engine.hooks.dataset_check_hook import name_images_in_errors
from mmdet_stable.engine.launch import check_training, check_work_dir, only_training
from mmdet_stable.engine.launch import resume as resume_from
from mmdet_stable.evaluation.detections import Boxes
from mmdet_stable.evaluation.operating_point import keep_operating_point
from mmdet_stable.evaluation.run_log import RunLog
from mmdet_stable.utils.files import write_whole
from mmdet_stable.utils.quiet import quiet
from mmdet_stable.utils.unknown_settings import settings_named
from mmdet_stable.utils.words import counted
from mmdet_stable.utils.work_dir import checkpoint_of
from mmdet_stable.visualization.report import write_report
from mmdet_stable.visualization.samples import plot_samples
from mmdet_stable.weights import has_efficientnet_lite

from .config_file import VALIDATIONS, config_text, existing_config, own_path, starting_point
from .hardware import Hardware, this_machine
from .measure import SLOW, Pace, image_side_for, measure, parse_duration, readable
from .plan import Plan, PlanError, Wishes, check_wishes, make_plan

NUM_SAMPLES = 12
Source = Union[str, Path]


class Trained(NamedTuple):
    """What a training left.

    Attributes:
        work_dir: its folder.
        config: the config that it was trained with.
        checkpoint: the best one.
        metrics: of the best validation, in points, e.g. ``{'AP': 50.4, ...}``.
        report: one page on it.
    """

    work_dir: Path
    config: Path
    checkpoint: Path
    metrics: Dict[str, float]
    report: Path


def train(
    data: Union[Source, Sequence[Source]],
    *,
    size: Optional[str] = None,
    image_size: Optional[int] = None,
    queries: Optional[int] = None,
    batch_size: Optional[int] = None,
    epochs: Optional[int] = None,
    lr: Optional[float] = None,
    workers: Optional[int] = None,
    backbone: Optional[str] = None,
    weights: Optional[str] = None,
    average: Optional[str] = None,
    patience: Optional[int] = None,
    layer_decay: Optional[float] = None,
    time: Optional[str] = None,
    resume: bool = False,
    seed: int = 60,
    work_dir: Optional[Source] = None,
    cfg_options: Optional[Dict[str, Any]] = None,
) -> Trained:
    """Train a detector on a folder of images, evaluate it, and write a report.

    What is left open is decided from the data and this machine; each decision is printed with its reason. The work dir
    gets ``setup/``, with the config and a picture of training samples, checkpoints, logs and ``report.html``.

    Args:
        data: a folder with COCO, YOLO or Pascal VOC annotations, a ``data.yaml``, or one or two COCO files.
        size: ``'tiny'``, ``'small'``, ``'base'`` or ``'large'``.
        image_size: the longer side to which images are resized, in pixels.
        queries: object queries.
        batch_size, epochs: as usual.
        lr: learning rate; a pretrained backbone has a tenth of it.
        workers: processes that load images; 0 for none beside this one.
        backbone: a name of :data:`mmdet_stable.training.backbones.BACKBONES`, or ``'timm:NAME'``.
        weights: published weights by name, a work dir, or a checkpoint with its config beside it; they decide the
            model.
        average: of weights, which is then validated and kept: ``'ema'``, an exponential moving average over a tenth
            of the steps, ``'swa'``, the mean over the last third of the epochs, or ``'none'``, the default.
        patience: after so many validations without a better AP, the learning rate drops; after as many more, training
            stops.
        layer_decay: factor by which learning rates of the backbone fall from layer to layer; 1 for none.
        time: what training and report may take, e.g. ``'30m'``; decides the number of epochs.
        resume: go on with the training in the work dir, as its config says; only ``cfg_options`` count then.
        seed: of the split of the data, and of the training.
        work_dir: default ``work_dirs/NAME``, for the data's name.
        cfg_options: settings of the config, by dotted keys.

    Raises:
        DataError, PlanError: for data and wishes that do not work out, with what to do.
        FileExistsError: if the work dir has a training, and this one is not to resume it.
        BlockingIOError: if another training writes there at this moment.
    """
    begun = clock.monotonic()
    wishes = Wishes(
        size=size,
        image_size=image_size,
        queries=queries,
        batch_size=batch_size,
        epochs=epochs,
        lr=lr,
        workers=workers,
        backbone=backbone,
        weights=weights,
        average=average,
        patience=patience,
        layer_decay=layer_decay,
    )
    sources = [data] if isinstance(data, (str, Path)) else list(data)
    folder = work_dir_for(sources, work_dir)
    config = existing_config(folder)
    if resume and config is None:
        raise FileNotFoundError(f'{folder} has no training to resume: {own_path(folder)} does not exist')
    if not resume and config is not None and any(folder.glob('*.pth')):
        raise FileExistsError(f'{folder} has a training; resume it, or choose another work_dir')
    check_wishes(wishes)
    seconds = parse_duration(time) if time else None
    if seconds is not None and epochs is not None:
        raise PlanError(f'time={time} decides the number of epochs; leave out epochs={epochs}')
    if 'work_dir' in (cfg_options or {}):
        raise PlanError('cfg_options: leave out work_dir, and give it as work_dir (--work-dir), where everything goes')
    check_work_dir(folder)
    with only_training(folder):  # from the first file on, as another training would replace the config of this one
        if config is None or not resume:
            config = prepare(sources, wishes, folder, seed, seconds, begun, cfg_options)
        else:
            say(f'resuming as {config} says: its data and settings count, of this call only work_dir and cfg_options')
            checked_config(config, cfg_options)
        cfg = read_config(config, cfg_options)
        cfg.work_dir = str(folder)  # which may have been moved since its config was written
        if resume:
            resume_from(cfg)
        return run(cfg, config)


def work_dir_for(sources: Sequence[Source], work_dir: Optional[Source] = None) -> Path:
    """The work dir that was named, or the one that is named after the data."""
    return Path(work_dir if work_dir is not None else Path('work_dirs') / data_name(Path(sources[0]))).resolve()


def data_name(path: Path) -> str:
    """What data are called: by their folder."""
    path = path.resolve()
    if path.is_dir():
        return path.name
    return path.parent.parent.name if path.parent.name == 'annotations' else path.parent.name


def read_config(path: Path, cfg_options: Optional[Dict[str, Any]]) -> Config:
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(cfg_options or {})
    return cfg


def checked_config(path: Path, cfg_options: Optional[Dict[str, Any]]) -> Config:
    """Warn of settings without effect, and look for all that the training needs."""
    cfg = read_config(path, cfg_options)
    check_keys(cfg, cfg_options or (), variables=set(Config.fromfile(path)))
    check_training(cfg)
    fetch_weights(cfg)
    return cfg


def prepare(
    sources: Sequence[Source],
    wishes: Wishes,
    work_dir: Path,
    seed: int,
    seconds: Optional[float],
    begun: float,
    cfg_options: Optional[Dict[str, Any]],
) -> Path:
    """Read the data, plan, measure, write the config and the picture of samples; returns the config's path."""
    path = own_path(work_dir)
    data = read_data(sources, path.parent, seed)
    say(*describe(data), *fault_lines(data))
    statistics, hardware = data_statistics(data), this_machine()
    plan = make_plan(statistics, hardware, wishes, has_efficientnet_lite())
    start = starting_point(plan)
    memory = 'memory' if hardware.is_cpu else 'of its own'
    say('', f'plan for {hardware.name}, {counted(hardware.cores, "core")}, {hardware.memory:.0f} GiB {memory}:')
    say(*(decision for name, decision in plan.decisions.items() if name != 'epochs' or seconds is None))
    # Until the number of epochs is known, a draft, which --resume does not take for the config.
    draft = path if seconds is None else path.with_name('draft.py')
    write_whole(draft, config_text(plan, data, statistics, work_dir, seed, start))
    cfg = checked_config(draft, cfg_options)
    samples = path.with_name('samples.jpg')
    with settings_named(cfg):
        save_samples(cfg, seed, samples)
    say(f'  training samples: {samples}')
    if seconds is not None or hardware.is_cpu:
        pace = measure(cfg)
        if seconds is not None:
            plan = fit_into(plan, pace, seconds - (clock.monotonic() - begun), seconds)
            say(plan.decisions['epochs'])
            write_whole(path, config_text(plan, data, statistics, work_dir, seed, start))
            draft.unlink()
        say(*pace_lines(plan, pace, hardware))
    say(f'  config: {path}', '')
    return path


def fit_into(plan: Plan, pace: Pace, left: float, seconds: float) -> Plan:
    """The plan with as many epochs as fit into what is left of a time.

    Raises:
        PlanError: if not even one fits, with what would.
    """
    epochs = pace.epochs_in(left, VALIDATIONS)
    epoch = readable(pace.steps * pace.step)
    if not epochs:
        side = image_side_for(pace, 1, 1, plan.image_size, max(left, 0.0))
        raise PlanError(
            f'one epoch takes {epoch} here, which does not fit into {readable(seconds)}. What would: time='
            f'{1 + int((seconds - left + 1.2 * pace.duration(1, 1)) / 60)}m, or image_size={side} instead of '
            f'{max(plan.image_size)}, if that is not too small for the objects'
        )
    reason = f'of {epoch} each, measured on the first steps, fit into {readable(seconds)}'
    return plan.with_epochs(epochs, reason)


def pace_lines(plan: Plan, pace: Pace, hardware: Hardware) -> List[str]:
    """How long the training will take, and, where that is long for a CPU, what would fit."""
    validations = min(plan.epochs, VALIDATIONS)
    total = pace.duration(plan.epochs, validations)
    lines = [
        f'  pace: {pace.step:.2f} s for a step, {readable(pace.steps * pace.step)} for an epoch; '
        f'{counted(plan.epochs, "epoch")} with validation: {readable(total)}'
    ]
    if hardware.is_cpu and total > SLOW:
        fitting = pace.epochs_in(3600, VALIDATIONS)
        side = image_side_for(pace, plan.epochs, validations, plan.image_size, SLOW)
        lines += [
            f'  WARNING: this takes {readable(total)} on this CPU; a GPU is made for it. What would fit here:',
            f'    --time 1h: {fitting} epochs' if fitting else '    nothing of this size into an hour',
            *([] if plan.size == 'tiny' else ['    --size tiny: fewer layers, a lighter backbone, smaller images']),
            f'    --image-size {side}: all epochs in about {readable(SLOW)}, if that is not too small for the objects',
        ]
    return lines


def save_samples(cfg: Config, seed: int, path: Path) -> None:
    """Draw some training images as the model will see them: augmented, with their boxes."""
    register_all_modules()
    set_random_seed(seed)
    with quiet():
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    name_images_in_errors(dataset)
    images, boxes = [], []
    for index in np.linspace(0, len(dataset) - 1, min(NUM_SAMPLES, len(dataset))).round().astype(int):
        sample = dataset[int(index)]
        truth = sample['data_samples'].gt_instances
        images.append(sample['inputs'].permute(1, 2, 0).numpy()[..., ::-1])
        boxes.append(Boxes(truth.bboxes.tensor.numpy(), truth.labels.numpy()))
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_samples(images, boxes, dataset.metainfo['classes'], path)


def run(cfg: Config, config: Path) -> Trained:
    """Train as tools/train.py does, and report."""
    cfg.launcher = 'none'  # the config of weights may have been saved by several processes
    cfg.visualizer.pop('name', None)  # else a second training of this process would log into the folder of the first
    runner = build_runner(cfg)
    runner.train()
    device = next(runner.model.parameters()).device.type
    work_dir = Path(cfg.work_dir)
    log = RunLog(work_dir, work_dir / config.name)
    checkpoint = Path(checkpoint_of(work_dir))
    report = work_dir / 'report.html'
    say('', 'evaluating for the report ...')
    written = write_report([work_dir], report, device, best=True)
    say(*written.remarks)
    shown = []
    if checkpoint in written.points:
        point = written.points[checkpoint]
        keep_operating_point(point, checkpoint)
        shown = [
            f'  from a score of {point.score_threshold:g} on, which `predict` shows, {point.precision:.0%} of the '
            f'boxes are right, and {point.recall:.0%} of the objects are found'
        ]
    best = max(log.curve, key=lambda epoch: log.curve[epoch].get('AP', 0.0))
    metrics = log.curve[best]
    say(
        *([f'stopped after epoch {log.last_epoch}: AP rose no more'] if log.last_epoch < log.max_epochs else []),
        f'AP {metrics.get("AP", 0.0):.1f}, AP50 {metrics.get("AP50", 0.0):.1f} after epoch {best} of {log.max_epochs}, '
        'the best on the validation images',
        *shown,
        f'  checkpoint: {checkpoint}',
        f'  config:     {config}',
        f'  report:     {report}',
    )
    return Trained(work_dir, config, checkpoint, metrics, report)


def say(*lines: object) -> None:
    """Print lines at once, also into a pipe."""
    print(*lines, sep='\n', flush=True)
