"""Pictures: decoded, resized and padded as an exported file says."""

import importlib.util
import io
import os
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

MOST_PIXELS = 178_956_970  # as Pillow's; a picture of this size takes half a gigabyte
HAS_CV2 = importlib.util.find_spec('cv2') is not None
HAS_PILLOW = importlib.util.find_spec('PIL') is not None

Size = Tuple[int, int]
Picture = Union[str, 'os.PathLike[str]', bytes, np.ndarray]


class PictureError(ValueError):
    """Something that cannot be detected on."""


class Prepared(NamedTuple):
    """A picture at the network's size: (height, width, 3) uint8 RGB, and the size that it had."""

    pixels: np.ndarray
    original: Size


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


def prepared(metadata: Dict[str, Any], image: np.ndarray) -> Prepared:
    """A picture (height, width, 3) uint8 RGB at the network's size.

    Raises:
        PictureError: see :func:`resized_size`.
    """
    size = resized_size(metadata, *image.shape[:2])
    by_pillow = metadata['resize'].get('backend') == 'pillow'
    return Prepared(resize_by_pillow(image, size) if by_pillow else resize(image, size), image.shape[:2])


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


def resize_by_pillow(image: np.ndarray, size: Size) -> np.ndarray:
    """Bilinear resizing of (h, w, 3) uint8 as Pillow's, which smooths what it makes smaller."""
    from PIL import Image

    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


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
