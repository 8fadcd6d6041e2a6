"""What the readers of all layouts share: images with boxes, and how they become a COCO file."""

import json
from pathlib import Path
from typing import Dict, Iterable, List, NamedTuple, Sequence, Tuple

from PIL import Image

from mmdet_stable.datasets.image_checks import UNREADABLE, upright_size
from mmdet_stable.utils.files import write_whole

IMAGE_SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')
LISTED = 10  # faults in one message


class DataError(ValueError):
    """Data that cannot be read; names the file, and what to do."""


class Split(NamedTuple):
    """One part of the data, in COCO's format.

    Attributes:
        ann_file: annotation file.
        image_folder: what its ``file_name`` is relative to.
    """

    ann_file: Path
    image_folder: Path


class BoxRecord(NamedTuple):
    """A box of an image.

    Attributes:
        name: class.
        box_xyxy: left, top, right, bottom in pixels of the image.
        crowd: whether it neither counts as missed nor a detection on it as wrong, as COCO's crowds and VOC's difficult
            objects.
    """

    name: str
    box_xyxy: Tuple[float, float, float, float]
    crowd: bool = False


class ImageRecord(NamedTuple):
    """An image with its boxes."""

    path: Path
    size: Tuple[int, int]  # width, height in pixels
    boxes: List[BoxRecord]


def image_size(path: Path) -> Tuple[int, int]:
    """(width, height) of an image as it is loaded for training, after the rotation that EXIF asks for.

    Raises:
        DataError: if it cannot be read.
    """
    try:
        with Image.open(path) as image:
            return upright_size(image)
    except UNREADABLE as error:
        raise DataError(f'{path} cannot be read as an image ({error}); write it again, or remove it') from error


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, without the byte order mark that Windows' editors put in front.

    Raises:
        DataError: if it is in another encoding.
    """
    try:
        return path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise DataError(f'{path} is no text in UTF-8 ({error}); save it again in this encoding') from error


def images_in(folder: Path) -> List[Path]:
    """All images of a folder and below, in the order of their names."""
    return sorted(path for path in folder.rglob('*') if path.suffix.lower() in IMAGE_SUFFIXES)


def raise_listed(faults: Sequence[str], remedy: str) -> None:
    """Raise a :class:`DataError` that lists faults, each with its file and line, if there are any."""
    if faults:
        more = [f'... and {len(faults) - LISTED} more'] if len(faults) > LISTED else []
        raise DataError('\n  '.join([f'{len(faults)} faults in the annotations; {remedy}:', *faults[:LISTED], *more]))


def write_coco(records: Iterable[ImageRecord], classes: Sequence[str], root: Path, path: Path) -> Split:
    """Write images with boxes as a COCO file; the images stay where they are.

    Args:
        classes: all names, in the order of labels.
        root: a folder above all images.
        path: of the file.
    """
    numbers = {name: number for number, name in enumerate(classes, 1)}
    images: List[dict] = []
    annotations: List[dict] = []
    for image_id, record in enumerate(records, 1):
        width, height = record.size
        name = record.path.relative_to(root).as_posix()
        images.append(dict(id=image_id, file_name=name, width=width, height=height))
        for box in record.boxes:
            x1, y1, x2, y2 = box.box_xyxy
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=numbers[box.name],
                    bbox=[round(value, 2) for value in (x1, y1, x2 - x1, y2 - y1)],
                    area=round((x2 - x1) * (y2 - y1), 2),
                    iscrowd=int(box.crowd),
                )
            )
    categories: List[dict] = [dict(id=number, name=name) for name, number in numbers.items()]
    write_json(dict(images=images, annotations=annotations, categories=categories), path)
    return Split(path, root)


def write_json(content: Dict[str, list], path: Path) -> None:
    """Write a COCO file, whole or not at all."""
    write_whole(path, json.dumps(content))


def common_folder(paths: Sequence[Path]) -> Path:
    """The lowest folder that all files are in."""
    folder = paths[0].parent
    while not all(path.is_relative_to(folder) for path in paths):
        folder = folder.parent
    return folder
