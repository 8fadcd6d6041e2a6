"""The published tables beside our own results. Examples:

python tools/analysis/ablation_table.py --list                       # every row, its config and the paper's values
python tools/analysis/ablation_table.py work_dirs                    # our results found in these folders, beside them
python tools/analysis/ablation_table.py --run --tables 7 --gpus 8    # train what is missing, then print the table

A whole table at small scale, on digit scenes, with two seeds; stopped at any time, the same command goes on:

python tools/analysis/ablation_table.py --run --rows 6.1 6.2 6.3 --seeds 60 61 --overlay configs/demo_digits.py \\
    --work-root work_dirs/small
"""

import argparse
import csv
import io
import statistics
import sys
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from mmengine.config import Config, DictAction
from sweep import Job, job_config, run
from terminaltables import AsciiTable, GithubFlavoredMarkdownTable

from mmdet_stable.evaluation import (
    METRICS,
    Row,
    RunLog,
    differing_settings,
    find_runs,
    load_manifest,
    published_gain,
    spread,
)

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / 'configs' / 'manifest.yml'
# What a row means: these settings, less who runs it and where the data lies.
DECISIVE = (
    'model',
    'train_dataloader',
    'val_dataloader',
    'val_evaluator',
    'train_cfg',
    'optim_wrapper',
    'param_scheduler',
)
INCIDENTAL = ('num_workers', 'persistent_workers', 'backend_args', 'data_root', 'ann_file', 'data_prefix', 'checkpoint')


def main() -> int:
    args = parse_args()
    rows = select_rows(load_manifest(MANIFEST), args.tables, args.rows)
    failures = []
    if args.run:
        failures = run_rows(rows, args)
        args.work_dirs.append(args.work_root)
    remarks: List[str] = []
    if args.list:
        table = listing(rows)
    else:
        runs, remarks = find_runs(args.work_dirs)
        table, notes = results(rows, load_manifest(MANIFEST), runs, args.metric)
        remarks += notes
    text = render(table, args.format)
    if args.out:
        Path(args.out).write_text(text)
    print(text)
    for remark in remarks + failures:
        print(remark, file=sys.stderr)
    return 1 if failures else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='*', type=Path, help='folders with work dirs, at any depth')
    parser.add_argument('--list', action='store_true', help='print the manifest: rows, configs, published values')
    parser.add_argument('--tables', nargs='+', metavar='TABLE', help='only these tables')
    parser.add_argument('--rows', nargs='+', metavar='TABLE.ROW', help='only these rows')
    parser.add_argument('--metric', choices=list(METRICS), default='AP')
    parser.add_argument('--format', choices=['terminal', 'markdown', 'csv'], default='terminal')
    parser.add_argument('--out', help='also write the table to this file')
    group = parser.add_argument_group('training what is missing')
    group.add_argument('--run', action='store_true', help='train rows that are not finished under --work-root')
    group.add_argument('--work-root', type=Path, default=Path('work_dirs'), help='holds <config>/seed_<n>')
    group.add_argument('--seeds', nargs='+', type=int, default=[60])
    group.add_argument('--gpus', type=int, default=0, metavar='N', help='train with tools/dist_train.sh on N GPUs')
    group.add_argument('--overlay', type=Path, help='config whose own settings, without its _base_, go over each row')
    group.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in tools/train.py')
    args = parser.parse_args()
    if not (args.list or args.run or args.work_dirs):
        parser.error('give work dirs, --list or --run')
    return args


def select_rows(rows: List[Row], tables: Optional[Sequence[str]], ids: Optional[Sequence[str]]) -> List[Row]:
    """The rows asked for.

    Raises:
        ValueError: for tables and rows that the manifest does not have.
    """
    for kind, wanted, known in [
        ('tables', tables, list(dict.fromkeys(row.table for row in rows))),
        ('rows', ids, [row.id for row in rows]),
    ]:
        unknown = [item for item in wanted or () if item not in known]
        if unknown:
            raise ValueError(f'--{kind} {unknown}: known are {", ".join(map(str, known))}')
    return [row for row in rows if (not tables or row.table in tables) and (not ids or row.id in ids)]


def run_rows(rows: Sequence[Row], args: argparse.Namespace) -> List[str]:
    """Train each config with each seed, seed by seed, so that a first full table comes early; returns the failures."""
    configs = list(dict.fromkeys(row.config for row in rows))
    jobs = [
        Job(ROOT / 'configs' / config, seed, args.work_root.resolve() / Path(config).stem / f'seed_{seed}')
        for seed in args.seeds
        for config in configs
    ]
    failures = []
    for number, job in enumerate(jobs, 1):
        print(f'[{number}/{len(jobs)}] {job.config.stem}, seed {job.seed}: ', end='', file=sys.stderr, flush=True)
        outcome = run(job, job_config(job, args.overlay, args.cfg_options), args.gpus)
        print(outcome, file=sys.stderr)
        if outcome == 'failed':
            failures.append(f'failed: {job.config.stem}, seed {job.seed}; see the end of {job.work_dir}/output.txt')
    return failures


def listing(rows: Sequence[Row]) -> List[List[str]]:
    """The manifest as a table."""
    head = ['row', 'name', 'config', *METRICS, 'gain']
    return [head] + [
        [row.id, row.name, f'configs/{row.config}']
        + [points(row.published.get(metric)) for metric in METRICS]
        + [signed(published_gain(row, rows))]
        for row in rows
    ]


def results(
    rows: Sequence[Row], all_rows: Sequence[Row], runs: Sequence[RunLog], metric: str
) -> Tuple[List[List[str]], List[str]]:
    """Our results beside the published ones, and remarks on what is left out or must not be compared."""
    configs = {row.stem: row.config for row in all_rows}
    logs: Dict[str, List[RunLog]] = {stem: [log for log in runs if log.stem == stem] for stem in configs}
    ours = {
        stem: [log.final[metric] for log in group if log.finished and metric in log.final]
        for stem, group in logs.items()
    }
    unlike = {row.stem: unlike_its_config(row, logs[row.stem]) for row in rows if logs[row.stem]}
    bases = {row.id: row.stem for row in all_rows}

    table = [['row', 'name', 'runs', f'{metric}, ours', 'published', 'difference', 'gain, ours', 'gain, published']]
    for row in rows:
        values, base = ours[row.stem], ours[bases[row.baseline]] if row.baseline else []
        comparable = not unlike.get(row.stem)
        published, average = row.published.get(metric), mean(values)
        table.append(
            [
                *(row.id, row.name, status(logs[row.stem], metric)),
                spread(values) + ('*' if values and not comparable else ''),
                points(published),
                signed(difference(average, published) if comparable else None),
                *(signed(difference(average, mean(base))), signed(published_gain(row, all_rows, metric))),
            ]
        )
    remarks = [f'{log.work_dir} left out: {log.stem} is no row' for log in runs if log.stem not in configs]
    starred = {stem: keys for stem, keys in unlike.items() if keys}
    if starred:
        keys = max(starred.values(), key=len)
        remarks.append(
            f'* not trained with the settings of their configs, so not comparable with what is published: '
            f'{", ".join(starred)}. Up to {len(keys)} settings differ, among them {", ".join(keys[:4])}'
        )
    return table, remarks


def unlike_its_config(row: Row, logs: Sequence[RunLog]) -> List[str]:
    """Settings in which the runs of a row differ from its config.

    Raises:
        ValueError: if the runs differ among each other, so that their mean would mean nothing.
    """
    for log in logs[1:]:
        differing = decisive_differences(logs[0].cfg, log.cfg)
        if differing:
            raise ValueError(
                f'{logs[0].work_dir} and {log.work_dir} are runs of {row.stem} with different settings: '
                f'{", ".join(differing[:5])}; give only folders that belong together'
            )
    return decisive_differences(Config.fromfile(ROOT / 'configs' / row.config), logs[0].cfg)


def decisive_differences(a: Config, b: Config) -> List[str]:
    return [key for key in differing_settings(a, b, INCIDENTAL) if key.split('.')[0] in DECISIVE]


def status(logs: Sequence[RunLog], metric: str) -> str:
    """E.g. ``'2 done, seed 62 at 4/12: 38.2'``."""
    parts = [f'{sum(log.finished for log in logs)} done'] if any(log.finished for log in logs) else []
    for log in logs:
        if not log.finished:
            epoch, metrics = max(log.curve.items(), default=(0, {}))
            value = f': {points(metrics[metric])}' if metric in metrics else ''
            parts.append(f'seed {log.seed} at {epoch}/{log.max_epochs}{value}')
    return ', '.join(parts) or 'not run'


def mean(values: Sequence[float]) -> Optional[float]:
    return statistics.mean(values) if values else None


def difference(a: Optional[float], b: Optional[float]) -> Optional[float]:
    return None if a is None or b is None else a - b


def points(value: Optional[float]) -> str:
    return '' if value is None else f'{value:.1f}'


def signed(value: Optional[float]) -> str:
    return '' if value is None else f'{value:+.1f}'


def render(table: List[List[str]], style: str) -> str:
    if style == 'csv':
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows(table)
        return text.getvalue().rstrip('\n')
    return (AsciiTable if style == 'terminal' else GithubFlavoredMarkdownTable)(table).table


if __name__ == '__main__':
    sys.exit(main())
