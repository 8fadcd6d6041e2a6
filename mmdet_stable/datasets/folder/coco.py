"""COCO annotation files, wherever the usual tools put them and their images."""

import json
import re
from codecs import BOM_UTF8
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from mmdet_stable.datasets.coco_checks import FIELDS, Number, wrong_field

from .records import DataError, image_size, raise_listed, read_text

TRAIN_NAMES = (
    'annotations/instances_train*.json',
    'annotations/train*.json',
    'instances_train*.json',
    'train*.json',
    'train/_annotations.coco.json',
    'train/*.json',
    'annotations/*train*.json',
)
VAL_NAMES = tuple(name.replace('train', val) for val in ('val', 'valid') for name in TRAIN_NAMES if 'val*' not in name)
SINGLE_NAMES = ('annotations/*.json', '_annotations.coco.json', '*.json')
LOOKED_FOR = (
    'COCO: annotations/instances_train*.json, train*.json or train/_annotations.coco.json, the same with val or valid',
    'COCO in one file: annotations/*.json or *.json',
)
PROBED = 50  # images, to find their folder
# What every entry needs; the rest can be filled in.
NEEDED = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id', 'bbox'), categories=('id', 'name'))


class CocoFiles(NamedTuple):
    """Annotation files; ``val`` is None where there is one file for all. ``root`` is the folder of the data."""

    train: Path
    val: Optional[Path] = None
    folder: Optional[Path] = None

    @property
    def root(self) -> Path:
        return self.folder or (
            self.train.parent.parent if self.train.parent.name == 'annotations' else self.train.parent
        )


class CocoPart(NamedTuple):
    """A file that was read, in whole or in part.

    Attributes:
        changes: what was done to its content.
        as_in_file: whether the content is that of the file, so that it need not be written anew.
    """

    file: Path
    image_folder: Path
    content: Dict[str, list]
    changes: List[str]
    as_in_file: bool


def find_files(folder: Path) -> Optional[CocoFiles]:
    """The annotation files of a folder by the usual names; None where there are none.

    Raises:
        DataError: where several files fit equally well.
    """
    train, val = _first(folder, TRAIN_NAMES), _first(folder, VAL_NAMES)
    if train:
        return CocoFiles(train, val, folder)
    single = _first(folder, SINGLE_NAMES)
    return CocoFiles(single, None, folder) if single else None


def _first(folder: Path, patterns: Sequence[str]) -> Optional[Path]:
    for pattern in patterns:
        found = sorted(path for path in folder.glob(pattern) if looks_like_coco(path))
        if len(found) > 1:
            names = ', '.join(str(path.relative_to(folder)) for path in found)
            raise DataError(
                f'{folder} has several files that fit {pattern}: {names}. Give the two to take in its place'
            )
        if found:
            return found[0]
    return None


def looks_like_coco(path: Path) -> bool:
    """Whether a JSON file has the lists of COCO; also for one that is damaged, so that the fault gets named."""
    try:
        content = json.loads(read_text(path))
    except (json.JSONDecodeError, DataError):
        return True
    return isinstance(content, dict) and {'images', 'annotations'} <= content.keys()


def read_coco(file: Path, root: Path) -> CocoPart:
    """Read an annotation file, find its images, and complete what tools leave out.

    Raises:
        DataError: naming file and line, entry, or the folders in which the images are not.
    """
    content = read_content(file)
    folder = find_images(file, root, [image['file_name'] for image in content['images']])
    changes = complete(content, folder)
    if file.read_bytes()[: len(BOM_UTF8)] == BOM_UTF8:
        changes.append('its byte order mark, which pycocotools refuse, was left out')
    return CocoPart(file, folder, content, changes, not changes)


def read_content(file: Path) -> Dict[str, list]:
    """The content of an annotation file, with the fields that nobody can fill in, each of its type.

    Raises:
        DataError: naming line or entry.
    """
    try:
        content = json.loads(read_text(file))
    except json.JSONDecodeError as error:
        where = f'line {error.lineno}, column {error.colno}'
        raise DataError(f'{file}, {where}: is no JSON: {error.msg}; write the file again') from error
    if not isinstance(content, dict):
        raise DataError(f'{file} is no COCO file: it holds a {type(content).__name__}, not an object')
    faults = []
    for name in NEEDED:
        entries = content.get(name)
        if not isinstance(entries, list):
            raise DataError(f'{file} is no COCO file: it has no list "{name}"')
        problems = ((index, _problem(entry, name)) for index, entry in enumerate(entries))
        faults += [f'{file}, {name}[{index}]{problem}' for index, problem in problems if problem]
    if not faults:
        names: Dict[Any, str] = {}
        for category in content['categories']:
            if names.setdefault(category['id'], category['name']) != category['name']:
                both = f'{names[category["id"]]} and {category["name"]}'
                faults.append(f'{file}, categories: {both} both have the id {category["id"]!r}')
    raise_listed(faults, 'correct or remove these entries')
    if not content['images'] or not content['categories']:
        empty = 'images' if not content['images'] else 'categories'
        raise DataError(f'{file}: the list "{empty}" is empty')
    return content


def _problem(entry: Any, part: str) -> str:
    """What is wrong with an entry of a list, to be read after its place; empty where nothing is."""
    lacking = [field for field in NEEDED[part] if not isinstance(entry, dict) or entry.get(field) is None]
    if lacking:
        return f': has no {" and no ".join(lacking)}'
    present = {field: types for field, types in FIELDS[part].items() if entry.get(field) is not None}
    wrong = wrong_field(entry, present)
    if wrong:
        return f'{wrong[0]}: {wrong[1]}'
    box = entry.get('bbox', [0] * 4)
    if len(box) != 4 or not all(isinstance(value, Number) for value in box):
        return f'.bbox: is {box!r:.60}, not four numbers'
    return ''


def find_images(file: Path, root: Path, names: Sequence[str]) -> Path:
    """The folder that the file names of images are relative to.

    Raises:
        DataError: naming the folders that were looked into.
    """
    words = re.split(r'[^a-zA-Z0-9]', file.stem)  # a file of training is about the folder of that name
    usual = [file.parent, root, root / 'images']
    others = sorted(path for pattern in ('*', '*/*') for path in root.glob(pattern) if path.is_dir())
    folders = list(dict.fromkeys(path for path in (*usual, *others) if path.is_dir()))
    probed = list(names[:: max(len(names) // PROBED, 1)])
    found = {folder: sum((folder / name).is_file() for name in probed) for folder in folders}
    best = max(folders, key=lambda folder: (found[folder], folder.name in words))  # the first of equals
    if not found[best]:
        places = '\n  '.join(map(str, folders[:12]))
        raise DataError(f'the images of {file}, e.g. {names[0]}, are in none of these folders:\n  {places}')
    return best


def complete(content: Dict[str, list], folder: Path) -> List[str]:
    """Fill in what mmdet and pycocotools ask for, in place; says what.

    Raises:
        DataError: for an image in ``folder`` that cannot be read, where its size is not in the file.
    """
    changes = []
    without = [image for image in content['images'] if min(image.get('width') or 0, image.get('height') or 0) < 1]
    for image in without:
        image['width'], image['height'] = image_size(folder / image['file_name'])
    if without:
        changes.append(f'width and height of {len(without)} images were read from their files')
    fills = {
        'area': lambda annotation: annotation['bbox'][2] * annotation['bbox'][3],
        'iscrowd': lambda annotation: 0,
    }
    for field, value in fills.items():
        lacking = [annotation for annotation in content['annotations'] if annotation.get(field) is None]
        for annotation in lacking:
            annotation[field] = value(annotation)
        if lacking:
            changes.append(f'{field} was filled in at {len(lacking)} annotations')
    numbers = [annotation.get('id') for annotation in content['annotations']]
    # mmdet wants each number once, and pycocotools takes a match with an annotation of the number 0 for none.
    if not all(isinstance(number, int) and number for number in numbers) or len(set(numbers)) < len(numbers):
        for number, annotation in enumerate(content['annotations'], 1):
            annotation['id'] = number
        changes.append('annotations were numbered from 1')
    return [*changes, *_complete_categories(content)]


def _complete_categories(content: Dict[str, list]) -> List[str]:
    """Make categories of the same name one, as of a Roboflow project that is called like its class, and give them
    numbers, by which alone pycocotools finds them; in place. Says what was done."""
    changes = []
    own = {category['name']: category for category in reversed(content['categories'])}  # the first of each name
    kept = [category for category in content['categories'] if own[category['name']] is category]
    new = {category['id']: own[category['name']]['id'] for category in content['categories']}
    if len(kept) < len(content['categories']):
        names = [category['name'] for category in content['categories']]
        repeated = ', '.join(f'"{name}"' for name in own if names.count(name) > 1)
        changes.append(f'categories of the same name, {repeated}, were made one')
    if not all(isinstance(category['id'], int) for category in kept):
        taken = (annotation['category_id'] for annotation in content['annotations'])
        free = 1 + max((number for number in (*new, *taken) if isinstance(number, int)), default=0)
        numbers = {category['id']: number for number, category in enumerate(kept, free)}
        new = {old: numbers[first] for old, first in new.items()}
        changes.append('categories were numbered')
    if changes:
        content['categories'] = [dict(category, id=new[category['id']]) for category in kept]
        for annotation in content['annotations']:
            annotation['category_id'] = new.get(annotation['category_id'], annotation['category_id'])
    return changes


def class_names(content: Dict[str, list]) -> Tuple[Tuple[str, ...], List[str]]:
    """Classes in the order of the file, and remarks on those that are left out.

    A category without boxes that is the ``supercategory`` of another, as Roboflow writes one, is no class.
    """
    used = {annotation['category_id'] for annotation in content['annotations']}
    groups = {category.get('supercategory') for category in content['categories']}
    left_out = [c['name'] for c in content['categories'] if c['id'] not in used and c['name'] in groups]
    names = tuple(category['name'] for category in content['categories'] if category['name'] not in left_out)
    if not names:
        return tuple(left_out), []
    remarks = [f'"{name}" is a group of classes without boxes, and left out' for name in left_out]
    return names, remarks


def with_categories_of(val: CocoPart, train: CocoPart) -> CocoPart:
    """Validation with its categories in the order of training, by which mmdet counts labels.

    Raises:
        DataError: where validation has boxes of a class that training does not know.
    """
    order = [category['name'] for category in train.content['categories']]
    names = {category['id']: category['name'] for category in val.content['categories']}
    used = {names[a['category_id']] for a in val.content['annotations'] if a['category_id'] in names}
    unknown = sorted(used - set(order))
    if unknown:
        raise DataError(f'{val.file} has boxes of {", ".join(unknown)}, which {train.file} does not have as categories')
    if list(names.values()) == order:
        return val
    ids = {name: number for number, name in names.items()}
    taken = max([number for number in names if isinstance(number, int)], default=0)
    new = {name: ids.get(name, taken + 1 + index) for index, name in enumerate(order)}
    content = dict(val.content, categories=[dict(id=new[name], name=name) for name in order])
    changes = [*val.changes, 'categories were put in the order of training']
    return val._replace(content=content, changes=changes, as_in_file=False)


def with_images(part: CocoPart, images: Sequence[dict]) -> CocoPart:
    """The part of a file that is about some of its images."""
    ids = {image['id'] for image in images}
    annotations = [annotation for annotation in part.content['annotations'] if annotation['image_id'] in ids]
    content = dict(part.content, images=list(images), annotations=annotations)
    return part._replace(content=content, as_in_file=False)
