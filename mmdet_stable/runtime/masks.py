"""Masks: from logits at a quarter of the input's size to instances, panoptic and semantic maps of a picture's size."""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np

from .pictures import Size, resize

MASKS_AT_A_TIME = 16
INSTANCE_OFFSET = 1000  # of mmdet's panoptic maps


class Frame(NamedTuple):
    """(height, width) of the padded input, of the picture in it, and of the picture as it came."""

    padded: Size
    resized: Size
    original: Size

    def of_input(self, logits: np.ndarray) -> np.ndarray:
        """Logits (h, w) in pixels of the input."""
        return resize(logits, self.padded)

    def of_picture(self, values: np.ndarray) -> np.ndarray:
        """Values (H, W) of the input without its padding, in pixels of the picture."""
        rows, columns = self.resized
        return resize(values[:rows, :columns], self.original)


def instance_masks(logits: np.ndarray, frame: Frame) -> Tuple[np.ndarray, np.ndarray]:
    """Masks (M, height, width) bool of logits (M, h, w), and (M,) the mean score in each."""
    masks = np.zeros((len(logits), *frame.original), bool)
    means = np.zeros(len(logits), np.float32)
    for index, values in enumerate(logits):
        values = frame.of_picture(frame.of_input(values))
        masks[index] = inside = values > 0
        means[index] = sigmoid(values[inside]).sum() / (inside.sum() + 1e-6)
    return masks, means


def boxes_around(masks: np.ndarray) -> np.ndarray:
    """(M, 4) float32 left, top, right, bottom of masks (M, height, width), zeros of empty ones."""
    boxes = np.zeros((len(masks), 4), np.float32)
    for box, mask in zip(boxes, masks):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def semantic_map(logits: np.ndarray, masks: np.ndarray, frame: Frame, rule: Dict[str, Any]) -> np.ndarray:
    """The class of each pixel, (height, width) int64.

    Args:
        logits: (Q, C) of the classes, or (Q, C + 1) with background last, by ``rule['softmax']``.
        masks: (Q, h, w) logits.
        rule: the part of an exported file's metadata that is about masks.
    """
    weights = sharpened(class_scores(logits, rule), rule)
    height, width = size = frame.original if rule['resize_first'] else frame.padded
    total = np.zeros((weights.shape[1], height * width), np.float32)
    for start in range(0, len(masks), MASKS_AT_A_TIME):
        part = slice(start, start + MASKS_AT_A_TIME)
        values = [frame.of_input(mask) for mask in masks[part]]
        if rule['resize_first']:
            values = [frame.of_picture(one) for one in values]
        total += weights[part].T @ sigmoid(np.stack(values)).reshape(len(values), -1)
    maps = total.reshape(-1, *size)
    if not rule['resize_first']:
        maps = np.stack([frame.of_picture(one) for one in maps])
    return maps.argmax(0)


def panoptic_map(logits: np.ndarray, masks: np.ndarray, frame: Frame, rule: Dict[str, Any]) -> np.ndarray:
    """Segments in mmdet's code, (height, width) int32: the class of stuff, for each thing the class plus 1000 times a
    number of its own, and the number of classes where there is nothing. Arguments as in :func:`semantic_map`."""
    every = class_scores(logits, rule)
    num_classes = every.shape[1]
    best = every.max(1)
    if rule['softmax']:
        best[logits.argmax(1) == num_classes] = 0
    queries = np.flatnonzero(best > rule['object_mask_thr'])
    weights = sharpened(every[queries], rule)
    winner = np.zeros(frame.original, np.int64)
    highest = np.full(frame.original, -1, np.float32)
    is_own = np.zeros(frame.original, bool)
    own = np.zeros(len(queries), np.int64)
    for index, query in enumerate(queries):
        scores = sigmoid(frame.of_picture(frame.of_input(masks[query])))
        inside = scores >= 0.5
        own[index] = inside.sum()
        scores *= weights[index].max()
        wins = scores > highest
        highest[wins], winner[wins], is_own[wins] = scores[wins], index, inside[wins]
    if not len(queries):
        return np.full(frame.original, num_classes, np.int32)
    won = np.bincount(winner.ravel(), minlength=len(queries))
    both = np.bincount(winner[is_own], minlength=len(queries))
    is_segment = (won > 0) & (own > 0) & (both > 0) & (won / own.clip(1) >= rule['iou_thr'])
    codes = _codes(weights.argmax(1).tolist(), is_segment.tolist(), num_classes, rule['num_things'])
    return np.where(is_own, np.array(codes, np.int32)[winner], np.int32(num_classes))


def _codes(labels: Sequence[int], is_segment: Sequence[bool], num_classes: int, num_things: int) -> List[int]:
    """The code of each query. Segments are counted together, things and kinds of stuff, as mmdet does."""
    codes, count, stuff = [], 0, set()
    for label, counts in zip(labels, is_segment):
        code = num_classes
        if counts:
            count += label not in stuff
            code = label + INSTANCE_OFFSET * count if label < num_things else label
            if label >= num_things:
                stuff.add(label)
        codes.append(code)
    return codes


def sizes_of(codes: np.ndarray, classes: Sequence[str]) -> List[Dict[str, Any]]:
    """The segments of a panoptic or semantic map, as JSON takes them: code, name of the class, and pixels."""
    found = zip(*(part.tolist() for part in np.unique(codes, return_counts=True)))
    return [
        dict(code=code, name=classes[code % INSTANCE_OFFSET], pixels=pixels)
        for code, pixels in found
        if code % INSTANCE_OFFSET < len(classes)
    ]


def class_scores(logits: np.ndarray, rule: Dict[str, Any]) -> np.ndarray:
    """(Q, C) in [0, 1]."""
    return softmax(logits)[:, :-1] if rule['softmax'] else sigmoid(logits)


def sharpened(scores: np.ndarray, rule: Dict[str, Any]) -> np.ndarray:
    """Class scores (Q, C) as panoptic and semantic maps use them."""
    return scores if rule['softmax'] or rule['sharpen'] is None else softmax(scores / rule['sharpen'])


def softmax(values: np.ndarray) -> np.ndarray:
    """Along the last of 2 dimensions."""
    powers = np.exp(values - values.max(1, keepdims=True, initial=-np.inf))
    return powers / powers.sum(1, keepdims=True)


def sigmoid(values: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-x)), without an overflow."""
    return 0.5 * (np.tanh(0.5 * values) + 1)


def survivors(boxes: np.ndarray, labels: np.ndarray, iou_threshold: float) -> np.ndarray:
    """Which of the boxes (M, 4), best first, class-wise NMS keeps: their indices."""
    kept: List[int] = []
    areas = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(1)
    for index, box in enumerate(boxes):
        others = np.array([other for other in kept if labels[other] == labels[index]], np.int64)
        common = (np.minimum(boxes[others, 2:], box[2:]) - np.maximum(boxes[others, :2], box[:2])).clip(0).prod(1)
        if not (common > iou_threshold * (areas[others] + areas[index] - common)).any():
            kept.append(index)
    return np.array(kept, np.int64)
