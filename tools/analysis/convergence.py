"""AP against epochs from the logs of trainings, with seeds as bands, as Figs. 5 and 8 of Stable-DINO. Example:

python tools/analysis/convergence.py work_dirs/small --metric AP

Runs of one config count as seeds of one line. To train what is compared, see tools/benchmarks/convergence.py.
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from inputs import add_out, explained, output_path

from mmdet_stable.evaluation import METRICS, find_runs
from mmdet_stable.evaluation.curves import read_curves, write_curves
from mmdet_stable.visualization import plot_convergence


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='folders with trainings, at any depth')
    parser.add_argument('--metric', choices=list(METRICS), default='AP')
    parser.add_argument('--title', default='')
    add_out(parser, 'convergence.png', 'the picture; its numbers go beside it as CSV')
    args = parser.parse_intermixed_args(argv)
    logs, remarks = find_runs(args.work_dirs)
    curves, more = read_curves(logs, args.metric, {log.stem: log.stem for log in logs})
    print('\n'.join(remarks + more), end='\n' if remarks + more else '', file=sys.stderr)
    out = output_path(args)
    plot_convergence({name: list(runs.values()) for name, runs in curves.items()}, out, args.title, args.metric)
    write_curves(curves, out.with_suffix('.csv'), args.metric)
    for name, runs in curves.items():
        print(f'{name}: {args.metric} ' + ', '.join(f'{list(run.values())[-1]} (seed {s})' for s, run in runs.items()))


if __name__ == '__main__':
    explained(main)
