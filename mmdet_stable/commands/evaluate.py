"""Evaluates a detector on a COCO data set: AP, AP of each class, the LRP error, and whether scores are calibrated."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Tuple

from mmengine.config import Config
from pycocotools.coco import COCO

from mmdet_stable.datasets.folder.coco import complete, read_content
from mmdet_stable.evaluation.coco_scores import Scores, score
from mmdet_stable.inference.cli import add_model_arguments, detector_of
from mmdet_stable.inference.coco_results import CocoResults
from mmdet_stable.inference.detector import Detector
from mmdet_stable.utils.files import check_writable, write_whole
from mmdet_stable.utils.quiet import quiet
from mmdet_stable.visualization.reliability import plot_reliability

HELP = 'evaluate a detector: AP by class, and calibration'
NAMES = {'bbox': 'boxes', 'segm': 'masks'}


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


def evaluate(detector: Detector, annotations: str, folder: str, batch_size: int, out: Path) -> Dict[str, Scores]:
    """Detect in all images of a data set, and measure what is found; boxes, and masks where the model gives them.

    Args:
        annotations: COCO file; its categories are those of the model by name, in any order.
        folder: what ``file_name`` is relative to.
        out: folder that ``numbers.json``, ``predictions.json`` and ``reliability.png`` are written to.

    Raises:
        ValueError: where the file is not of COCO, model and data share no class or no box, or an image cannot be read.
        OSError: where ``out`` cannot be written to.
    """
    content = read_content(Path(annotations))
    complete(content, Path(folder))
    check_writable(out, 'folder', '--out')
    truth, results = shared_classes(content, detector.classes, annotations)
    paths = [os.path.join(folder, image['file_name']) for image in content['images']]
    has_masks = False
    for image, outcome in zip(content['images'], detector.stream(paths, batch_size)):
        if outcome.sample is None:
            raise ValueError(outcome.problem)
        results.add(outcome.sample, image['file_name'], image_id=image['id'])
        has_masks = has_masks or 'masks' in outcome.sample.pred_instances
    known = [entry for entry in results.annotations if entry['category_id'] in truth.cats]
    kinds = ['bbox', 'segm'] if has_masks else ['bbox']
    scores = {kind: score(truth, known, kind) for kind in kinds}
    numbers = dict(data=annotations, images=len(paths), **{kind: found.as_dict() for kind, found in scores.items()})
    write_whole(out / 'numbers.json', json.dumps(numbers, indent=1))
    results.write(out / 'predictions.json')
    plot_reliability({NAMES[kind]: found.reliability for kind, found in scores.items()}, out / 'reliability.png')
    return scores


def shared_classes(content: Dict[str, Any], classes: Any, name: str) -> Tuple[COCO, CocoResults]:
    """The data set, of which only categories count that the model knows, and results with its category ids.

    Classes that are not in the data set get ids that it does not use.
    """
    ids = {category['name']: category['id'] for category in content['categories']}
    known = [category for category in content['categories'] if category['name'] in classes]
    if not known:
        raise ValueError(f'{name} has the classes {", ".join(ids)}; the model knows none of them, but {list(classes)}')
    unknown = [category for category in ids if category not in classes]
    if unknown:
        print(f'not evaluated, as the model does not know them: {", ".join(unknown)}', file=sys.stderr)
    kept = {category['id'] for category in known}
    truth = COCO()
    truth.dataset = dict(
        content,
        info=content.get('info', {}),
        categories=known,
        annotations=[entry for entry in content['annotations'] if entry['category_id'] in kept],
    )
    if not any(not entry.get('iscrowd') for entry in truth.dataset['annotations']):
        raise ValueError(f'{name} has no box of the classes that the model knows, so that there is nothing to measure')
    with quiet():
        truth.createIndex()
    free = max(ids.values()) + 1
    return truth, CocoResults(classes, [ids.get(name, free + label) for label, name in enumerate(classes)])


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
