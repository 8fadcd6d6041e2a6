"""What data look like, in the numbers that a training is planned by."""

import json
import os
from collections import Counter
from typing import Dict, List, NamedTuple, Set, Tuple

import numpy as np

from mmdet_stable.datasets.checks import FATAL, HARMLESS, Finding
from mmdet_stable.datasets.coco_checks import coco_findings
from mmdet_stable.utils.words import counted

from .reading import FoundData
from .records import DataError, Split

SHOWN_CLASSES = 20
# Faults with which training stops, or learns something wrong; the rest mmdet drops or cuts.
STOPPING = (*FATAL, 'json', 'image-truncated')


class DataStatistics(NamedTuple):
    """Numbers on training and validation data.

    Attributes:
        num_train, num_val: images.
        classes: names in the order of labels.
        class_counts: training boxes of each class.
        image_size: median (width, height) in pixels.
        smallest_image: (width, height) of the image with fewest pixels.
        box_sides: square roots of the areas of training boxes, relative to the longer side of their image; ascending.
        max_boxes: the largest number of boxes in an image.
    """

    num_train: int
    num_val: int
    classes: Tuple[str, ...]
    class_counts: Tuple[int, ...]
    image_size: Tuple[int, int]
    smallest_image: Tuple[int, int]
    box_sides: Tuple[float, ...]
    max_boxes: int

    def box_side(self, share: float) -> float:
        """The side, relative to the image, that a share of the boxes stays below; 1 where there are none."""
        return float(np.quantile(self.box_sides, share)) if self.box_sides else 1.0


class _Part(NamedTuple):
    sizes: List[Tuple[int, int]]
    num_boxes: List[int]  # of each image
    labels: Counter
    sides: List[float]


def data_statistics(data: FoundData) -> DataStatistics:
    """Count what the annotation files hold; boxes of crowds and of other classes are left out."""
    train, val = _count(data.train, data.classes), _count(data.val, data.classes)
    width, height = np.median(train.sizes, axis=0)
    return DataStatistics(
        num_train=len(train.sizes),
        num_val=len(val.sizes),
        classes=data.classes,
        class_counts=tuple(train.labels[name] for name in data.classes),
        image_size=(round(width), round(height)),
        smallest_image=min(train.sizes + val.sizes, key=lambda size: size[0] * size[1]),
        box_sides=tuple(sorted(train.sides)),
        max_boxes=max(train.num_boxes + val.num_boxes, default=0),
    )


def _count(split: Split, classes: Tuple[str, ...]) -> _Part:
    content = json.loads(split.ann_file.read_text(encoding='utf-8'))
    names = {category['id']: category['name'] for category in content['categories']}
    sizes = {image['id']: (int(image['width']), int(image['height'])) for image in content['images']}
    numbers: Counter = Counter()
    labels: Counter = Counter()
    sides = []
    for annotation in content['annotations']:
        box, image, name = annotation['bbox'], annotation['image_id'], names.get(annotation['category_id'])
        if annotation.get('iscrowd') or name not in classes or image not in sizes or len(box) != 4:
            continue
        numbers[image] += 1
        labels[name] += 1
        sides.append(float(max(box[2] * box[3], 0) ** 0.5 / max(sizes[image])))
    return _Part(list(sizes.values()), [numbers[image] for image in sizes], labels, sides)


def describe(data: FoundData) -> List[str]:
    """Lines for the console: images, boxes, sizes, classes."""
    parts = {name: _count(split, data.classes) for name, split in (('train', data.train), ('val', data.val))}
    lines = [f'found: {data.layout}, {counted(len(data.classes), "class")}']
    for name, part in parts.items():
        empty = sum(number == 0 for number in part.num_boxes)
        lines.append(
            f'  {name + ":":<6} {counted(len(part.sizes), "image")}, {counted(sum(part.num_boxes), "box")}, '
            f'{counted(empty, "image")} without boxes; at most {counted(max(part.num_boxes), "box")} in an image'
        )
    sizes = Counter(size for part in parts.values() for size in part.sizes)
    listed = ', '.join(f'{width} x {height} ({count})' for (width, height), count in sizes.most_common(3))
    lines.append(f'  sizes: {listed}{f" and {len(sizes) - 3} others" if len(sizes) > 3 else ""}')
    if parts['train'].sides:
        small, median, large = np.quantile(parts['train'].sides, (0.05, 0.5, 0.95))
        shares = f'{median:.1%} of the longer side of the image in the middle, {small:.1%} to {large:.1%} for most'
        lines.append(f'  boxes: {shares}')
    counts = [f'{name} {parts["train"].labels[name]} + {parts["val"].labels[name]}' for name in data.classes]
    more = f', and {len(counts) - SHOWN_CLASSES} others' if len(counts) > SHOWN_CLASSES else ''
    lines.append(f'  boxes by class, train + val: {", ".join(counts[:SHOWN_CLASSES])}{more}')
    return [*lines, *(f'  {remark}' for remark in data.remarks)]


def fault_lines(data: FoundData) -> List[str]:
    """What the checks of ``tools/check_dataset.py`` find, one line for each kind, with the first of them; and a warning
    of images that are in both parts.

    Raises:
        DataError: for faults with which training would stop, or learn something wrong.
    """
    counts: Counter = Counter()
    first: Dict[str, Finding] = {}
    for name, split in (('train', data.train), ('val', data.val)):
        files = str(split.ann_file), str(split.image_folder)
        for finding in coco_findings(*files, data.classes, len(data.classes), None, name):
            counts[finding.kind] += 1
            first.setdefault(finding.kind, finding)
    faults = {kind: f'{count} x {kind}: {first[kind]}' for kind, count in counts.items() if kind not in HARMLESS}
    stopping = [line for kind, line in faults.items() if kind in STOPPING]
    if stopping:
        raise DataError('\n  '.join(['the data have faults that training cannot go on with:', *stopping]))
    for split, purpose, remedy in (
        (data.train, 'training', ''),
        (data.val, 'validation', '; AP needs some: choose other images for it, or another seed'),
    ):
        if not any(_count(split, data.classes).num_boxes):
            what = f'no image for {purpose} has a box of {", ".join(data.classes[:10])}{remedy}'
            raise DataError('\n  '.join([f'{split.ann_file}: {what}', *faults.values()]))
    checked = [f'  checked: {line}' for line in faults.values()] or ['  checked: no faults found']
    return [*checked, *_overlap(data)]


def _overlap(data: FoundData) -> List[str]:
    """A warning where images of validation are trained on; empty where there are none."""
    train, val = _files(data.train), _files(data.val)
    common = sorted(train & val)
    if not common:
        return []
    return [
        f'  WARNING: {len(common)} of {len(val)} images for validation are also trained on, as {common[0]}, so that AP '
        'will say little about new pictures'
    ]


def _files(split: Split) -> Set[str]:
    folder = os.path.realpath(split.image_folder)
    content = json.loads(split.ann_file.read_text(encoding='utf-8'))
    return {os.path.normpath(os.path.join(folder, image['file_name'])) for image in content['images']}
