"""COCO annotation files, wherever the usual tools put them and their images."""

import json
import re
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple

from .records import DataError, image_size, raise_listed

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
        content = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError):
        return True
    return isinstance(content, dict) and {'images', 'annotations'} <= content.keys()


def read_coco(file: Path, root: Path) -> CocoPart:
    """Read an annotation file, find its images, and complete what tools leave out.

    Raises:
        DataError: naming file and line, entry, or the folders in which the images are not.
    """
    content = _read(file)
    folder = find_images(file, root, [image['file_name'] for image in content['images']])
    changes = _complete(content, folder)
    return CocoPart(file, folder, content, changes, not changes)


def _read(file: Path) -> Dict[str, list]:
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        where = f'line {error.lineno}, column {error.colno}'
        raise DataError(f'{file}, {where}: is no JSON: {error.msg}; write the file again') from error
    except UnicodeDecodeError as error:
        raise DataError(f'{file} is no text in UTF-8 ({error}); write the file again') from error
    lists = dict(images=('id', 'file_name'), annotations=('image_id', 'category_id', 'bbox'), categories=('id', 'name'))
    if not isinstance(content, dict):
        raise DataError(f'{file} is no COCO file: it holds a {type(content).__name__}, not an object')
    faults = []
    for name, fields in lists.items():
        entries = content.get(name)
        if not isinstance(entries, list):
            raise DataError(f'{file} is no COCO file: it has no list "{name}"')
        for index, entry in enumerate(entries):
            lacking = [field for field in fields if not isinstance(entry, dict) or field not in entry]
            if lacking:
                faults.append(f'{file}, {name}[{index}]: has no {" and no ".join(lacking)}')
    raise_listed(faults, 'correct or remove these entries')
    if not content['images'] or not content['categories']:
        empty = 'images' if not content['images'] else 'categories'
        raise DataError(f'{file}: the list "{empty}" is empty')
    return content


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


def _complete(content: Dict[str, list], folder: Path) -> List[str]:
    """Fill in what mmdet and pycocotools ask for, in place; says what."""
    changes = []
    without = [image for image in content['images'] if 'width' not in image or 'height' not in image]
    for image in without:
        image['width'], image['height'] = image_size(folder / image['file_name'])
    if without:
        changes.append(f'width and height of {len(without)} images were read from their files')
    fills = {
        'area': lambda annotation: annotation['bbox'][2] * annotation['bbox'][3],
        'iscrowd': lambda annotation: 0,
    }
    for field, value in fills.items():
        lacking = [annotation for annotation in content['annotations'] if field not in annotation]
        for annotation in lacking:
            if len(annotation['bbox']) == 4:
                annotation[field] = value(annotation)
        if lacking:
            changes.append(f'{field} was filled in at {len(lacking)} annotations')
    # pycocotools takes a match with an annotation of the id 0 for none.
    if any(annotation.get('id', 0) == 0 for annotation in content['annotations']):
        for number, annotation in enumerate(content['annotations'], 1):
            annotation['id'] = number
        changes.append('annotations were numbered from 1')
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
    used = {names.get(annotation['category_id']) for annotation in val.content['annotations']}
    unknown = sorted(str(name) for name in used - set(order))
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
