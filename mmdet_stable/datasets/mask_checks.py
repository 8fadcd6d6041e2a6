"""Checks of the masks of an annotation file in COCO's format: polygons, and run lengths (RLE)."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from pycocotools import mask as coco_mask

from .checks import Finding

Box = Tuple[float, float, float, float]  # left, top, right, bottom
LOWEST_IOU = 0.5  # of the box and the smallest box around the mask
ROUNDING = 2  # pixels by which the edges of these may differ in any case


class BrokenMaskError(ValueError):
    """What is no mask, and why."""


class Extent(NamedTuple):
    """Pixels of a mask, and the smallest box around it."""

    area: float
    box_xyxy: Box


def mask_finding(
    annotation: dict, width: float, height: float, polygons: bool, file: str, key: str
) -> Optional[Finding]:
    """What is wrong with the ``segmentation`` of an annotation, or None.

    Args:
        annotation: of COCO's format, with a sound ``bbox``.
        width, height: of the image.
        polygons: whether the masks are loaded as polygons (``LoadAnnotations(poly2mask=False)``), so that mmdet drops
            those that are run lengths.
        file, key: of the annotation, for the finding.
    """
    segmentation, is_crowd = annotation.get('segmentation'), bool(annotation.get('iscrowd'))
    if not segmentation:
        return Finding('mask-missing', file, key, 'is empty' if 'segmentation' in annotation else 'is missing')
    is_rle = isinstance(segmentation, dict)
    if is_rle and polygons and not is_crowd:
        return Finding('mask-rle', file, key, 'is given by run lengths, but the pipeline loads polygons')
    if is_rle and isinstance(segmentation.get('size'), list) and segmentation['size'] != [height, width]:
        problem = f'has the size {segmentation["size"]} (height, width), but the image has {[height, width]}'
        return Finding('mask-size', file, key, problem)
    try:
        extent = run_length_extent(segmentation) if is_rle else polygon_extent(segmentation, width, height)
    except BrokenMaskError as error:
        return Finding('mask-broken', file, key, str(error))
    if extent.area < 1:
        return Finding('mask-empty', file, key, 'covers no pixel of the image')
    x, y, box_width, box_height = annotation['bbox']
    box = (x, y, x + box_width, y + box_height)
    if not is_crowd and _disagree(box, extent.box_xyxy):
        shown = tuple(round(float(value), 1) for value in extent.box_xyxy)
        problem = f'reaches over {shown} (left, top, right, bottom), but the bbox over {box}'
        return Finding('mask-box', file, key, problem)
    return None


def polygon_extent(polygons: Any, width: float, height: float) -> Extent:
    """Of polygons, each a list of x and y in turn.

    Raises:
        BrokenMaskError: where mmdet would find nothing to draw, or pycocotools fail.
    """
    if not isinstance(polygons, list):
        raise BrokenMaskError(f'is {polygons!r:.40}, neither polygons nor run lengths')
    for index, polygon in enumerate(polygons):
        if not isinstance(polygon, list) or not all(_is_number(value) for value in polygon):
            raise BrokenMaskError(f'polygon {index} is {polygon!r:.40}, not a list of numbers')
        if len(polygon) < 6 or len(polygon) % 2:
            raise BrokenMaskError(f'polygon {index} has {len(polygon)} numbers, not x and y of three or more points')
        if not np.isfinite(polygon).all():
            raise BrokenMaskError(f'polygon {index} has coordinates that are not finite')
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons]).astype(float)
    size = (int(height), int(width))
    # Kept near the image, since pycocotools draws every pixel of an edge, also far outside.
    near = [np.clip(polygon, -2 * max(size), 3 * max(size)).tolist() for polygon in polygons]
    area = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(near, *size)))
    return Extent(float(area), (*points.min(0), *points.max(0)))


def run_length_extent(segmentation: dict) -> Extent:
    """Of run lengths: ``size`` (height, width) and ``counts``, as numbers or as COCO's compressed string.

    Raises:
        BrokenMaskError: where they do not cover ``size``; pycocotools would read or write elsewhere.
    """
    counts, size = segmentation.get('counts'), segmentation.get('size')
    if not isinstance(counts, (str, list)) or not isinstance(size, list) or len(size) != 2:
        raise BrokenMaskError('has no "counts" and "size", which run lengths need')
    if isinstance(counts, list):
        if not all(isinstance(count, int) for count in counts):
            raise BrokenMaskError(f'counts are {counts!r:.40}, not whole numbers')
        runs = counts
    else:
        runs = decompressed(counts)
    height, width = size
    if min(runs, default=-1) < 0 or sum(runs) != height * width:
        raise BrokenMaskError(f'counts cover {sum(runs)} pixels, but size {size} has {height * width}')
    compressed = coco_mask.frPyObjects(dict(counts=runs, size=size), height, width)
    x, y, box_width, box_height = coco_mask.toBbox(compressed)
    return Extent(float(sum(runs[1::2])), (x, y, x + box_width, y + box_height))


def decompressed(counts: str) -> List[int]:
    """The run lengths of COCO's compressed string: 5 bits a character from '0' on, lowest first, with a sixth bit where
    more follow; from the fourth run on, differences to the run before the last.

    Raises:
        BrokenMaskError: for characters that are none of these, or where the string ends within a number.
    """
    runs: List[int] = []
    value, shift = 0, 0
    for character in counts:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise BrokenMaskError(f'counts hold {character!r}, which is no character of compressed run lengths')
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value, shift = 0, 0
    if shift:
        raise BrokenMaskError('counts end within a number')
    return runs


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _disagree(box: Sequence[float], other: Sequence[float]) -> bool:
    if max(abs(a - b) for a, b in zip(box, other)) <= ROUNDING:
        return False
    overlap = _area((*map(max, box[:2], other[:2]), *map(min, box[2:], other[2:])))
    return overlap < LOWEST_IOU * (_area(box) + _area(other) - overlap)


def _area(box: Sequence[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def loads_masks(pipeline: Sequence[dict]) -> Optional[str]:
    """How a pipeline loads masks: as ``'bitmaps'``, as ``'polygons'``, or None where it loads none."""
    for step in pipeline:
        if step.get('with_mask'):
            return 'bitmaps' if step.get('poly2mask', True) else 'polygons'
    return None
