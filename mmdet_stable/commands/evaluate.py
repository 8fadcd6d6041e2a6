"""Evaluates a detector on a COCO data set: AP, AP of each class, the LRP error, and whether scores are calibrated."""

import argparse
import os
import sys
from pathlib import Path
from typing import List, Tuple

from mmengine.config import Config

from mmdet_stable.evaluation.coco_scores import Scores
from mmdet_stable.inference.cli import add_model_arguments, detector_of
from mmdet_stable.inference.evaluating import NAMES, evaluate

HELP = 'evaluate a detector: AP by class, and calibration'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model_arguments(parser)
    parser.add_argument(
        'data',
        nargs='*',
        default=[],
        metavar='DATA',
        help='a COCO annotation file, and the folder of its images, by default that of the file; without both, the '
        "validation set of the model's config",
    )
    parser.add_argument(
        *('-o', '--out'),
        type=Path,
        default=Path('evaluation'),
        metavar='DIR',
        help='folder that numbers.json, predictions.json and reliability.png are written to; default: evaluation',
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, print and write; 1 for mistakes of the user."""
    try:
        detector = detector_of(args)
        annotations, folder = data_of(args.data, detector.config)
        scores = evaluate(detector, annotations, folder, args.batch_size, args.out)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    for kind, of_kind in scores.items():
        print(table(kind, of_kind))
    print(f'written: numbers.json, predictions.json and reliability.png in {args.out}')
    return 0


def data_of(data: List[str], cfg: Config) -> Tuple[str, str]:
    """Annotation file and image folder, of the command line or of the config's validation set."""
    if len(data) > 2:
        raise ValueError(f'DATA is an annotation file and a folder of images, got {data}')
    if data:
        annotations, folder = data[0], data[1] if len(data) == 2 else str(Path(data[0]).parent)
    else:
        dataset = (cfg.get('val_dataloader') or cfg.test_dataloader).dataset
        if not str(dataset.get('ann_file', '')).endswith('.json'):
            raise ValueError(
                f'the validation set of the config is a {dataset.type} without a COCO annotation file; give DATA: '
                'ANNOTATIONS.json IMAGE_FOLDER'
            )
        root = dataset.get('data_root') or ''
        annotations = os.path.join(root, dataset.ann_file)
        folder = os.path.join(root, (dataset.get('data_prefix') or {}).get('img') or '')
    if not os.path.isfile(annotations):
        raise FileNotFoundError(f'{annotations}: there is no such annotation file')
    if not os.path.isdir(folder):
        raise FileNotFoundError(f'{folder}: there is no such folder of images')
    return annotations, folder


def table(kind: str, scores: Scores) -> str:
    """The numbers for the terminal."""
    metrics = '  '.join(f'{name} {value:.1f}' for name, value in scores.metrics.items() if value >= 0)
    width = max(len('class'), *(len(name) for name in scores.classes))
    lines = [
        f'{NAMES[kind]}: {metrics}',
        f'calibration: LaECE0 {scores.mean("laece"):.1f}  LaACE0 {scores.mean("laace"):.1f}  '
        f'rank correlation of score and IoU {scores.rank_correlation:.2f};  oLRP {scores.mean("lrp"):.1f}',
        '',
        f'{"class":{width}} {"objects":>7} {"AP":>6} {"oLRP":>6} {"LaECE0":>7}',
    ]
    for name, of_class in scores.classes.items():
        lines.append(
            f'{name:{width}} {of_class.num_gts:7d} {of_class.AP:6.1f} {100 * of_class.lrp.error:6.1f} '
            f'{of_class.laece:7.1f}'
        )
    return '\n'.join([*lines, ''])
