"""Checks of an annotation file in COCO's format, before pycocotools and mmdet see it."""

import json
import math
import mmap
import ntpath
import os
import re
from collections import Counter
from typing import Any, Dict, Generator, Iterator, List, Optional, Sequence, Tuple, Union

from .checks import EMPTY_FILE, Finding, box_finding, category_findings, class_findings
from .image_checks import ImageEntry, image_findings
from .mask_checks import mask_finding

SOON_READ = 2**25  # bytes; 32 MB of JSON are read within a second
TAIL = 64
Entry = Tuple[str, Dict[str, Any]]  # its key in the file, e.g. "images[3]", and itself
Number = (int, float)
Id = (int, str)

# What mmdet reads of every entry.
FIELDS = {
    'categories': dict(id=Id, name=str),
    'images': dict(id=Id, file_name=str, width=Number, height=Number),
    'annotations': dict(id=Id, image_id=Id, category_id=Id, bbox=list, area=Number),
}


def coco_findings(
    file: str,
    image_folder: str,
    classes: Optional[Sequence[str]],
    num_classes: Optional[int],
    num_queries: Optional[int],
    key: str,
    decode: bool = False,
    masks: Optional[str] = None,
) -> Iterator[Finding]:
    """All faults of an annotation file and its images, as they are found.

    Args:
        file: the annotation file.
        image_folder: what ``file_name`` is relative to.
        classes: ``metainfo.classes``.
        num_classes, num_queries: of the model; None where it has no such thing.
        key: where the dataset stands in the config.
        decode: see :func:`image_findings`.
        masks: how masks are loaded, see :func:`loads_masks`; None where they are not.
    """
    content = _read(file)
    if isinstance(content, Finding):
        yield content
        return
    if num_classes is not None:
        yield from class_findings(classes, num_classes, key)
    categories = yield from _entries(content, 'categories', file)
    if isinstance(classes, (list, tuple)):
        yield from category_findings(classes, [category for _, category in categories], file, key)
    images = yield from _entries(content, 'images', file)
    annotations = yield from _entries(content, 'annotations', file)
    yield from _id_findings(annotations, file)
    yield from _annotation_findings(annotations, images, categories, file, masks)
    if num_queries is not None:
        yield from _crowded(annotations, num_queries, file)
    yield from _repeated([entry['file_name'] for _, entry in images], 'images', 'file_name', file)
    yield from _outside(images, file)
    if not images:
        yield Finding('no-images', file, 'images', 'is empty')
    elif not annotations:
        yield Finding('no-objects', file, 'annotations', f'is empty: none of {len(images)} images has a box')
    entries = (
        ImageEntry(os.path.join(image_folder, image['file_name']), name, (image['width'], image['height']))
        for name, image in images
    )
    yield from image_findings(entries, decode)


def unreadable(file: str) -> Optional[Finding]:
    """Why an annotation file in JSON cannot be read, or holds nothing; None where it can.

    Of a large file, only the beginning and the end are looked at.
    """
    size = os.path.getsize(file)
    if not size:
        return Finding('json', file, '', EMPTY_FILE)
    if size <= SOON_READ:
        content = _read(file)
        if isinstance(content, Finding):
            return content
        return None if content else Finding('json', file, '', 'holds nothing')
    with open(file, 'rb') as stream:
        begin = stream.read(TAIL).lstrip()
        stream.seek(-TAIL, os.SEEK_END)
        end = stream.read().rstrip()
    if not begin.startswith(b'{') or not end.endswith(b'}'):
        return Finding('json', file, '', f'is cut off, or no object: begins with {begin[:8]!r}, ends with {end[-8:]!r}')
    return None


def _read(file: str) -> Union[Dict[str, Any], Finding]:
    """The content of the file, or why there is none."""
    if not os.path.isfile(file):
        return Finding('json', file, '', 'there is no such file')
    try:
        with open(file, encoding='utf-8') as stream:
            content = json.load(stream)
    except json.JSONDecodeError as error:
        return Finding('json', file, f'line {error.lineno}, column {error.colno}', f'is no JSON: {error.msg}')
    except (UnicodeDecodeError, RecursionError) as error:
        return Finding('json', file, '', f'is no JSON: {error}')
    if not isinstance(content, dict):
        return Finding('json', file, '', f'holds a {type(content).__name__}, not an object')
    return content


def _entries(content: dict, part: str, file: str) -> Generator[Finding, None, List[Entry]]:
    """Check the fields and ids of one list of the file; returns the entries that are complete."""
    entries = content.get(part)
    if not isinstance(entries, list):
        found = 'is missing' if part not in content else f'is a {type(entries).__name__}, not a list'
        yield Finding('json', file, part, found)
        return []
    complete = []
    for index, entry in enumerate(entries):
        name = f'{part}[{index}]'
        wrong = wrong_field(entry, FIELDS[part])
        if wrong:
            yield Finding('json', file, f'{name}{wrong[0]}', wrong[1])
        else:
            complete.append((name, entry))
    yield from _repeated([entry['id'] for _, entry in complete], part, 'id', file)
    if part == 'categories':
        yield from _repeated([entry['name'] for _, entry in complete], part, 'name', file)
    return complete


def wrong_field(entry: Any, fields: Dict[str, Any]) -> Optional[Tuple[str, str]]:
    """The first field that is missing or of another type, as (key, problem)."""
    if not isinstance(entry, dict):
        return '', f'is a {type(entry).__name__}, not an object'
    for field, types in fields.items():
        if field not in entry:
            return f'.{field}', 'is missing'
        if not isinstance(entry[field], types) or isinstance(entry[field], bool):
            return f'.{field}', f'is {entry[field]!r:.40}'
    return None


def _repeated(values: Sequence[Any], part: str, field: str, file: str) -> Iterator[Finding]:
    for value, times in Counter(values).items():
        if times > 1:
            yield Finding('duplicate', file, f'{part}[].{field}', f'{value!r} stands there {times} times')


def _id_findings(annotations: Sequence[Entry], file: str) -> Iterator[Finding]:
    """Ids with which a match is not counted, or cannot be; the first for all."""
    unusable = [(name, entry['id']) for name, entry in annotations if not entry['id'] or isinstance(entry['id'], str)]
    if unusable:
        name, number = unusable[0]
        why = 'pycocotools count no match with it' if number == 0 else 'pycocotools take numbers only'
        more = f'; so are {len(unusable) - 1} others' if len(unusable) > 1 else ''
        yield Finding('annotation-id', file, f'{name}.id', f'is {number!r}, and {why}{more}')


def _annotation_findings(
    annotations: Sequence[Entry], images: Sequence[Entry], categories: Sequence[Entry], file: str, masks: Optional[str]
) -> Iterator[Finding]:
    sizes = {image['id']: (image['width'], image['height']) for _, image in images}
    category_ids = {category['id'] for _, category in categories}
    for name, image in images:
        if min(image['width'], image['height']) < 1:
            problem = f'width and height are {image["width"]} and {image["height"]}'
            yield Finding('image-size', file, f'{name}.width', problem)
    for name, annotation in annotations:
        if annotation['image_id'] not in sizes:
            problem = f'{annotation["image_id"]!r} is the id of no image'
            yield Finding('image-id', file, f'{name}.image_id', problem)
            continue
        if annotation['category_id'] not in category_ids:
            problem = f'{annotation["category_id"]!r} is the id of no category'
            yield Finding('category', file, f'{name}.category_id', problem)
        finding = _bbox_finding(annotation, *sizes[annotation['image_id']], file, f'{name}.bbox')
        if masks and not finding:
            size, key = sizes[annotation['image_id']], f'{name}.segmentation'
            finding = mask_finding(annotation, *size, masks == 'polygons', file, key)
        if finding:
            yield finding


def _bbox_finding(annotation: dict, width: float, height: float, file: str, key: str) -> Optional[Finding]:
    bbox = annotation['bbox']
    if len(bbox) != 4 or not all(isinstance(value, Number) for value in bbox):
        return Finding('box-not-finite', file, key, f'is {bbox!r:.60}, not four numbers')
    left, top, box_width, box_height = bbox
    finding = box_finding([left, top, left + box_width, top + box_height], width, height, file, key)
    if finding is None and not annotation['area'] > 0:
        return Finding('box-degenerate', file, key.replace('.bbox', '.area'), f'area is {annotation["area"]}')
    return finding


def _outside(images: Sequence[Entry], file: str) -> Iterator[Finding]:
    """File names that lead out of the image folder, as those of Linux and of Windows do."""
    for name, image in images:
        path = image['file_name']
        if '..' in re.split(r'[/\\]', path) or os.path.isabs(path) or ntpath.isabs(path) or ntpath.splitdrive(path)[0]:
            yield Finding('image-outside', file, f'{name}.file_name', f'{path!r} leads out of the image folder')


def not_finite_findings(file: str) -> Iterator[Finding]:
    """Boxes that are NaN or infinite, which mmdet drops without a word.

    JSON has no such numbers; Python's writer gives them names of their own. So a search for these tells whether
    the file, which takes long to read where it is as large as COCO's, needs to be read for this at all.
    """
    if not os.path.isfile(file) or not os.path.getsize(file):
        return
    with open(file, 'rb') as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as text:
        if all(text.find(name) < 0 for name in (b'NaN', b'Infinity')):
            return
    content = _read(file)
    annotations = content.get('annotations') if isinstance(content, dict) else None
    for index, annotation in enumerate(annotations or ()):
        bbox = annotation.get('bbox')
        if isinstance(bbox, list) and any(isinstance(value, float) and not math.isfinite(value) for value in bbox):
            yield Finding('box-not-finite', file, f'annotations[{index}].bbox', f'is {bbox}')


def _crowded(annotations: Sequence[Entry], num_queries: int, file: str) -> Iterator[Finding]:
    counts = Counter(annotation['image_id'] for _, annotation in annotations if not annotation.get('iscrowd'))
    for image_id, count in counts.items():
        if count > num_queries:
            problem = f'{count} boxes, but model.num_queries={num_queries}'
            yield Finding('too-many-boxes', file, f'annotations of image {image_id!r}', problem)
