"""Detection with an exported model: needs numpy, onnxruntime, and opencv or Pillow; neither torch nor mmdet.

This file imports nothing of its package, so that it can be copied beside a model and used alone:

    from mmdet_stable_runtime import Detector
    found = Detector('model.onnx')('street.jpg')

or ``python mmdet_stable_runtime.py model.onnx street.jpg``, which prints one JSON object for each picture.
"""

import argparse
import importlib.util
import io
import json
import os
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import onnxruntime

METADATA = 'mmdet_stable'  # the key under which an exported file says what it is
FORMAT = 1
MOST_PIXELS = 178_956_970  # as Pillow's; a picture of this size takes half a gigabyte
HAS_CV2 = importlib.util.find_spec('cv2') is not None
HAS_PILLOW = importlib.util.find_spec('PIL') is not None

Size = Tuple[int, int]
Picture = Union[str, 'os.PathLike[str]', bytes, np.ndarray]


class ModelError(ValueError):
    """A file that is no exported detector, or a damaged one."""


class PictureError(ValueError):
    """Something that cannot be detected on."""


class Found(NamedTuple):
    """Detections of one picture, M of them, by descending score.

    Attributes:
        boxes: (M, 4) float32 left, top, right, bottom, in pixels of the picture as it is seen, EXIF rotation applied.
        scores: (M,) float32 in [0, 1].
        labels: (M,) int64, numbers of classes.
        names: (M,) of the classes.
        masks: (M, height, width) bool of the picture's size; None for detectors of boxes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: List[str]
    masks: Optional[np.ndarray] = None

    def taken(self, inds: np.ndarray) -> 'Found':
        """Those at ``inds``."""
        masks = None if self.masks is None else self.masks[inds]
        return Found(self.boxes[inds], self.scores[inds], self.labels[inds], [self.names[i] for i in inds], masks)

    def records(self) -> List[Dict[str, Any]]:
        """One plain dict per detection, without masks, as JSON takes them."""
        rows = zip(self.boxes.round(2).tolist(), self.scores.tolist(), self.labels.tolist(), self.names)
        return [dict(box=box, score=round(score, 5), label=label, name=name) for box, score, label, name in rows]


class Prepared(NamedTuple):
    """A picture at the network's size: (height, width, 3) uint8 RGB, and the size that it had."""

    pixels: np.ndarray
    original: Size


class Detector:
    """An exported detector in ONNX Runtime.

    Args:
        model: the file that ``python -m mmdet_stable export`` wrote.
        threads: how many threads one picture may use; None for ONNX Runtime's choice, all cores.
        providers: of ONNX Runtime, best first, e.g. ``['CUDAExecutionProvider', 'CPUExecutionProvider']``; None for the
            CPU.
        most_pixels: larger pictures are refused.

    Raises:
        FileNotFoundError: if there is no such file.
        ModelError: for a damaged file, or one that was not written by ``export``.
        ValueError: for providers that this ONNX Runtime does not have.
    """

    def __init__(
        self,
        model: Union[str, 'os.PathLike[str]'],
        threads: Optional[int] = None,
        providers: Optional[Sequence[str]] = None,
        most_pixels: int = MOST_PIXELS,
    ) -> None:
        path = Path(model)
        if not path.is_file():
            raise FileNotFoundError(f'{path}: no such file')
        providers = list(providers or ['CPUExecutionProvider'])
        missing = set(providers) - set(onnxruntime.get_available_providers())
        if missing:
            raise ValueError(
                f'providers={sorted(missing)}: this ONNX Runtime has {onnxruntime.get_available_providers()}; '
                'onnxruntime-gpu or onnxruntime-openvino bring others'
            )
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads is not None:
            if threads < 1:
                raise ValueError(f'threads={threads}: at least 1, or None for all cores')
            options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:
            if type(error).__module__.startswith('onnxruntime'):
                raise ModelError(f'{path}: cannot be loaded, damaged or not an ONNX file ({error})') from error
            raise
        properties = self.session.get_modelmeta().custom_metadata_map
        if METADATA not in properties:
            raise ModelError(
                f'{path}: not written by `python -m mmdet_stable export`, which says how to prepare pictures'
            )
        self.metadata: Dict[str, Any] = json.loads(properties[METADATA])
        if self.metadata['format'] != FORMAT:
            raise ModelError(
                f'{path}: written in format {self.metadata["format"]} by {self.metadata["version"]}, whose '
                f'runtime reads it; this one reads {FORMAT}'
            )
        self.classes: List[str] = self.metadata['classes']
        self.most_pixels = most_pixels
        self.outputs = [output.name for output in self.session.get_outputs()]

    def __call__(self, picture: Picture, threshold: float = 0.0) -> Found:
        """Detections of one picture; see :meth:`many`."""
        return self.many([picture], threshold)[0]

    def many(self, pictures: Sequence[Picture], threshold: float = 0.0, batch_size: int = 1) -> List[Found]:
        """Detections of each picture.

        Args:
            pictures: paths, encoded bytes, or uint8 arrays: (height, width, 3) BGR as of ``cv2.imread`` and as mmdet's
                ``DetInferencer`` takes them, with a fourth channel, which is ignored, or (height, width) grey.
            threshold: detections of lower scores are left out.
            batch_size: how many pictures run at once. Where the model was exported without ``--padded``, only those
                that get the same size do.

        Raises:
            PictureError: for what is no picture, or too large, or so narrow that nothing would remain of it.
        """
        if not 0 <= threshold <= 1 or batch_size < 1:
            raise ValueError(f'threshold={threshold}, batch_size={batch_size}: from 0 to 1, and at least 1')
        found: List[Found] = []
        for start in range(0, len(pictures), batch_size):
            found += self._detect(
                [self.prepare(picture) for picture in pictures[start : start + batch_size]], threshold
            )
        return found

    def prepare(self, picture: Picture) -> Prepared:
        """A picture as the network takes it, but for the padding of a batch."""
        image = decode(picture, self.most_pixels)
        return Prepared(resize(image, resized_size(self.metadata, *image.shape[:2])), image.shape[:2])

    def _detect(self, pictures: Sequence[Prepared], threshold: float) -> List[Found]:
        found: Dict[int, Found] = {}
        for inds in self._batches(pictures):
            part = [pictures[index] for index in inds]
            images, sizes = batch_of(self.metadata, part)
            inputs = dict(images=images, sizes=sizes) if self.metadata['input']['sizes'] else dict(images=images)
            outputs = dict(zip(self.outputs, self.session.run(self.outputs, inputs)))
            for number, index in enumerate(inds):
                of_image = {name: values[number] for name, values in outputs.items()}
                found[index] = self._found(of_image, pictures[index], images.shape[2:], threshold)
        return [found[index] for index in range(len(pictures))]

    def _batches(self, pictures: Sequence[Prepared]) -> Iterator[List[int]]:
        """Which pictures run together."""
        alike: Dict[Any, List[int]] = {}
        for index, picture in enumerate(pictures):
            key = None if self.metadata['input']['sizes'] else picture.pixels.shape
            alike.setdefault(key, []).append(index)
        yield from alike.values()

    def _found(self, outputs: Dict[str, np.ndarray], picture: Prepared, frame: Size, threshold: float) -> Found:
        (height, width), (rows, columns) = picture.original, picture.pixels.shape[:2]
        scale = np.array([columns / width, rows / height] * 2, np.float32)
        boxes, scores, labels = outputs['boxes'] / scale, outputs['scores'], outputs['labels']
        names = [self.classes[label] for label in labels]
        masks = None
        if 'masks' in outputs:
            scores, masks = self._masks(outputs['masks'], scores, picture, frame)
        found = Found(boxes, scores, labels, names, masks)
        order = np.argsort(-scores, kind='stable')
        nms = self.metadata['mask_nms']
        if masks is not None and nms is not None:
            order = order[survivors(boxes[order], labels[order], nms)]
        return found.taken(order[(scores[order] > 0) & (scores[order] >= threshold)])

    def _masks(
        self, logits: np.ndarray, scores: np.ndarray, picture: Prepared, frame: Size
    ) -> Tuple[np.ndarray, np.ndarray]:
        """Scores times the mean score in the mask, where the model was trained so, and masks of the picture's size."""
        rows, columns = picture.pixels.shape[:2]
        masks = np.zeros((len(logits), *picture.original), bool)
        scores = scores.copy()
        for index, values in enumerate(logits):
            values = resize(resize(values, frame)[:rows, :columns], picture.original)
            masks[index] = inside = values > 0
            if self.metadata['score_by_mask']:
                scores[index] *= (1 / (1 + np.exp(-values[inside]))).sum() / (inside.sum() + 1e-6)
        return scores, masks


def resized_size(metadata: Dict[str, Any], height: int, width: int) -> Size:
    """(height, width) that a picture gets, by what the file says.

    Raises:
        PictureError: if nothing would remain of a side.
    """
    rule, fixed = metadata['resize'], metadata['input']['size']
    new_width, new_height = fixed[::-1] if fixed is not None else rule['scale']
    if rule['keep_ratio']:
        factor = min(max(rule['scale']) / max(height, width), min(rule['scale']) / min(height, width))
        if fixed is not None:
            factor = min(factor, fixed[0] / height, fixed[1] / width)
        new_height, new_width = int(height * factor + 0.5), int(width * factor + 0.5)
    if min(new_height, new_width) < 1:
        raise PictureError(f'{width} x {height} pixels: would become {new_width} x {new_height}, too narrow')
    return new_height, new_width


def batch_of(metadata: Dict[str, Any], pictures: Sequence[Prepared]) -> Tuple[np.ndarray, np.ndarray]:
    """Inputs of the file: images (B, 3, height, width) uint8, and (B, 2) height and width of the pictures in them.

    Raises:
        PictureError: for inputs so small that there is not a position for each query.
    """
    rule = metadata['input']
    sizes = np.array([picture.pixels.shape[:2] for picture in pictures], np.int64)
    frame = rule['size'] or [-(-int(edge) // rule['pad_divisor']) * rule['pad_divisor'] for edge in sizes.max(0)]
    positions = sum(-(-frame[0] // stride) * -(-frame[1] // stride) for stride in rule['strides'])
    if positions < rule['least_tokens']:
        height, width = pictures[0].original
        raise PictureError(
            f'{width} x {height} pixels: become {frame[1]} x {frame[0]}, which has {positions} positions for '
            f'{rule["least_tokens"]} queries, too narrow for this file; one exported with --size takes it'
        )
    images = np.zeros((len(pictures), 3, *frame), np.uint8)
    for image, picture, (height, width) in zip(images, pictures, sizes):
        image[:, :height, :width] = picture.pixels.transpose(2, 0, 1)
    return images, sizes


def decode(picture: Picture, most_pixels: int = MOST_PIXELS) -> np.ndarray:
    """(height, width, 3) uint8 RGB of a path, of encoded bytes or of a BGR array, EXIF rotation applied.

    Raises:
        PictureError: see :class:`Detector`.
    """
    if isinstance(picture, np.ndarray):
        return _of_array(picture, most_pixels)
    if isinstance(picture, (str, os.PathLike)):
        name = str(picture)
        try:
            content = Path(picture).read_bytes()
        except OSError as error:
            raise PictureError(f'{name}: cannot be read ({error})') from error
    elif isinstance(picture, (bytes, bytearray)):
        name, content = f'{len(picture)} bytes', bytes(picture)
    else:
        raise PictureError(f'{type(picture).__name__}: a picture is a path, encoded bytes, or an array')
    if HAS_PILLOW:
        _check_size(_size_by_pillow(content, name), most_pixels, name)
    image = _by_cv2(content) if HAS_CV2 else _by_pillow(content, name)
    if image is None:
        raise PictureError(f'{name}: not a picture that can be decoded, or a damaged one')
    _check_size(image.shape[:2], most_pixels, name)
    return image


def _of_array(image: np.ndarray, most_pixels: int) -> np.ndarray:
    shape = image.shape
    if image.dtype != np.uint8:
        raise PictureError(f'array of {image.dtype}: pictures are uint8, from 0 to 255; convert it')
    if image.ndim == 2 or (image.ndim == 3 and shape[2] == 1):
        image = np.repeat(image.reshape(*shape[:2], 1), 3, 2)
    if image.ndim != 3 or image.shape[2] not in (3, 4) or 0 in shape:
        raise PictureError(f'array of shape {shape}: a picture is (height, width, 3) BGR or (height, width) grey')
    _check_size(shape[:2], most_pixels, 'array')
    return np.ascontiguousarray(image[:, :, 2::-1])


def _check_size(size: Sequence[int], most_pixels: int, name: str) -> None:
    if size[0] * size[1] > most_pixels:
        raise PictureError(f'{name}: {size[1]} x {size[0]} pixels, more than most_pixels={most_pixels}')


def _size_by_pillow(content: bytes, name: str) -> Size:
    """(height, width) as the header says, nothing decoded."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.size[1], image.size[0]
    except Image.DecompressionBombError as error:
        raise PictureError(f'{name}: {error}') from error
    except Exception as error:
        if HAS_CV2:  # which may know formats that Pillow does not
            return 0, 0
        raise PictureError(f'{name}: not a picture that can be decoded, or a damaged one ({error})') from error


def _by_cv2(content: bytes) -> Optional[np.ndarray]:
    import cv2

    if not content:
        return None
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[:, :, ::-1])


def _by_pillow(content: bytes, name: str) -> np.ndarray:
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith('I;16'):
                return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, 2)
            return np.asarray(image.convert('RGB'))
    except Exception as error:
        raise PictureError(f'{name}: not a picture that can be decoded, or a damaged one ({error})') from error


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """Bilinear resizing of (h, w, 3) uint8 or (h, w) float32 as OpenCV's: by itself, else within one grey level."""
    if image.shape[:2] == size:
        return image
    if HAS_CV2:
        import cv2

        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    (below, above, share), (left, right, beside) = (_neighbours(*sides) for sides in zip(image.shape, size))
    values = image.reshape(*image.shape[:2], -1).astype(np.float32)
    values = values[:, left] * (1 - beside)[:, None] + values[:, right] * beside[:, None]
    values = values[below] * (1 - share)[:, None, None] + values[above] * share[:, None, None]
    values = values.reshape(*size, *image.shape[2:])
    return np.rint(values).astype(np.uint8) if image.dtype == np.uint8 else values


def _neighbours(old: int, new: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each new pixel along one axis: the old pixels below and above it, and the share of the latter."""
    place = ((np.arange(new) + 0.5) * (old / new) - 0.5).clip(0, old - 1)
    below = np.floor(place).astype(np.int64)
    return below, np.minimum(below + 1, old - 1), (place - below).astype(np.float32)


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


def main(argv: Optional[Sequence[str]] = None) -> int:
    """The command line; prints one JSON object per picture, and returns 1 if any cannot be read."""
    parser = argparse.ArgumentParser(description='Detect on pictures with an exported model.')
    parser.add_argument('model', help='file that `python -m mmdet_stable export` wrote')
    parser.add_argument('pictures', nargs='+')
    parser.add_argument('--threshold', type=float, default=0.3, help='least score (default: %(default)s)')
    parser.add_argument('--threads', type=int, help='default: all cores')
    parser.add_argument('--provider', action='append', help='of ONNX Runtime, best first; may be repeated')
    args = parser.parse_args(argv)
    try:
        detector = Detector(args.model, args.threads, args.provider)
    except (FileNotFoundError, ValueError) as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return 1
    status = 0
    for picture in args.pictures:
        try:
            found = detector(picture, args.threshold)
        except PictureError as error:
            print(f'PictureError: {error}', file=sys.stderr)
            status = 1
        else:
            print(json.dumps(dict(picture=picture, detections=found.records()), ensure_ascii=False))
    return status


if __name__ == '__main__':
    sys.exit(main())
