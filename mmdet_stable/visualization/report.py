"""One page on one or several trainings, in one file."""

import copy
import datetime
import functools
import math
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import mmcv
from mmdet.utils import collect_env

from mmdet_stable.evaluation import METRICS, RunLog, Subject, find_runs, flatten, load_subject
from mmdet_stable.evaluation.comparison import decisive_differences
from mmdet_stable.evaluation.curves import read_curves
from mmdet_stable.evaluation.detections import Boxes, right_and_found
from mmdet_stable.evaluation.examination import Examination, examine
from mmdet_stable.evaluation.operating_point import OperatingPoint, best_operating_point
from mmdet_stable.evaluation.pair_quality import correlation
from mmdet_stable.utils.files import write_whole
from mmdet_stable.utils.work_dir import best_checkpoint, latest_checkpoint
from mmdet_stable.versions import __version__

from . import html
from .convergence import plot_convergence
from .detections import plot_judged, plot_truth
from .matching import plot_score_alignment, plot_unstable_scores
from .output import inlined

NUM_EXAMPLES = 6  # half of them with errors, half without, where there are such
SHOWN_OF_ENVIRONMENT = ('Python', 'PyTorch', 'MMCV', 'MMEngine', 'MMDetection', 'GPU 0')


class Report(NamedTuple):
    """What is known after a report was written.

    Attributes:
        remarks: on trainings that were left out.
        points: of each checkpoint that was looked into, where its detections have the best F1, if it finds anything.
    """

    remarks: List[str]
    points: Dict[Path, OperatingPoint]


class Examined(NamedTuple):
    """A training, the weights that were looked into, their model, what was found out about it, and the score from which
    on its detections are shown."""

    log: RunLog
    checkpoint: Path
    subject: Subject
    results: Examination
    score_threshold: float


def write_report(
    work_dirs: Sequence[Path],
    path: Path,
    device: str = 'cpu',
    num_images: int = 20,
    score_threshold: Optional[float] = None,
    best: bool = False,
) -> Report:
    """Evaluate trainings and write the page.

    Trainings of one config are seeds of one curve; all else is measured on the one of the lowest seed.

    Args:
        work_dirs: folders with trainings, at any depth, on the same data.
        path: of the page.
        device: where models run.
        num_images: how many images to look at for unstable scores and alignment.
        score_threshold: lowest score of the detections that are drawn; for each model that of the best F1, for None.
        best: look into the checkpoint that ``save_best`` kept, where there is one, instead of the last.

    Returns:
        Remarks, and the scores of the best F1.

    Raises:
        FileNotFoundError: if a folder does not exist.
        ValueError: if there is no training with a validated checkpoint, or they have different classes.
    """
    logs, remarks = find_runs(work_dirs)
    curves, more = read_curves(logs, 'AP', {log.stem: log.stem for log in logs})
    examined, points = [], {}
    for log, checkpoint in first_seeds(logs, best):
        cfg = copy.deepcopy(log.cfg)  # mmdet writes into it
        subject = load_subject(log.stem, cfg, checkpoint, device)
        results = examine(subject, num_images)
        point = best_operating_point(results.images.values())
        if point is not None:
            points[checkpoint] = point
        threshold = score_threshold if score_threshold is not None else point.score_threshold if point else 0.0
        examined.append(Examined(log, checkpoint, subject, results, threshold))
    if not examined:
        raise ValueError(f'{", ".join(map(str, work_dirs))}: no training that was validated and has a checkpoint')
    if len({tuple(one.subject.dataset.metainfo['classes']) for one in examined}) > 1:
        raise ValueError('the trainings have different classes: write one report for each data set')
    sections = [
        html.paragraph(introduction(examined, curves)),
        overview(examined, curves),
        per_class(examined),
        matching(examined, num_images),
        examples(examined),
        settings(examined),
        environment(),
    ]
    write_whole(path, html.page('Training report', sections))
    return Report(remarks + more, points)


def first_seeds(logs: Sequence[RunLog], best: bool) -> List[Tuple[RunLog, Path]]:
    """Of each config, the training of the lowest seed that was validated and has a checkpoint, and the last or best of
    its checkpoints."""
    chosen: Dict[str, Tuple[RunLog, Path]] = {}
    for log in sorted(logs, key=lambda log: log.seed or 0):
        if log.curve and log.stem not in chosen:
            checkpoint = (best_checkpoint(log.work_dir) if best else None) or latest_checkpoint(log.work_dir)
            if checkpoint is not None:
                chosen[log.stem] = log, Path(checkpoint)
    return list(chosen.values())


def introduction(examined: Sequence[Examined], curves: dict) -> str:
    data = examined[0].subject.dataset
    seeds = ', '.join(f'{name}: {len(runs)}' for name, runs in curves.items())
    looked_into = ', '.join(f'{one.log.stem} of seed {one.log.seed}' for one in examined)
    return (
        f'mmdet_stable {__version__}, {datetime.date.today()}. {len(data)} images with '
        f'{len(data.metainfo["classes"])} classes. Trainings: {seeds}. Looked into: {looked_into}.'
    )


def overview(examined: Sequence[Examined], curves: dict) -> str:
    measured = [name for name in METRICS if any(name in one.results.metrics for one in examined)]
    rows = [
        [one.subject.name, f'{one.log.last_epoch} of {one.log.max_epochs}', one.checkpoint.name]
        + [number(one.results.metrics.get(name)) for name in measured]
        for one in examined
    ]
    runs = {name: list(by_seed.values()) for name, by_seed in curves.items()}
    curve = html.picture(inlined(functools.partial(plot_convergence, runs)), 'AP after each validated epoch')
    return html.section('Average precision', html.pair(html.table(['', 'epochs', 'weights', *measured], rows), curve))


def per_class(examined: Sequence[Examined]) -> str:
    """AP of each class, beside how many objects it has in the test set, and in how many images."""
    labels = [truth.labels for truth, _ in examined[0].results.images.values()]
    rows = [
        [name, sum(int((found == label).sum()) for found in labels), sum(label in found for found in labels)]
        + [number(one.results.class_aps[name]) for one in examined]
        for label, name in enumerate(examined[0].results.class_aps)
    ]
    head = ['class', 'objects', 'images', *(one.subject.name for one in examined)]
    return html.section('AP of each class', html.table(head, rows))


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


def examples(examined: Sequence[Examined]) -> str:
    """Images with most errors, and some without, of all models together."""
    found = [
        {path: detected.above(one.score_threshold) for path, (_, detected) in one.results.images.items()}
        for one in examined
    ]
    truths = {path: truth for path, (truth, _) in examined[0].results.images.items() if all(path in f for f in found)}
    errors = {path: [errors_of(truth, boxes[path]) for boxes in found] for path, truth in truths.items()}
    chosen = choose_examples(truths, {path: sum(map(sum, counts)) for path, counts in errors.items()})
    classes, entries = examined[0].subject.dataset.metainfo['classes'], []
    for path in chosen:
        image = mmcv.imread(path, channel_order='rgb')
        draw = functools.partial(plot_truth, image, truths[path], classes)
        pictures = [html.picture(inlined(draw), f'ground truth: {len(truths[path].labels)}')]
        for one, boxes, (missed, wrong) in zip(examined, found, errors[path]):
            draw = functools.partial(plot_judged, image, truths[path], boxes[path], classes)
            pictures.append(html.picture(inlined(draw), f'{one.subject.name}: {missed} missed, {wrong} wrong'))
        entries.append((Path(path).name, pictures))
    with_errors = sum(any(map(any, counts)) for counts in errors.values())
    thresholds = ', '.join(f'{one.score_threshold:g} ({one.subject.name})' for one in examined)
    explained = (
        f'{with_errors} of {len(truths)} images have errors, counting boxes from a score of '
        f'{thresholds} on. A right box (green) has an object of its class with an IoU of 0.5 or more that no better '
        'box has; others are wrong (\N{BALLOT X}, red), also those around objects that nobody has annotated. Objects '
        'without a right box are missed (orange, dashed). Shown are the images with most errors, then those with '
        'most objects and none.'
    )
    return html.section('Detections', html.paragraph(explained), html.examples(entries))


def errors_of(truth: Boxes, detected: Boxes) -> Tuple[int, int]:
    """How many ground truths are missed, and how many detections are wrong."""
    right, found = right_and_found(truth, detected)
    return int((~found).sum()), int((~right).sum())


def choose_examples(
    truths: Mapping[str, Boxes], num_errors: Mapping[str, int], number: int = NUM_EXAMPLES
) -> List[str]:
    """Half of them images with most errors, half images with most objects among those without; where there are too few
    of one kind, more of the other."""
    bad = sorted((path for path in truths if num_errors[path]), key=lambda path: -num_errors[path])
    good = sorted((path for path in truths if not num_errors[path]), key=lambda path: -len(truths[path].labels))
    num_bad = min(len(bad), max(number - number // 2, number - len(good)))
    return bad[:num_bad] + good[: number - num_bad]


def environment() -> str:
    """The versions in one line, which opens to everything."""
    values = collect_env()
    summary = ', '.join(
        f'{name} {values[name].split(" (")[0].rstrip("+")}' for name in SHOWN_OF_ENVIRONMENT if name in values
    )
    return html.section('Environment', html.fold(summary, html.table(['', ''], values.items(), text=True)))


def settings(examined: Sequence[Examined]) -> str:
    """Settings in which the configs differ."""
    first, *others = (one.log.cfg for one in examined)
    keys = sorted({key for other in others for key in decisive_differences(first, other)})
    if not keys:
        return ''
    values = [dict(flatten(one.log.cfg.to_dict())) for one in examined]
    rows = [[key, *(str(settings.get(key, '')) for settings in values)] for key in keys]
    head = ['setting', *(one.subject.name for one in examined)]
    return html.section('Settings that differ', html.table(head, rows, text=True))


def number(value: Optional[float], digits: int = 1) -> str:
    """A cell; empty for what is not known."""
    return '' if value is None or math.isnan(value) else f'{value:.{digits}f}'
