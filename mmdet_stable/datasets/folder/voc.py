"""Pascal VOC: an XML file for each image, and lists of images in ``ImageSets/Main``."""

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from .records import IMAGE_SUFFIXES, BoxRecord, DataError, ImageRecord, image_size, raise_listed, read_text

LOOKED_FOR = (
    'Pascal VOC: Annotations/*.xml, with ImageSets/Main/train.txt and val.txt where they are split',
    'Pascal VOC: train/*.xml and valid/*.xml beside their images',
)
VAL_FOLDERS = ('val', 'valid', 'validation')
CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def is_voc(folder: Path) -> bool:
    """Whether a folder has annotations in XML where Pascal VOC, or tools that export it, put them."""
    return any(_xml_files(folder / name) for name in ('Annotations', 'annotations', 'train'))


def read_voc(folder: Path) -> Tuple[Dict[str, List[ImageRecord]], Tuple[str, ...], List[str]]:
    """Images of ``'train'`` and, where there are some, of ``'val'``; classes in the order of the alphabet; remarks.

    Raises:
        DataError: naming the file, and the line or element.
    """
    files, remarks = _split_files(folder)
    faults: List[str] = []
    raw = {name: [_read(file, folder, faults) for file in part] for name, part in files.items()}
    raise_listed(faults, 'correct these files, or remove them')
    images = {name: [image for image in part if image is not None] for name, part in raw.items()}
    boxes = [box for part in images.values() for image in part for box in image.boxes]
    # Pascal VOC counts pixels from 1, and the right and lower ones belong to the box; other tools count edges from 0.
    counts_from_0 = any(min(box.box_xyxy[:2]) < 1 for box in boxes)
    if counts_from_0:
        remarks.append('boxes begin at pixel 0, so that corners are taken as edges; Pascal VOC itself counts from 1')
    else:
        images = {name: [_from_1(image) for image in part] for name, part in images.items()}
    crowds = sum(box.crowd for box in boxes)
    if crowds:
        remarks.append(f'{crowds} objects are marked as difficult, and count neither in training nor in evaluation')
    return images, tuple(sorted({box.name for box in boxes})), remarks


def _xml_files(folder: Path) -> List[Path]:
    return sorted(folder.glob('*.xml'))


def _split_files(folder: Path) -> Tuple[Dict[str, List[Path]], List[str]]:
    """Annotation files of each part, and remarks."""
    annotations = next((folder / name for name in ('Annotations', 'annotations') if _xml_files(folder / name)), None)
    if annotations is None:
        parts = dict(train=_xml_files(folder / 'train'))
        val = next((files for files in map(_xml_files, (folder / name for name in VAL_FOLDERS)) if files), None)
        return dict(parts, val=val) if val else parts, []
    sets = folder / 'ImageSets' / 'Main'
    if not (sets / 'train.txt').is_file():
        whole = sets / 'trainval.txt'
        return dict(train=_of_set(whole, annotations) if whole.is_file() else _xml_files(annotations)), []
    names = [name for name in ('train', 'val') if (sets / f'{name}.txt').is_file()]
    listed = {name: _of_set(sets / f'{name}.txt', annotations) for name in names}
    rest = set(_xml_files(annotations)) - {file for part in listed.values() for file in part}
    remarks = [f'{len(rest)} annotations are in neither of the lists in {sets}, and left out'] if rest else []
    return listed, remarks


def _of_set(file: Path, annotations: Path) -> List[Path]:
    """The annotation files that a list of ``ImageSets`` names; a second word of a line is whether a class is there."""
    lines = [(number, line.split()) for number, line in enumerate(read_text(file).splitlines(), 1)]
    paths = [(number, annotations / f'{words[0]}.xml') for number, words in lines if words]
    raise_listed(
        [f'{file}, line {n}: {path} does not exist' for n, path in paths if not path.is_file()], 'correct them'
    )
    if not paths:
        raise DataError(f'{file} is empty')
    return [path for _, path in paths]


def _read(file: Path, folder: Path, faults: List[str]) -> Optional[ImageRecord]:
    """An image with its boxes as the file gives them; None, and a fault, where that is broken."""
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        faults.append(f'{file}, line {error.position[0]}: is no XML: {error}')
        return None
    image = _image(file, folder, (root.findtext('filename') or '').strip())
    if image is None:
        faults.append(
            f'{file}: its image, {root.findtext("filename") or file.stem}, is neither beside it nor in JPEGImages'
        )
        return None
    boxes = []
    for number, element in enumerate(root.findall('object')):
        name, corners = (element.findtext('name') or '').strip(), [element.findtext(f'bndbox/{c}') for c in CORNERS]
        try:
            x1, y1, x2, y2 = (float(str(corner)) for corner in corners)
        except ValueError:
            faults.append(f'{file}, object {number}: bndbox is {dict(zip(CORNERS, corners))}, not four numbers')
            continue
        if not name:
            faults.append(f'{file}, object {number}: has no name')
            continue
        difficult = (element.findtext('difficult') or '0').strip() == '1'
        boxes.append(BoxRecord(name, (x1, y1, x2, y2), difficult))
    return ImageRecord(image, image_size(image), boxes)


def _image(file: Path, folder: Path, name: str) -> Optional[Path]:
    """The image of an annotation file: by the name that it gives, or by its own."""
    names = [name] if name else []
    names += [file.stem + suffix for suffix in (*IMAGE_SUFFIXES, *(suffix.upper() for suffix in IMAGE_SUFFIXES))]
    places = (folder / 'JPEGImages', folder / 'images', file.parent, folder)
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def _from_1(image: ImageRecord) -> ImageRecord:
    """Boxes from left and top pixels that count from 1 to edges that count from 0."""
    moved = []
    for box in image.boxes:
        x1, y1, x2, y2 = box.box_xyxy
        moved.append(box._replace(box_xyxy=(x1 - 1, y1 - 1, x2, y2)))
    return image._replace(boxes=moved)
