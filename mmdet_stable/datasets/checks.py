"""What can be wrong with a data set: the checks that ``DatasetCheckHook`` and ``tools/check_dataset.py`` share."""

import math
import os
from typing import Dict, Iterable, Iterator, NamedTuple, Optional, Sequence, Tuple

import mmengine
from mmdet.datasets import CocoDataset
from mmengine.dataset import BaseDataset

# Every kind of finding, and what mends it.
REMEDIES: Dict[str, str] = {
    'json': 'write the annotation file again, as JSON in the format of COCO',
    'classes': 'make metainfo.classes, model.bbox_head.num_classes and the categories agree',
    'label': 'correct the annotation, or raise model.bbox_head.num_classes',
    'category': 'correct category_id, or add the category to "categories"',
    'annotation-id': 'number annotations from 1, as `python -m mmdet_stable train` does by itself',
    'image-id': 'correct image_id, or add the image to "images"',
    'duplicate': 'give every entry a number of its own, every file one entry, and every category a name of its own',
    'box-not-finite': 'remove the annotation, or write its bbox as four numbers',
    'box-inverted': 'write bbox as [x, y, width, height], with width and height above 0',
    'box-degenerate': 'remove the annotation, or write its true size; mmdet drops boxes of less than a pixel',
    'box-outside': 'cut the box at the edges of the image, whose width and height must be those of its file',
    'mask-missing': 'add "segmentation" to the annotation, or remove the annotation',
    'mask-broken': 'write segmentation as polygons of three or more points, or as run lengths of the size of the image',
    'mask-empty': 'remove the annotation, or correct its segmentation',
    'mask-size': 'write the run lengths for the image as it is in its file',
    'mask-rle': 'load bitmaps: LoadAnnotations(with_mask=True, poly2mask=True); mmdet drops run lengths otherwise',
    'mask-box': 'correct bbox or segmentation; they are of different objects, or one of them is shifted',
    'too-many-boxes': 'raise model.num_queries, since only that many boxes of an image can be learned at a time',
    'no-images': 'correct ann_file, metainfo.classes and filter_cfg: what is left has to hold images',
    'no-objects': 'correct ann_file and metainfo.classes; without a box, training learns background only',
    'image-outside': 'write a path inside the image folder, and set data_prefix.img to that folder',
    'image-missing': 'restore the file, or correct data_root, data_prefix.img and file_name',
    'image-unreadable': 'write the file again, or remove the image and its annotations',
    'image-truncated': 'copy the file again; the missing part would be grey',
    'image-size': 'correct width and height in the annotation file; they count after the rotation that EXIF asks for',
    'image-16-bit': 'convert to 8 bits with the contrast you want; the loader keeps the upper 8 bits only',
    'image-alpha': 'flatten onto a background; the loader ignores transparency',
    'image-grey': 'nothing to do: loaded as three equal channels',
}
EMPTY_FILE = 'the file is empty (0 bytes)'
HARMLESS = ('image-grey',)
# What the hook stops for: it would break the training, or train something wrong. The rest mmdet drops or cuts.
FATAL = ('classes', 'label', 'box-not-finite', 'box-inverted', 'no-images', 'image-missing', 'image-unreadable')
WARNED = ('no-objects',)  # the hook only warns: images without objects may be meant


class Finding(NamedTuple):
    """One fault.

    Attributes:
        kind: one of :data:`REMEDIES`.
        file: image or annotation file, where one is at fault.
        key: key of the config, or of the annotation file, e.g. ``'annotations[3].bbox'``.
        problem: what is wrong.
    """

    kind: str
    file: str
    key: str
    problem: str

    @property
    def remedy(self) -> str:
        return REMEDIES[self.kind]

    def __str__(self) -> str:
        place = ': '.join(part for part in (self.file, self.key) if part)
        return f'{place}: {self.problem}; {self.remedy}'


def dataset_findings(dataset: BaseDataset, num_classes: int, key: str) -> Iterator[Finding]:
    """Faults of a dataset as mmdet has read it, or of a wrapper of one or several.

    Args:
        dataset: held in memory; no image is opened.
        num_classes: classes of the model's head.
        key: where the dataset stands in the config, e.g. ``'train_dataloader.dataset'``.
    """
    for part, part_key in parts_of(dataset, key):
        yield from class_findings(part.metainfo.get('classes'), num_classes, part_key)
        yield from _category_order(part, part_key)
        yield from _instance_findings(part, num_classes, part_key)
    if not len(dataset):
        yield Finding('no-images', annotation_file_of(dataset), key, 'no image is left of this data set')


def parts_of(dataset: BaseDataset, key: str) -> Iterator[Tuple[BaseDataset, str]]:
    """The data sets that a wrapper wraps, however deep, or the data set itself, with their keys of the config."""
    if hasattr(dataset, 'datasets'):
        for index, part in enumerate(dataset.datasets):
            yield from parts_of(part, f'{key}.datasets[{index}]')
    elif hasattr(dataset, 'dataset'):
        yield from parts_of(dataset.dataset, f'{key}.dataset')
    else:
        yield dataset, key


def annotation_file_of(dataset: BaseDataset) -> str:
    """The file of a data set; empty for a wrapper."""
    return getattr(dataset, 'ann_file', None) or ''


def class_findings(classes: Optional[Sequence[str]], num_classes: int, key: str) -> Iterator[Finding]:
    """The names of ``metainfo.classes`` against the head."""
    if classes is None:
        problem = f'{key}.metainfo has no "classes"; set {key}.metainfo=dict(classes=("name", ...))'
    elif isinstance(classes, str):
        problem = f'{key}.metainfo.classes={classes!r} is a string; one class needs a comma: ({classes!r},)'
    elif len(classes) != num_classes:
        problem = (
            f'model.bbox_head.num_classes={num_classes}, but {key} has {len(classes)} classes '
            f'{tuple(classes[:5])}{"..." if len(classes) > 5 else ""}; set model.bbox_head.num_classes={len(classes)} '
            f'or {key}.metainfo=dict(classes=(...))'
        )
    else:
        return
    yield Finding('classes', '', key, problem)


def category_findings(classes: Sequence[str], categories: Sequence[dict], file: str, key: str) -> Iterator[Finding]:
    """The names of ``metainfo.classes`` against the categories of an annotation file, by whose order mmdet counts."""
    names = [category['name'] for category in categories if category['name'] in classes]
    if set(names) != set(classes):
        problem = (
            f'{sorted(set(classes) - set(names))} of metainfo.classes are no categories of {file}; '
            f'its categories are {[category["name"] for category in categories][:20]}'
        )
        yield Finding('classes', '', key, problem)
    elif names != list(classes):
        problem = (
            f'{key}.metainfo.classes={tuple(classes)} is not in the order of {file}, by which mmdet counts '
            f'labels, so that predictions would get wrong names; set it to {tuple(names)}'
        )
        yield Finding('classes', '', key, problem)


def box_finding(box_xyxy: Sequence[float], width: float, height: float, file: str, key: str) -> Optional[Finding]:
    """What is wrong with a box in an image of ``width`` x ``height`` pixels; a pixel beyond the edge is rounding."""
    x1, y1, x2, y2 = box_xyxy
    if not all(map(math.isfinite, box_xyxy)):
        kind, what = 'box-not-finite', 'is not finite'
    elif x2 < x1 or y2 < y1:
        kind, what = 'box-inverted', 'has a right or lower edge before its left or upper one'
    elif x2 - x1 < 1 or y2 - y1 < 1:
        kind, what = 'box-degenerate', 'is less than a pixel wide or high'
    elif min(x1, y1) < -1 or x2 > width + 1 or y2 > height + 1:
        kind, what = 'box-outside', f'reaches out of the image of {width} x {height} pixels'
    else:
        return None
    return Finding(kind, file, key, f'box {tuple(box_xyxy)} (left, top, right, bottom) {what}')


def file_findings(paths: Iterable[str], key: str) -> Iterator[Finding]:
    """Paths at which there is no file, or one of 0 bytes. Each folder is listed once, since asking for every name alone
    is slow on network storage."""
    listed: Dict[str, Dict[str, os.DirEntry]] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in listed:
            entries = os.scandir(folder or '.') if os.path.isdir(folder or '.') else ()
            listed[folder] = {entry.name: entry for entry in entries}
        entry = listed[folder].get(name)
        if entry is None:
            yield Finding('image-missing', path, key, 'there is no such file')
        elif not entry.stat().st_size:
            yield Finding('image-unreadable', path, key, EMPTY_FILE)


def _category_order(dataset: BaseDataset, key: str) -> Iterator[Finding]:
    classes = dataset.metainfo.get('classes')
    if not isinstance(dataset, CocoDataset) or not isinstance(classes, (list, tuple)):
        return
    if classes == dataset.METAINFO.get('classes') and len(dataset.cat_ids) == len(classes):
        return  # COCO itself is known to fit, and its annotation file takes long to read
    categories = mmengine.load(dataset.ann_file, backend_args=dataset.backend_args)['categories']
    yield from category_findings(classes, categories, dataset.ann_file, key)


def _instance_findings(dataset: BaseDataset, num_classes: int, key: str) -> Iterator[Finding]:
    local = not getattr(dataset, 'backend_args', None)
    paths, num_boxes = [], 0
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        file = info.get('img_path', f'image {index}')
        if local and 'img_path' in info and '://' not in file:
            paths.append(file)
        num_boxes += len(info.get('instances', ()))
        for instance in info.get('instances', ()):
            label, box = instance['bbox_label'], instance.get('bbox')
            if not 0 <= label < num_classes:
                problem = (
                    f'label {label} is outside 0 to {num_classes - 1}, as model.bbox_head.num_classes={num_classes} '
                    'demands'
                )
                yield Finding('label', file, key, problem)
            size = info.get('width', math.inf), info.get('height', math.inf)
            finding = None if box is None else box_finding(box, *size, file, key)
            if finding:
                yield finding
    yield from file_findings(paths, key)
    if len(dataset) and not num_boxes:
        yield Finding('no-objects', annotation_file_of(dataset), key, f'none of {len(dataset)} images has a box')
