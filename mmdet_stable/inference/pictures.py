"""Everything that a detector can be given, as single pictures."""

import glob
import re
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Optional, Union

import cv2
import numpy as np
from mmdet.apis.det_inferencer import IMG_EXTENSIONS
from PIL import Image, ImageOps

VIDEO_EXTENSIONS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg')
URL = re.compile(r'https?://', re.IGNORECASE)
WILDCARD = re.compile(r'[*?\[]')
CHANNELS = (1, 3, 4)

Input = Union[str, Path, np.ndarray, Image.Image]
Inputs = Union[Input, Iterable[Input]]


class Picture(NamedTuple):
    """A picture before it is read.

    Attributes:
        name: its path, URL, or ``'array 3'``.
        content: path or URL; or (H, W, 3) uint8, BGR.
        frame: number in its video, from 0.
        problem: why there is no picture, and this entry only says so.
    """

    name: str
    content: Union[str, np.ndarray]
    frame: Optional[int] = None
    problem: str = ''

    @property
    def path(self) -> Optional[str]:
        """Where it lies; None for what has no place of its own."""
        return self.content if isinstance(self.content, str) else None

    def __str__(self) -> str:
        return self.name if self.frame is None else f'{self.name}, frame {self.frame}'


def pictures(inputs: Inputs) -> Iterator[Picture]:
    """The pictures of one or several inputs, in order; those of a folder or a pattern by name.

    Args:
        inputs: paths of pictures, folders and videos, patterns as ``'shots/**/*.jpg'``, URLs, and arrays, see
            :func:`bgr_image`.

    Yields:
        Pictures, and one with a problem for a folder without pictures, a pattern that nothing matches, a video without
        frames, and an array of another shape or type.

    Raises:
        TypeError: for anything else.
    """
    single = isinstance(inputs, (str, Path, np.ndarray, Image.Image))
    for number, entry in enumerate([inputs] if single else inputs):  # type: ignore[arg-type]
        name = str(entry) if isinstance(entry, (str, Path)) else f'array {number}'
        try:
            if isinstance(entry, (np.ndarray, Image.Image)):
                yield Picture(name, bgr_image(entry, name))
            elif isinstance(entry, (str, Path)):
                for path in files(name):
                    yield from video_frames(path) if is_video(path) else [Picture(path, path)]
            else:
                raise TypeError(
                    f'input {number} is a {type(entry).__name__}; a detector takes paths, URLs, numpy arrays (BGR) and '
                    'PIL images'
                )
        except ValueError as error:
            yield Picture(name, name, problem=str(error))


def files(entry: str) -> List[str]:
    """The files of a path, a folder, or a pattern; a URL, and what is not there, as they are.

    Raises:
        ValueError: for a folder or a pattern without any.
    """
    path = Path(entry).expanduser()
    if URL.match(entry) or path.is_file():
        return [entry if URL.match(entry) else str(path)]
    if path.is_dir():
        suffixes = (*IMG_EXTENSIONS, *VIDEO_EXTENSIONS)
        found = sorted(str(file) for file in path.iterdir() if file.suffix.lower() in suffixes and file.is_file())
        if not found:
            raise ValueError(f'{entry}: the folder holds no picture or video ({", ".join(suffixes)})')
        return found
    if WILDCARD.search(entry):
        found = sorted(file for file in glob.glob(str(path), recursive=True) if Path(file).is_file())
        if not found:
            raise ValueError(f'{entry}: no file matches this pattern')
        return found
    return [str(path)]


def is_video(path: str) -> bool:
    return not URL.match(path) and path.lower().endswith(VIDEO_EXTENSIONS)


def video_frames(path: str) -> Iterator[Picture]:
    """The frames of a video, one after the other; one picture with a problem if OpenCV reads none."""
    video = cv2.VideoCapture(path)
    number = 0
    try:
        while (read := video.read())[0]:
            yield Picture(path, read[1], number)
            number += 1
    finally:
        video.release()
    if not number:
        reason = 'OpenCV reads no frame of it' if Path(path).is_file() else 'there is no such file'
        yield Picture(path, path, problem=f'{path}: {reason}')


def bgr_image(image: Union[np.ndarray, Image.Image], name: str = 'array') -> np.ndarray:
    """An array as pictures are read from files: three channels of 8 bits, in the order blue, green, red.

    Args:
        image: (H, W), (H, W, 1), (H, W, 3) in BGR or (H, W, 4) in BGRA, uint8 or uint16; or a PIL image, which is
            turned upright as its EXIF says. Alpha is dropped, and 16 bits become 8 by their upper byte, as OpenCV does
            when it reads a file.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: for another shape or type.
    """
    if isinstance(image, Image.Image):
        return np.asarray(ImageOps.exif_transpose(image).convert('RGB'))[..., ::-1].copy()
    channels = image.shape[2] if image.ndim == 3 else 1 if image.ndim == 2 else 0
    if channels not in CHANNELS or not image.size or image.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f'{name} has shape {image.shape} and type {image.dtype}; a picture is (H, W), (H, W, 1), (H, W, 3) in BGR '
            'or (H, W, 4) in BGRA, of type uint8 or uint16'
        )
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    if channels == 1:
        return cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_GRAY2BGR)
    return np.ascontiguousarray(image[..., :3])
