"""Own results beside the published ones, as far as they can be compared."""

import statistics
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

from mmengine.config import Config

from .manifest import Row, published_gain
from .run_log import RunLog, differing_settings, flatten

# What a row means: these settings, less who runs it and where the data lies.
DECISIVE = (
    *('model', 'train_dataloader', 'val_dataloader', 'val_evaluator', 'train_cfg', 'optim_wrapper', 'param_scheduler'),
    'load_from',
)
INCIDENTAL = ('num_workers', 'persistent_workers', 'backend_args', 'data_root', 'data_prefix')


class Result(NamedTuple):
    """What is known of a row in one metric, in points."""

    row: Row
    status: str
    values: List[float]  # of finished runs
    comparable: bool  # with the published value
    published: Optional[float]
    difference: Optional[float]
    gain: Optional[float]
    published_gain: Optional[float]


def compare(
    rows: Sequence[Row], all_rows: Sequence[Row], runs: Sequence[RunLog], metric: str, configs: Path
) -> Tuple[List[Result], List[str]]:
    """Our results beside the published ones.

    Args:
        rows: to compare.
        all_rows: of the manifest, to find baselines.
        runs: see :func:`find_runs`.
        metric: of :data:`METRICS`.
        configs: folder of the manifest.

    Returns:
        One result per row, and remarks on what is left out or must not be compared.
    """
    by_id = {row.id: row for row in all_rows}
    wanted = {row.stem: row for row in [*rows, *(by_id[row.baseline] for row in rows if row.baseline)]}
    known = {row.stem for row in all_rows}
    remarks = [f'{log.work_dir} left out: {log.stem} is no row' for log in runs if log.stem not in known]
    logs, unlike = {}, {}
    for stem, row in wanted.items():
        logs[stem], left_out = runs_that_belong_together([log for log in runs if log.stem == stem])
        unlike[stem] = (
            decisive_differences(Config.fromfile(configs / row.config), logs[stem][0].cfg) if logs[stem] else []
        )
        remarks += left_out
    ours = {
        stem: [log.final[metric] for log in group if log.finished and metric in log.final]
        for stem, group in logs.items()
    }

    results = []
    for row in rows:
        average, published = mean(ours[row.stem]), row.published.get(metric)
        gain = None
        if row.baseline:
            base = by_id[row.baseline].stem
            if equal_settings(logs[row.stem], logs[base], {*unlike[row.stem], *unlike[base]}):
                gain = difference(average, mean(ours[base]))
        results.append(
            Result(
                row=row,
                status=status(logs[row.stem], metric),
                values=ours[row.stem],
                comparable=not unlike[row.stem],
                published=published,
                difference=None if unlike[row.stem] else difference(average, published),
                gain=gain,
                published_gain=published_gain(row, all_rows, metric),
            )
        )
    starred = {
        result.row.stem: unlike[result.row.stem] for result in results if result.values and not result.comparable
    }
    if starred:
        keys = max(starred.values(), key=len)
        remarks.append(
            '* not trained with the settings of their configs, so not comparable with what is published: '
            f'{", ".join(starred)}. Up to {len(keys)} settings differ, among them {", ".join(keys[:4])}'
        )
    return results, remarks


def runs_that_belong_together(logs: Sequence[RunLog]) -> Tuple[List[RunLog], List[str]]:
    """One run of each seed, all of the same settings as the first; and remarks on those left out."""
    kept: Dict[Optional[int], RunLog] = {}
    remarks = []
    for log in logs:
        first = next(iter(kept.values()), log)
        differing = decisive_differences(first.cfg, log.cfg)
        if differing:
            remarks.append(
                f'{log.work_dir} left out: other settings than {first.work_dir} in {", ".join(differing[:5])}; '
                'give only folders that belong together'
            )
        elif log.seed in kept:
            remarks.append(
                f'{log.work_dir} left out: seed {log.seed} is already counted, from {kept[log.seed].work_dir}'
            )
        else:
            kept[log.seed] = log
    return list(kept.values()), remarks


def decisive_differences(a: Config, b: Config) -> List[str]:
    """Keys of settings that make two runs different experiments."""
    values = [dict(flatten(cfg.to_dict())) for cfg in (a, b)]
    keys = []
    for key in differing_settings(a, b, INCIDENTAL):
        pair = [side.get(key) for side in values]
        moved = key.endswith('ann_file') and len({Path(str(value)).name for value in pair}) == 1
        resumed = key == 'load_from' and None in pair  # mmengine forgets it on resuming
        if key.split('.')[0] in DECISIVE and not moved and not resumed:
            keys.append(key)
    return keys


def equal_settings(a: Sequence[RunLog], b: Sequence[RunLog], keys: Set[str]) -> bool:
    """Whether two rows were run on the same terms, where these are not those of their configs."""
    if not a or not b:
        return False
    values = [dict(flatten(logs[0].cfg.to_dict())) for logs in (a, b)]
    return all(values[0].get(key) == values[1].get(key) or key.endswith('ann_file') for key in keys)


def status(logs: Sequence[RunLog], metric: str) -> str:
    """E.g. ``'2 done, seed 62 at 5/12, after 4: 38.2'``."""
    done = sum(log.finished for log in logs)
    parts = [f'{done} done'] if done else []
    for log in logs:
        if not log.finished:
            part = f'seed {log.seed} at {log.last_epoch}/{log.max_epochs}'
            validated = [epoch for epoch, metrics in log.curve.items() if metric in metrics]
            if validated:
                part += f', after {validated[-1]}: {points(log.curve[validated[-1]][metric])}'
            parts.append(part)
    return ', '.join(parts) or 'not run'


def mean(values: Sequence[float]) -> Optional[float]:
    return statistics.mean(values) if values else None


def difference(a: Optional[float], b: Optional[float]) -> Optional[float]:
    return None if a is None or b is None else a - b


def points(value: Optional[float]) -> str:
    return '' if value is None else f'{value:.1f}'


def signed(value: Optional[float]) -> str:
    return '' if value is None else f'{value:+.1f}'
