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
from typing import List, Optional, Sequence

from mmengine.config import Config, DictAction
from sweep import Job, check_settings, job_config, run
from terminaltables import AsciiTable, GithubFlavoredMarkdownTable

from mmdet_stable.evaluation import METRICS, Row, RunLog, find_runs, load_manifest, published_gain, spread
from mmdet_stable.evaluation.comparison import Result, compare, decisive_differences, mean, points, signed
from mmdet_stable.utils.children import INTERRUPTED, stoppable

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / 'configs' / 'manifest.yml'


def main() -> int:
    args = parse_args()
    all_rows = load_manifest(MANIFEST)
    try:
        rows = select_rows(all_rows, args.tables, args.rows)
        with stoppable():
            remarks = run_rows(rows, args) if args.run else []
        failed = bool(remarks)
        runs, left_out = find_runs([*args.work_dirs, *([args.work_root] if args.run else [])])
    except (ValueError, FileNotFoundError) as error:  # mistakes of the user, which need no traceback
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        print('\nstopped; repeat to go on', file=sys.stderr)
        return INTERRUPTED
    if args.list:
        table = listing(rows, all_rows)
    else:
        results, unlike = compare(rows, all_rows, runs, args.metric, MANIFEST.parent)
        table = spread_sheet(results) if args.format == 'csv' else result_table(results, args.metric)
        remarks += left_out + unlike
    text = render(table, args.format)
    print(text)
    print('\n'.join(remarks), end='\n' if remarks else '', file=sys.stderr)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text('\n'.join([text, *([] if args.format == 'csv' else ['', *remarks])]) + '\n')
    return 1 if failed else 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='*', type=Path, help='folders with work dirs, at any depth')
    parser.add_argument('--list', action='store_true', help='print the manifest: rows, configs, published values')
    parser.add_argument('--tables', nargs='+', metavar='TABLE', help='only these tables')
    parser.add_argument('--rows', nargs='+', metavar='TABLE.ROW', help='only these rows')
    parser.add_argument('--metric', choices=list(METRICS), default='AP')
    parser.add_argument('--format', choices=['terminal', 'markdown', 'csv'], default='terminal')
    parser.add_argument('--out', type=Path, help='also write the table, and remarks on it, to this file')
    group = parser.add_argument_group('training what is missing')
    group.add_argument('--run', action='store_true', help='train rows that are not finished under --work-root')
    group.add_argument('--work-root', type=Path, default=Path('work_dirs'), help='holds <config>/seed_<n>')
    group.add_argument('--seeds', nargs='+', type=int, default=[60])
    group.add_argument('--gpus', type=int, default=0, metavar='N', help='train with tools/dist_train.sh on N GPUs')
    group.add_argument('--overlay', type=Path, help='config whose own settings, without its _base_, go over each row')
    group.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='as in tools/train.py')
    args = parser.parse_intermixed_args()
    if not (args.list or args.run or args.work_dirs):
        parser.error('give work dirs, --list or --run')
    return args


def select_rows(rows: List[Row], tables: Optional[Sequence[str]], ids: Optional[Sequence[str]]) -> List[Row]:
    """The rows asked for.

    Raises:
        ValueError: for tables and rows that the manifest does not have, or no row at all.
    """
    for kind, wanted, known in [
        ('tables', tables, list(dict.fromkeys(row.table for row in rows))),
        ('rows', ids, [row.id for row in rows]),
    ]:
        unknown = [item for item in wanted or () if item not in known]
        if unknown:
            raise ValueError(f'--{kind} {unknown}: known are {", ".join(map(str, known))}')
    selected = [row for row in rows if (not tables or row.table in tables) and (not ids or row.id in ids)]
    if not selected:
        raise ValueError(f'--rows {ids}: none of them lies in --tables {tables}')
    return selected


def run_rows(rows: Sequence[Row], args: argparse.Namespace) -> List[str]:
    """Train each config with each seed, seed by seed, so that a first full table comes early; returns the failures."""
    configs = list(dict.fromkeys(row.config for row in rows))
    jobs = [
        Job(ROOT / 'configs' / config, seed, args.work_root.resolve() / Path(config).stem / f'seed_{seed}')
        for seed in args.seeds
        for config in configs
    ]
    cfgs = [job_config(job, args.overlay, args.cfg_options) for job in jobs]
    for job, cfg in zip(jobs, cfgs):
        check_settings(job, cfg)  # before the first one is trained, not days later
    warn_of_batch_size(cfgs[0], args)
    by_hand = find_runs([args.work_root])[0] if args.work_root.exists() else []
    failures = []
    for number, (job, cfg) in enumerate(zip(jobs, cfgs), 1):
        print(f'[{number}/{len(jobs)}] {job.config.stem}, seed {job.seed}: ', end='', file=sys.stderr, flush=True)
        done = [log for log in by_hand if is_run_of(log, job, cfg)]
        outcome = f'finished before, in {done[0].work_dir}' if done else run(job, cfg, args.gpus)
        print(outcome, file=sys.stderr)
        if outcome == 'failed':
            failures.append(f'failed: {job.config.stem}, seed {job.seed}; see the end of {job.work_dir}/output.txt')
    return failures


def is_run_of(log: RunLog, job: Job, cfg: Config) -> bool:
    """Whether a run found elsewhere, made by hand, is what a job asks for."""
    same_place = log.work_dir == job.work_dir
    same_row = (log.stem, log.seed) == (job.config.stem, job.seed)
    return same_row and not same_place and log.finished and not decisive_differences(log.cfg, cfg)


def warn_of_batch_size(cfg: Config, args: argparse.Namespace) -> None:
    total, base = cfg.train_dataloader.batch_size * max(args.gpus, 1), cfg.auto_scale_lr.base_batch_size
    if total != base and not args.overlay:
        print(
            f'warning: the learning rate is made for {base} images a step, these runs have {total}: set --gpus, or '
            'train_dataloader.batch_size or optim_wrapper.optimizer.lr by --cfg-options',
            file=sys.stderr,
        )


def listing(rows: Sequence[Row], all_rows: Sequence[Row]) -> List[List[str]]:
    """The manifest as a table."""
    return [['row', 'name', 'config', *METRICS, 'gain']] + [
        [row.id, row.name, f'configs/{row.config}']
        + [points(row.published.get(metric)) for metric in METRICS]
        + [signed(published_gain(row, all_rows))]
        for row in rows
    ]


def result_table(results: Sequence[Result], metric: str) -> List[List[str]]:
    head = ['row', 'name', 'runs', f'{metric}, ours', 'published', 'difference', 'gain, ours', 'gain, published']
    return [head] + [
        [
            *(result.row.id, result.row.name, result.status),
            spread(result.values) + ('' if result.comparable or not result.values else '*'),
            *(points(result.published), signed(result.difference)),
            *(signed(result.gain), signed(result.published_gain)),
        ]
        for result in results
    ]


def spread_sheet(results: Sequence[Result]) -> List[List[str]]:
    """The same with one number in a cell."""
    head = [
        'row',
        'name',
        'runs',
        'seeds',
        'ours',
        'std',
        'comparable',
        'published',
        'difference',
        'gain',
        'published_gain',
    ]
    return [head] + [
        [
            *(result.row.id, result.row.name, result.status, str(len(result.values))),
            points(mean(result.values)),
            points(statistics.stdev(result.values)) if len(result.values) > 1 else '',
            ('yes' if result.comparable else 'no') if result.values else '',
            *(points(result.published), signed(result.difference)),
            *(signed(result.gain), signed(result.published_gain)),
        ]
        for result in results
    ]


def render(table: List[List[str]], style: str) -> str:
    if style == 'csv':
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows(table)
        return text.getvalue().rstrip('\n')
    return (AsciiTable if style == 'terminal' else GithubFlavoredMarkdownTable)(table).table


if __name__ == '__main__':
    sys.exit(main())
