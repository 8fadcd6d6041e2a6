"""One page on one or several trainings: curves, AP by class, matching, detections, settings, environment. Example:

python tools/analysis/report.py work_dirs/small

The page is a single file, report.html in the first folder, that opens without a server. Trainings of one config count
as seeds of one curve; all else is measured on the one of the lowest seed.

Models are built as the configs in the work dirs say, which can run any code: --trust says that you trust whoever made
them. Without it, the tool asks.
"""

import argparse
import sys
from pathlib import Path
from typing import Optional, Sequence

from inputs import add_out, add_trust, explained, output_path, require_trust
from mmengine.device import get_device

from mmdet_stable.evaluation import find_runs
from mmdet_stable.visualization.report import write_report


def main(argv: Optional[Sequence[str]] = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work_dirs', nargs='+', type=Path, help='folders with trainings, at any depth')
    parser.add_argument('--num-images', type=int, default=20, help='for unstable scores and alignment')
    parser.add_argument('--score-thr', type=float, help='lowest score of a box that is shown; default: of the best F1')
    parser.add_argument('--best', action='store_true', help='look into the best checkpoint, where one was kept')
    parser.add_argument('--device', default=get_device())
    add_out(parser, 'report.html', 'the page')
    add_trust(parser)
    args = parser.parse_intermixed_args(argv)
    if find_runs(args.work_dirs)[0]:
        require_trust(args.work_dirs, args.trust)
    out = output_path(args)
    remarks = write_report(args.work_dirs, out, args.device, args.num_images, args.score_thr, args.best).remarks
    print('\n'.join(remarks), end='\n' if remarks else '', file=sys.stderr)
    print(f'report: {out}')


if __name__ == '__main__':
    explained(main)
