"""Detects in pictures, folders, videos and URLs; draws what it finds, and writes it as one COCO file."""

import argparse
import sys
import time
from collections import Counter
from pathlib import Path
from typing import List

from mmdet_stable.inference.cli import add_model_arguments, detector_of
from mmdet_stable.inference.coco_results import CocoResults
from mmdet_stable.inference.detector import Detector, Outcome
from mmdet_stable.inference.drawings import Drawings
from mmdet_stable.utils.arguments import at_least, below_one, fraction
from mmdet_stable.utils.files import check_writable

HELP = 'detect in pictures, folders, videos and URLs'
THRESHOLD = 0.3  # for models of which nobody knows better


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        'pictures', nargs='+', metavar='PICTURE', help="files, folders, videos, URLs, and patterns as 'shots/**/*.jpg'"
    )
    parser.add_argument(
        *('-o', '--out'),
        type=Path,
        default=Path('predictions'),
        metavar='DIR',
        help='folder that predictions.json and drawings/ are written to; default: predictions',
    )
    parser.add_argument(
        '--score-threshold',
        type=fraction,
        metavar='SCORE',
        help=f'lowest score that is kept, 0 to 1; default: what `train` found to suit the model, or {THRESHOLD}',
    )
    parser.add_argument(
        '--slice', type=at_least(1), metavar='SIZE', help='also look at slices of SIZE x SIZE pixels; by SAHI'
    )
    parser.add_argument(
        '--overlap',
        type=below_one,
        default=0.2,
        metavar='PART',
        help='of neighbouring slices, as part of their size, 0 on and below 1; default: 0.2',
    )
    parser.add_argument('--no-drawings', action='store_true', help='write no pictures')


def run(args: argparse.Namespace) -> int:
    """Detect; 1 where anything went wrong, after all else is done."""
    return Prediction(args, detector_of(args)).run()


class Prediction:
    """One call of the command: what is written, counted and timed."""

    def __init__(self, args: argparse.Namespace, detector: Detector) -> None:
        self.args = args
        self.detector = detector
        self.results = CocoResults(detector.classes)
        self.bad: List[str] = []
        self.seconds_in_model = 0.0
        point = detector.operating_point
        self.score_threshold = args.score_threshold
        if self.score_threshold is None:
            self.score_threshold = point.score_threshold if point else THRESHOLD

    def run(self) -> int:
        """All pictures; the COCO file is written even where the work is interrupted, unless nothing is done."""
        args, start, complete = self.args, time.perf_counter(), False
        check_writable(args.out, 'folder', '--out')
        stream = self.detector.stream(args.pictures, args.batch_size, self.score_threshold, args.slice, args.overlap)
        try:
            with Drawings(args.out / 'drawings') as drawings:
                for outcome in stream:
                    self._take(outcome, drawings)
            complete = True
        finally:
            if complete or self.results.images:  # else earlier results would be lost for nothing
                self.results.write(args.out / 'predictions.json', complete)
        self._summarise(time.perf_counter() - start)
        return 1 if self.bad else 0

    def _take(self, outcome: Outcome, drawings: Drawings) -> None:
        picture, sample = outcome.picture, outcome.sample
        self.seconds_in_model += outcome.seconds
        if sample is None or outcome.image is None:
            self.bad.append(outcome.problem)
            return
        self.results.add(sample, picture.name, picture.frame)
        if not self.args.no_drawings:
            drawings.write(picture, self.detector.draw(outcome.image, sample))
        counts = Counter(self.detector.classes[label] for label in sample.pred_instances.labels.tolist())
        print(f'{picture}: {", ".join(f"{number} {name}" for name, number in counts.most_common()) or "nothing"}')

    def _summarise(self, seconds: float) -> None:
        done, found = len(self.results.images), len(self.results.annotations)
        print(f'\npictures {done}, detections {found} with a score of at least {self.score_threshold:g}')
        if done:
            print(
                f'pictures per second: {done / self.seconds_in_model:.2f} in the model, {done / seconds:.2f} in all, '
                'with reading, drawing and writing'
            )
        print(f'written: {self.args.out / "predictions.json"}', end='')
        print('' if self.args.no_drawings or not done else f' and {self.args.out / "drawings"}')
        if self.bad:
            print(f'{len(self.bad)} could not be done:', *self.bad, sep='\n  ', file=sys.stderr)
