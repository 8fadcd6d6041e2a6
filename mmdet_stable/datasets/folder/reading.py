"""Finds the data that a path stands for, whatever its layout."""

import random
from pathlib import Path
from typing import Dict, List, NamedTuple, Sequence, Tuple, TypeVar, Union

from . import coco, voc, yolo
from .records import DataError, ImageRecord, Split, common_folder, write_coco, write_json

VAL_SHARE = 0.2  # of the images, where the data has no validation part
Item = TypeVar('Item')


class FoundData(NamedTuple):
    """Data that were found, in COCO's format.

    Attributes:
        layout: ``'COCO'``, ``'YOLO'`` or ``'Pascal VOC'``.
        train, val: the two parts.
        classes: names in the order of labels.
        remarks: what a reader should know, e.g. how the data were split, one sentence each.
    """

    layout: str
    train: Split
    val: Split
    classes: Tuple[str, ...]
    remarks: Tuple[str, ...]


def read_data(source: Union[str, Path, Sequence[Union[str, Path]]], scratch: Path, seed: int = 60) -> FoundData:
    """Find training and validation data.

    Args:
        source: a folder; a COCO file; a COCO file for training and one for validation; or the ``data.yaml`` of a YOLO
            folder.
        scratch: receives ``train.json`` and ``val.json``, where the data are not in COCO's format, not complete or not
            split. Images stay where they are.
        seed: of the split.

    Raises:
        DataError: where nothing is found, saying what was looked for; or for annotations that cannot be read, naming
            file and line.
    """
    paths = [Path(path).resolve() for path in ([source] if isinstance(source, (str, Path)) else source)]
    missing = [str(path) for path in paths if not path.exists()]
    if missing or not paths:
        raise DataError(f'data do not exist: {", ".join(missing)}')
    if len(paths) > 2 or (len(paths) == 2 and any(path.suffix != '.json' for path in paths)):
        raise DataError('give one folder, one data.yaml, or one or two COCO files: training and validation')
    if paths[0].suffix == '.json':
        return _found_coco(coco.CocoFiles(*paths), scratch, seed)
    if paths[0].is_file():
        if paths[0].suffix not in ('.yaml', '.yml'):
            raise DataError(f'{paths[0]} is neither a folder, nor a COCO file (.json), nor the data.yaml of YOLO')
        return _converted('YOLO', yolo.read_yolo(paths[0]), scratch, seed)
    return _read_folder(paths[0], scratch, seed)


def _read_folder(folder: Path, scratch: Path, seed: int) -> FoundData:
    description = yolo.find_description(folder)
    if description:
        return _converted('YOLO', yolo.read_yolo(description), scratch, seed)
    files = coco.find_files(folder)
    if files:
        return _found_coco(files, scratch, seed)
    if voc.is_voc(folder):
        return _converted('Pascal VOC', voc.read_voc(folder), scratch, seed)
    entries = sorted(path.name + '/' * path.is_dir() for path in folder.iterdir())
    looked_for = '\n  '.join((*coco.LOOKED_FOR, yolo.LOOKED_FOR, *voc.LOOKED_FOR))
    raise DataError(
        f'{folder} holds no data that are known here. It has {", ".join(entries[:8]) or "nothing"}'
        f'{", ..." if len(entries) > 8 else ""}. Looked for:\n  {looked_for}'
    )


def _converted(
    layout: str, parts: Tuple[Dict[str, List[ImageRecord]], Tuple[str, ...], List[str]], scratch: Path, seed: int
) -> FoundData:
    """Write what a reader has found as COCO files, split where it has no validation part."""
    records, classes, remarks = parts
    train, val = records['train'], records.get('val')
    if val is None:
        train, val = split(train, seed)
        remarks = [*remarks, _split_remark(len(train), len(val), seed)]
    root = common_folder([record.path for record in (*train, *val)])
    return FoundData(
        layout,
        write_coco(train, classes, root, scratch / 'train.json'),
        write_coco(val, classes, root, scratch / 'val.json'),
        classes,
        tuple(remarks),
    )


def _found_coco(files: coco.CocoFiles, scratch: Path, seed: int) -> FoundData:
    train = coco.read_coco(files.train, files.root)
    classes, remarks = coco.class_names(train.content)
    if files.val is None:
        for_training, for_validation = split(train.content['images'], seed)
        remarks.append(_split_remark(len(for_training), len(for_validation), seed))
        train, val = coco.with_images(train, for_training), coco.with_images(train, for_validation)
    else:
        val = coco.with_categories_of(coco.read_coco(files.val, files.root), train)
    for name, part in (('train', train), ('val', val)):
        remarks += [f'{name}: {change}, in {scratch / f"{name}.json"}' for change in part.changes]
    return FoundData(
        'COCO', _kept(train, scratch / 'train.json'), _kept(val, scratch / 'val.json'), classes, tuple(remarks)
    )


def _kept(part: coco.CocoPart, path: Path) -> Split:
    """The annotation file itself, or a new one where the content is another."""
    if part.as_in_file:
        return Split(part.file, part.image_folder)
    write_json(part.content, path)
    return Split(path, part.image_folder)


def _split_remark(num_train: int, num_val: int, seed: int) -> str:
    return (
        f'there is no validation part: {num_val} of {num_train + num_val} images were drawn for it (seed {seed}). '
        'Pictures of one series should be in one part; then split by hand'
    )


def split(items: Sequence[Item], seed: int) -> Tuple[List[Item], List[Item]]:
    """Draw a validation part, a fifth of the items; both parts keep their order, and hold at least one.

    Raises:
        DataError: for less than two items.
    """
    if len(items) < 2:
        raise DataError(
            f'there are only {len(items)} images: at least one for training and one for validation is needed'
        )
    number = max(round(VAL_SHARE * len(items)), 1)
    drawn = set(random.Random(seed).sample(range(len(items)), number))
    return (
        [item for index, item in enumerate(items) if index not in drawn],
        [item for index, item in enumerate(items) if index in drawn],
    )
