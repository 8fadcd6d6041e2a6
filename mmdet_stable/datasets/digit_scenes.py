"""Digit scenes: a small detection data set in COCO format, made from real handwriting.

scikit-learn ships 1,797 handwritten digits (8 x 8 pixels, from the UCI Optical Recognition of Handwritten Digits data
set). They are enlarged, coloured and scattered over varied backgrounds. Training and validation scenes never share a
digit image. Every digit has a box, and a mask of its own visible pixels: where digits overlap, those drawn later hide
those drawn before.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import List, Optional, Tuple, Union

import cv2
import numpy as np
from pycocotools import mask as rle

DIGIT_CLASSES = tuple(str(digit) for digit in range(10))
SCENE_SIZE = (160, 128)  # width, height
DIGIT_SIZES = (16, 56)
MAX_DIGITS = 8
EMPTY_SHARE = 0.05
MAX_OVERLAP = 0.1
INK = 0.25  # from which a pixel belongs to the digit


def write_digit_scenes(folder: Union[str, Path], num_train: int = 1000, num_val: int = 200, seed: int = 0) -> Path:
    """Write the data set, or leave it untouched where the same one is already there.

    Args:
        folder: receives ``train/``, ``val/`` (PNG) and ``annotations/instances_{train,val}.json``. It appears complete
            or not at all.
        num_train, num_val: images, at least 1 each.
        seed: the same seed gives the same bytes.

    Returns:
        The folder.

    Raises:
        ValueError: if a number is below 1.
        FileExistsError: if the folder holds something else.
        ImportError: if scikit-learn is missing.
    """
    if min(num_train, num_val) < 1:
        raise ValueError(f'num_train={num_train}, num_val={num_val}: both must be at least 1')
    folder = Path(folder)
    settings = dict(num_train=num_train, num_val=num_val, seed=seed, masks=True)
    stamp = folder / 'digit_scenes.json'
    if stamp.exists() and json.loads(stamp.read_text()) == settings:
        return folder
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(
            f'{folder} is not empty and not these digit scenes ({settings}); choose or clear a folder'
        )

    images, labels = _load_digits()
    order = np.random.default_rng(seed).permutation(len(images))
    halves = dict(train=order[: len(order) * 3 // 4], val=order[len(order) * 3 // 4 :])
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f'.{folder.name}-') as parent:
        scratch = Path(parent) / folder.name
        (scratch / 'annotations').mkdir(parents=True)
        for stream, (split, num) in enumerate(dict(train=num_train, val=num_val).items()):
            rng = np.random.default_rng([seed, stream])
            _write_split(scratch, split, num, images[halves[split]], labels[halves[split]], rng)
        (scratch / stamp.name).write_text(json.dumps(settings))
        if folder.exists():
            folder.rmdir()
        shutil.move(str(scratch), str(folder))
    return folder


def _load_digits() -> Tuple[np.ndarray, np.ndarray]:
    """(1797, 8, 8) ink in [0, 1] and (1797,) labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('digit scenes need scikit-learn: pip install scikit-learn') from error
    digits = load_digits()
    return (digits.images / 16).astype(np.float32), digits.target


def _write_split(
    folder: Path, split: str, num: int, images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> None:
    (folder / split).mkdir()
    width, height = SCENE_SIZE
    coco = dict(
        images=[], annotations=[], categories=[dict(id=i + 1, name=name) for i, name in enumerate(DIGIT_CLASSES)]
    )
    for image_id in range(1, num + 1):
        scene, boxes, classes, masks = _draw_scene(images, labels, rng)
        name = f'{image_id:06d}.png'
        cv2.imwrite(str(folder / split / name), scene)
        coco['images'].append(dict(id=image_id, file_name=name, width=width, height=height))
        for (x, y, w, h), label, mask in zip(boxes, classes, masks):
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=image_id,
                    category_id=int(label) + 1,
                    bbox=[x, y, w, h],
                    area=w * h,
                    segmentation=dict(mask, counts=mask['counts'].decode()),
                    iscrowd=0,
                )
            )
    (folder / 'annotations' / f'instances_{split}.json').write_text(json.dumps(coco))


def _draw_scene(
    images: np.ndarray, labels: np.ndarray, rng: np.random.Generator
) -> Tuple[np.ndarray, List[Tuple[int, int, int, int]], List[int], List[dict]]:
    """One scene (H, W, 3) uint8, the xywh boxes of its digits in pixels, their labels, and their masks as RLE."""
    scene = _draw_background(rng)
    owners = np.zeros(scene.shape[:2], np.uint8)  # at each pixel, 1 + the digit that is seen there, or 0
    boxes: List[Tuple[int, int, int, int]] = []
    classes: List[int] = []
    num = 0 if rng.random() < EMPTY_SHARE else rng.integers(1, MAX_DIGITS + 1)
    for index in rng.integers(0, len(images), num):
        size = int(rng.integers(DIGIT_SIZES[0], DIGIT_SIZES[1] + 1))
        ink = cv2.resize(images[index], (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        ink = _crop_to_ink(ink)
        box = _place(ink.shape, boxes, rng)
        if box is None:
            continue
        x, y, w, h = box
        patch = scene[y : y + h, x : x + w]
        # Ink far from what it covers, dark on light or light on dark.
        dark = patch.mean() > 127
        colour = rng.uniform(0, 90, 3) if dark else rng.uniform(165, 255, 3)
        scene[y : y + h, x : x + w] = patch + ink[..., None] * (colour - patch)
        boxes.append(box)
        owners[y : y + h, x : x + w][ink > INK] = len(boxes)
        classes.append(int(labels[index]))
    noise = rng.normal(0, rng.uniform(0, 8), scene.shape)
    masks = [rle.encode(np.asfortranarray(owners == digit + 1, np.uint8)) for digit in range(len(boxes))]
    return (scene + noise).clip(0, 255).astype(np.uint8), boxes, classes, masks


def _crop_to_ink(ink: np.ndarray) -> np.ndarray:
    """The smallest rectangle that holds all visible ink: the digit's true box."""
    rows, columns = np.where(ink > INK)
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def _place(
    shape: Tuple[int, ...], boxes: List[Tuple[int, int, int, int]], rng: np.random.Generator, tries: int = 20
) -> Optional[Tuple[int, int, int, int]]:
    """An xywh box for a patch (h, w) that covers little of the others, or None where none was found."""
    h, w = shape
    for _ in range(tries):
        x, y = int(rng.integers(0, SCENE_SIZE[0] - w + 1)), int(rng.integers(0, SCENE_SIZE[1] - h + 1))
        covered = [
            max(0, min(x + w, bx + bw) - max(x, bx)) * max(0, min(y + h, by + bh) - max(y, by)) / min(w * h, bw * bh)
            for bx, by, bw, bh in boxes
        ]
        if max(covered, default=0) <= MAX_OVERLAP:
            return x, y, w, h
    return None


def _draw_background(rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) float32: a colour gradient, with stripes or blobs on some scenes."""
    width, height = SCENE_SIZE
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = (np.cos(angle) * x / width + np.sin(angle) * y / height)[..., None]
    scene = rng.uniform(40, 215, 3) + ramp * rng.uniform(-60, 60, 3)
    kind = rng.integers(3)
    if kind == 1:
        wave = np.sin((np.cos(angle) * y + np.sin(angle) * x) * rng.uniform(0.1, 0.6))
        scene = scene + wave[..., None] * rng.uniform(-25, 25, 3)
    elif kind == 2:
        blobs = cv2.resize(rng.normal(0, 1, (6, 8)).astype(np.float32), SCENE_SIZE, interpolation=cv2.INTER_CUBIC)
        scene = scene + blobs[..., None] * rng.uniform(-25, 25, 3)
    return scene.clip(0, 255).astype(np.float32)
