"""What happens to tensors whose rows or columns are ordered otherwise in published files."""

from typing import Callable, Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor

COCO_ROWS = 91  # of class heads whose row is the category id of COCO
UNUSED_ROWS = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # no category has these ids
USED_ROWS = tuple(row for row in range(COCO_ROWS) if row not in UNUSED_ROWS)  # the 80 categories, in mmdet's order
NEVER = -1e4  # bias of a class that is never found; float16 holds it


class Operation(NamedTuple):
    """A change of a tensor, and how to take it back."""

    read: Callable[[List[Tensor]], Tensor]  # from the published tensor, or its parts
    write: Callable[[Tensor, int], List[Tensor]]  # to the published tensor, or that number of parts
    rows: str = ''  # what is lost of 91 rows, in words


def class_rows(published: Tensor) -> Tensor:
    """(91, ...) to (80, ...): the rows of COCO's categories; others as they are."""
    return published[list(USED_ROWS)] if len(published) == COCO_ROWS else published


def to_class_rows(ours: Tensor) -> Tensor:
    """(80, ...) to (91, ...), with classes that are never found in between; others as they are."""
    return _scattered(ours, USED_ROWS, COCO_ROWS) if len(ours) == len(USED_ROWS) else ours


def object_rows(published: Tensor) -> Tensor:
    """Proposals that only know object and background, the object in row 0: the first 80 of 91 rows."""
    return published[: len(USED_ROWS)] if len(published) == COCO_ROWS else published


def to_object_rows(ours: Tensor) -> Tensor:
    """The inverse of :func:`object_rows`."""
    return _scattered(ours, range(len(ours)), COCO_ROWS) if len(ours) == len(USED_ROWS) else ours


def label_rows(published: Tensor) -> Tensor:
    """Label embedding of DINO: (92, D) or (C + 1, D), of which the last row is never read, to (80, D) or (C, D)."""
    return class_rows(published[:-1])


def to_label_rows(ours: Tensor) -> Tensor:
    """The inverse of :func:`label_rows`, with zeros in the rows that are never read."""
    rows = _scattered(ours, USED_ROWS, COCO_ROWS, never=0) if len(ours) == len(USED_ROWS) else ours
    return torch.cat([rows, rows.new_zeros(1, *rows.shape[1:])])


def and_last_row(published: Tensor) -> Tensor:
    """(92, ...) to (81, ...): rows of categories, then the last one, "unknown" (DN-DETR) or background (DETR)."""
    return torch.cat([class_rows(published[:-1]), published[-1:]])


def to_label_and_unknown_rows(ours: Tensor) -> Tensor:
    """The inverse of :func:`and_last_row` for label embeddings."""
    known, last = ours[:-1], ours[-1:]
    return torch.cat([_scattered(known, USED_ROWS, COCO_ROWS, 0) if len(known) == len(USED_ROWS) else known, last])


def to_class_and_background_rows(ours: Tensor) -> Tensor:
    """The inverse of :func:`and_last_row` for class heads."""
    return torch.cat([to_class_rows(ours[:-1]), ours[-1:]])


def swin_merging(published: Tensor) -> Tensor:
    """Patch merging of Swin, weight (O, 4 C) or norm (4 C).

    Published columns come in blocks of C channels, one for each of the merged pixels (row, column) 00, 10, 01, 11;
    mmdet's channel by channel, each with its pixels in the order 00, 01, 10, 11.
    """
    return published.unflatten(-1, (4, -1))[..., [0, 2, 1, 3], :].transpose(-1, -2).flatten(-2)


def to_swin_merging(ours: Tensor) -> Tensor:
    """The inverse of :func:`swin_merging`."""
    return ours.unflatten(-1, (-1, 4)).transpose(-1, -2)[..., [0, 2, 1, 3], :].flatten(-2)


def _scattered(ours: Tensor, rows: Sequence[int], total: int, never: float = NEVER) -> Tensor:
    """Rows put in their places; others have weights 0, and the bias ``never``."""
    published = ours.new_full((total, *ours.shape[1:]), never if ours.ndim == 1 else 0)
    published[list(rows)] = ours
    return published


def _single(read: Callable[[Tensor], Tensor], write: Callable[[Tensor], Tensor], rows: str = '') -> Operation:
    return Operation(lambda parts: read(parts[0]), lambda ours, _: [write(ours)], rows)


COCO_LOSS = f'rows {", ".join(map(str, UNUSED_ROWS))}, which are no category of COCO'
OPERATIONS: Dict[str, Operation] = {
    'class_rows': _single(class_rows, to_class_rows, COCO_LOSS),
    'object_rows': _single(object_rows, to_object_rows, 'rows 80 to 90, which are never trained'),
    'label_rows': _single(label_rows, to_label_rows, f'{COCO_LOSS}, and row 91, which is never read'),
    'label_and_unknown_rows': _single(and_last_row, to_label_and_unknown_rows, COCO_LOSS),
    'class_and_background_rows': _single(and_last_row, to_class_and_background_rows, COCO_LOSS),
    'swin_merging': _single(swin_merging, to_swin_merging),
    'stacked': Operation(torch.cat, lambda ours, number: list(ours.chunk(number))),
}
