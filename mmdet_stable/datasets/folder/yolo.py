"""YOLO folders: a ``data.yaml``, images, and a text file for each image with one line for each object."""

import math
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import yaml

from .records import BoxRecord, DataError, ImageRecord, image_size, images_in, raise_listed, read_text

LOOKED_FOR = 'YOLO: data.yaml with "names", "train" and "val"'
VAL_KEYS = ('val', 'valid', 'validation')
SLACK = 0.01  # by how much coordinates may lie outside of the image, as rounding


def find_description(folder: Path) -> Optional[Path]:
    """The ``data.yaml`` of a folder, or its only YAML file with the keys of one; None where there is none."""
    if (folder / 'data.yaml').is_file():
        return folder / 'data.yaml'
    files = sorted([*folder.glob('*.yaml'), *folder.glob('*.yml')])
    fitting = [file for file in files if {'names', 'train'} <= _load(file).keys()]
    return fitting[0] if len(fitting) == 1 else None


def read_yolo(description: Path) -> Tuple[Dict[str, List[ImageRecord]], Tuple[str, ...], List[str]]:
    """Images of ``'train'`` and, where there are some, of ``'val'``; classes; remarks.

    Raises:
        DataError: naming key of the description, or file and line.
    """
    content = _load(description)
    classes = _class_names(content, description)
    places = dict(train=content.get('train'), val=next((content[key] for key in VAL_KEYS if content.get(key)), None))
    if not places['train']:
        raise DataError(f'{description} has no "train": the folder of training images, or a text file that lists them')
    records: Dict[str, List[ImageRecord]] = {}
    remarks: List[str] = []
    faults: List[str] = []
    for name, place in places.items():
        if place:
            images = _images(place, content.get('path'), description, name)
            labels = [label_file(image) for image in images]
            without = sum(not file.is_file() for file in labels)
            if without == len(images):
                raise DataError(f'none of the {len(images)} images of "{name}" has labels: {labels[0]} does not exist')
            if without:
                remarks.append(f'{name}: {without} images have no label file, and count as images without objects')
            records[name] = [_record(image, file, classes, faults) for image, file in zip(images, labels)]
    raise_listed(faults, 'correct or remove these lines')
    return records, classes, remarks


def _load(file: Path) -> Dict[str, Any]:
    try:
        content = yaml.safe_load(read_text(file))
    except yaml.YAMLError as error:
        raise DataError(f'{file} is no YAML: {error}') from error
    return content if isinstance(content, dict) else {}


def _class_names(content: Dict[str, Any], description: Path) -> Tuple[str, ...]:
    names = content.get('names')
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f'{description}: "names" is {names!r:.60}; it has to list the classes, or number them from 0')
    switches = [name for name in names if name is None or isinstance(name, bool)]
    if switches:
        raise DataError(
            f'{description}: "names" has {switches[0]}, as YAML reads yes, no, on, off and null; write it in quotes'
        )
    if str(content.get('nc', len(names))) != str(len(names)):
        raise DataError(f'{description}: "nc" is {content["nc"]}, but "names" has {len(names)} classes')
    repeated = sorted({str(name) for name in names if names.count(name) > 1})
    if repeated:
        raise DataError(f'{description}: "names" has {", ".join(repeated)} more than once')
    return tuple(map(str, names))


def _images(place: Union[str, Sequence[str]], base: Optional[str], description: Path, key: str) -> List[Path]:
    """The images of a folder, of a text file that lists them, or of several of these."""
    images: List[Path] = []
    for part in [place] if isinstance(place, str) else place:
        candidates = _candidates(str(part), base, description.parent)
        found = next((path for path in candidates if path.exists()), None)
        if found is None:
            tried = ', '.join(map(str, candidates))
            raise DataError(f'{description}: "{key}" is {part}, which does not exist; looked at {tried}')
        images += _listed(found) if found.is_file() else images_in(found)
    if not images:
        raise DataError(f'{description}: "{key}" is {place}, where there are no images')
    return images


def _candidates(part: str, base: Optional[str], folder: Path) -> List[Path]:
    """Where a path of ``data.yaml`` may lead: relative to its ``path``, to the file itself, or to a folder above it."""
    inside = Path(*[name for name in Path(part).parts if name != '..'])  # Roboflow writes ../train/images
    roots = [folder / str(base)] if base else []
    places = [*(root / part for root in roots), folder / part, folder / inside, folder.parent / part]
    return list(dict.fromkeys(Path(os.path.abspath(path)) for path in places))  # links stay, as labels lie beside them


def _listed(file: Path) -> List[Path]:
    """Images that a text file names, one in a line, relative to the folder of that file."""
    lines = [(number, line.strip()) for number, line in enumerate(read_text(file).splitlines(), 1)]
    paths = [(number, Path(os.path.abspath(file.parent / line))) for number, line in lines if line]
    raise_listed(
        [f'{file}, line {n}: {path} does not exist' for n, path in paths if not path.is_file()], 'correct them'
    )
    return [path for _, path in paths]


def label_file(image: Path) -> Path:
    """Where the labels of an image are: in ``labels`` in place of the last ``images`` of its path, or beside it."""
    parts = list(image.with_suffix('.txt').parts)
    positions = [index for index, part in enumerate(parts[:-1]) if part == 'images']
    if not positions:
        return image.with_suffix('.txt')
    parts[positions[-1]] = 'labels'
    return Path(*parts)


def _record(image: Path, file: Path, classes: Sequence[str], faults: List[str]) -> ImageRecord:
    """An image with its boxes; faulty lines are added to ``faults``."""
    width, height = size = image_size(image)
    boxes = []
    for number, line in enumerate(read_text(file).splitlines() if file.is_file() else (), 1):
        if line.strip():
            label, box = parse_line(line, len(classes))
            if box is None:
                faults.append(f'{file}, line {number}: {label}')
            else:
                x1, y1, x2, y2 = (min(max(value, 0.0), 1.0) for value in box)
                boxes.append(BoxRecord(classes[int(label)], (x1 * width, y1 * height, x2 * width, y2 * height)))
    return ImageRecord(image, size, boxes)


def parse_line(line: str, num_classes: int) -> Tuple[Union[int, str], Optional[Tuple[float, float, float, float]]]:
    """Label and box of a line, left, top, right, bottom relative to the image; or what is wrong, and None.

    A line is ``label centre-x centre-y width height``, or ``label x y x y x y ...`` for a polygon of three points or
    more, whose box is taken.
    """
    words = line.split()
    try:
        values = [float(word) for word in words]
    except ValueError:
        return f'{line.strip()!r:.60} holds something else than numbers', None
    label, numbers = values[0], values[1:]
    if label not in range(num_classes):
        return f'label {words[0]} is no whole number from 0 to {num_classes - 1}', None
    if len(numbers) != 4 and (len(numbers) < 6 or len(numbers) % 2):
        return f'has {len(words)} numbers; a box has 5, a polygon 7 or more of an odd number', None
    if not all(math.isfinite(value) and -SLACK <= value <= 1 + SLACK for value in numbers):
        return f'{line.strip()!r:.60} has coordinates outside of 0 to 1, which are relative to the image', None
    if len(numbers) == 4:
        x, y, w, h = numbers
        return int(label), (x - w / 2, y - h / 2, x + w / 2, y + h / 2)
    return int(label), (min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2]))
