"""One page on one or several trainings, in one file."""

import copy
import datetime
import functools
import math
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence

import mmcv
from mmdet.utils import collect_env

from mmdet_stable.evaluation import METRICS, RunLog, Subject, find_runs, flatten, load_subject
from mmdet_stable.evaluation.comparison import decisive_differences
from mmdet_stable.evaluation.curves import read_curves
from mmdet_stable.evaluation.detections import boxes_of, detect
from mmdet_stable.evaluation.examination import Examination, examine
from mmdet_stable.evaluation.pair_quality import correlation
from mmdet_stable.versions import __version__

from . import html
from .convergence import plot_convergence
from .detections import plot_detections
from .matching import plot_score_alignment, plot_unstable_scores
from .output import inlined

NUM_EXAMPLES = 4


class Examined(NamedTuple):
    """A training, its model, and what was found out about it."""

    log: RunLog
    subject: Subject
    results: Examination


def write_report(
    work_dirs: Sequence[Path], path: Path, device: str = 'cpu', num_images: int = 20, score_threshold: float = 0.3
) -> List[str]:
    """Evaluate trainings and write the page.

    Trainings of one config are seeds of one curve; all else is measured on the one of the lowest seed.

    Args:
        work_dirs: folders with trainings, at any depth, on the same data.
        path: of the page.
        device: where models run.
        num_images: how many images to look at for unstable scores and alignment.
        score_threshold: lowest score of the detections that are drawn.

    Returns:
        Remarks on trainings that were left out.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if there is no training with a validated checkpoint, or they have different classes.
    """
    logs, remarks = find_runs(work_dirs)
    curves, more = read_curves(logs, 'AP', {log.stem: log.stem for log in logs})
    examined = []
    for log in first_seeds(logs):
        cfg = copy.deepcopy(log.cfg)  # mmdet writes into it
        subject = load_subject(log.stem, cfg, log.checkpoint, device)
        examined.append(Examined(log, subject, examine(subject, num_images)))
    if not examined:
        raise ValueError(f'{", ".join(map(str, work_dirs))}: no training that was validated and has a checkpoint')
    if len({tuple(one.subject.dataset.metainfo['classes']) for one in examined}) > 1:
        raise ValueError('the trainings have different classes: write one report for each data set')
    sections = [
        html.paragraph(introduction(examined, curves)),
        overview(examined, curves),
        per_class(examined),
        matching(examined, num_images),
        examples(examined, score_threshold),
        settings(examined),
        html.section('Environment', html.table(['', ''], collect_env().items(), text=True)),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html.page('Training report', sections), encoding='utf-8')
    return remarks + more


def first_seeds(logs: Sequence[RunLog]) -> List[RunLog]:
    """Of each config, the training of the lowest seed that was validated and has a checkpoint."""
    chosen: Dict[str, RunLog] = {}
    for log in sorted(logs, key=lambda log: log.seed or 0):
        if log.curve and log.checkpoint:
            chosen.setdefault(log.stem, log)
    return list(chosen.values())


def introduction(examined: Sequence[Examined], curves: dict) -> str:
    data = examined[0].subject.dataset
    seeds = ', '.join(f'{name}: {len(runs)}' for name, runs in curves.items())
    looked_into = ', '.join(f'{one.log.stem} of seed {one.log.seed}' for one in examined)
    return (
        f'mmdet_stable {__version__}, {datetime.date.today()}. {len(data)} test images with '
        f'{len(data.metainfo["classes"])} classes. Trainings: {seeds}. Looked into: {looked_into}.'
    )


def overview(examined: Sequence[Examined], curves: dict) -> str:
    rows = [
        [one.subject.name, f'{one.log.last_epoch} of {one.log.max_epochs}']
        + [number(one.results.metrics.get(name)) for name in METRICS]
        for one in examined
    ]
    runs = {name: list(by_seed.values()) for name, by_seed in curves.items()}
    return html.section(
        'Average precision',
        html.table(['', 'epochs', *METRICS], rows),
        html.picture(inlined(functools.partial(plot_convergence, runs)), 'AP after each validated epoch'),
    )


def per_class(examined: Sequence[Examined]) -> str:
    classes = examined[0].results.class_aps
    rows = [[name, *(number(one.results.class_aps[name]) for one in examined)] for name in classes]
    return html.section('AP of each class', html.table(['class', *(one.subject.name for one in examined)], rows))


def matching(examined: Sequence[Examined], num_images: int) -> str:
    scores = {one.subject.name: one.results.unstable_scores for one in examined}
    points = {one.subject.name: one.results.alignment for one in examined}
    layers = sorted({layer for by_layer in scores.values() for layer in by_layer})
    rows = [
        [name, *(number(by_layer.get(layer)) for layer in layers), number(correlation(points[name]), 2)]
        for name, by_layer in scores.items()
    ]
    caption = f'Share of ground truths whose query changes, first {num_images} images; lower is more stable'
    return html.section(
        'Matching',
        html.table(['unstable score in %', *(f'layer {layer}' for layer in layers), 'correlation'], rows),
        html.pair(
            html.picture(inlined(functools.partial(plot_unstable_scores, scores)), caption),
            html.picture(
                inlined(functools.partial(plot_score_alignment, points)), 'Score against IoU of the best-placed queries'
            ),
        ),
    )


def examples(examined: Sequence[Examined], score_threshold: float) -> str:
    batches = list(examined[0].subject.batches(NUM_EXAMPLES))
    samples = [batch['data_samples'][0] for batch in batches]
    found = {'ground truth': [boxes_of(sample.gt_instances) for sample in samples]}
    for one in examined:
        detected = [detect(one.subject.model, batch)[0] for batch in one.subject.batches(NUM_EXAMPLES)]
        found[one.subject.name] = [boxes.above(score_threshold) for boxes in detected]
    images = [mmcv.imread(sample.img_path, channel_order='rgb') for sample in samples]
    draw = functools.partial(plot_detections, images, found, examined[0].subject.dataset.metainfo['classes'])
    caption = f'The first test images; boxes of a score of {score_threshold} or more'
    return html.section('Detections', html.picture(inlined(draw), caption))


def settings(examined: Sequence[Examined]) -> str:
    """Settings in which the configs differ."""
    first, *others = (one.log.cfg for one in examined)
    keys = sorted({key for other in others for key in decisive_differences(first, other)})
    if not keys:
        return html.section('Settings', html.paragraph('Nothing to compare: one config.'))
    values = [dict(flatten(one.log.cfg.to_dict())) for one in examined]
    rows = [[key, *(str(settings.get(key, '')) for settings in values)] for key in keys]
    head = ['setting', *(one.subject.name for one in examined)]
    return html.section('Settings that differ', html.table(head, rows, text=True))


def number(value: Optional[float], digits: int = 1) -> str:
    """A cell; empty for what is not known."""
    return '' if value is None or math.isnan(value) else f'{value:.{digits}f}'
