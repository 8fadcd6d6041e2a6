"""Detecting in all images of a data set, and measuring what is found."""

import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from mmengine.utils import ProgressBar
from pycocotools.coco import COCO

from mmdet_stable.datasets.folder.coco import complete, read_content
from mmdet_stable.evaluation.coco_scores import Scores, score
from mmdet_stable.utils.files import check_writable, write_whole
from mmdet_stable.utils.quiet import quiet
from mmdet_stable.visualization.reliability import plot_reliability

from .coco_results import CocoResults
from .detector import Detector

NAMES = {'bbox': 'boxes', 'segm': 'masks'}


def evaluate(detector: Detector, annotations: str, folder: str, batch_size: int, out: Path) -> Dict[str, Scores]:
    """Detect in all images of a data set, and measure what is found; boxes, and masks where the model gives them.

    Args:
        annotations: COCO file; its categories are those of the model by name, in any order.
        folder: what ``file_name`` is relative to.
        out: folder that ``numbers.json``, ``predictions.json`` and ``reliability.png`` are written to.

    Raises:
        ValueError: where the file is not of COCO, model and data share no class or no box, or an image cannot be read.
        OSError: where images are missing, or ``out`` cannot be written to.
    """
    content = read_content(Path(annotations))
    complete(content, Path(folder))
    check_writable(out, 'folder', '--out')
    truth, results = shared_classes(content, detector.classes, annotations)
    paths = image_paths(content, folder)
    has_masks = False
    progress = ProgressBar(len(paths), file=sys.stderr)
    for image, outcome in zip(content['images'], detector.stream(paths, batch_size)):
        if outcome.sample is None:
            raise ValueError(outcome.problem)
        results.add(outcome.sample, image['file_name'], image_id=image['id'])
        has_masks = has_masks or 'masks' in outcome.sample.pred_instances
        progress.update()
    print(file=sys.stderr)
    known = [entry for entry in results.annotations if entry['category_id'] in truth.cats]
    kinds = ['bbox', 'segm'] if has_masks else ['bbox']
    scores = {kind: score(truth, known, kind) for kind in kinds}
    numbers = dict(data=annotations, images=len(paths), **{kind: found.as_dict() for kind, found in scores.items()})
    write_whole(out / 'numbers.json', json.dumps(numbers, indent=1))
    results.write(out / 'predictions.json')
    plot_reliability({NAMES[kind]: found.reliability for kind, found in scores.items()}, out / 'reliability.png')
    return scores


def image_paths(content: Dict[str, Any], folder: str) -> List[str]:
    """The images of a COCO file, all of which are there.

    Raises:
        FileNotFoundError: with their number and the first one, where some are not.
    """
    paths = [os.path.join(folder, image['file_name']) for image in content['images']]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(f'{len(missing)} of {len(paths)} images do not exist, as {missing[0]}')
    return paths


def shared_classes(content: Dict[str, Any], classes: Sequence[str], name: str) -> Tuple[COCO, CocoResults]:
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
