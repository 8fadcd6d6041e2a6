"""Pictures and videos with what was found in them, as files."""

from pathlib import Path
from types import TracebackType
from typing import Optional, Set, Tuple, Type
from urllib.parse import unquote, urlparse

import cv2
import mmcv
import numpy as np

from .pictures import URL, Picture

WRITTEN = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')  # a picture of another kind becomes a JPEG
FRAMES_PER_SECOND = 25.0  # of a video that does not say it


class Drawings:
    """Writes drawn pictures into a folder, each under its own name, and the frames of a video into one.

    To be used in a ``with`` statement, which ends the last video.

    Args:
        folder: is created for the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: Set[str] = set()
        self._video: Optional[cv2.VideoWriter] = None

    def __enter__(self) -> 'Drawings':
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], traceback: Optional[TracebackType]
    ) -> None:
        self._end_video()

    def write(self, picture: Picture, drawn: np.ndarray) -> None:
        """Write one picture, or one more frame, (H, W, 3) BGR.

        Raises:
            ValueError: where the file would replace the picture itself.
            OSError: where OpenCV writes no video.
        """
        if picture.frame is None:
            self._end_video()
            suffix = '' if _stem_and_suffix(picture.name)[1].lower() in WRITTEN else '.jpg'
            mmcv.imwrite(drawn, str(self._path(picture, suffix)))
            return
        if picture.frame == 0:
            self._end_video()
            self._video = self._new_video(picture, (drawn.shape[1], drawn.shape[0]))
        assert self._video is not None
        self._video.write(drawn)

    def _new_video(self, picture: Picture, size: Tuple[int, int]) -> cv2.VideoWriter:
        original = cv2.VideoCapture(picture.name)
        rate = original.get(cv2.CAP_PROP_FPS) or FRAMES_PER_SECOND
        original.release()
        path = self._path(picture, '' if picture.name.lower().endswith('.mp4') else '.mp4')
        video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*'mp4v'), rate, size)
        if not video.isOpened():
            raise OSError(f'{path}: this OpenCV writes no MPEG-4 video; go on with --no-drawings')
        return video

    def _end_video(self) -> None:
        if self._video is not None:
            self._video.release()
        self._video = None

    def _path(self, picture: Picture, suffix: str) -> Path:
        """A free name in the folder, the picture's own where it is free."""
        stem, own_suffix = _stem_and_suffix(picture.name)
        name, number = f'{stem}{own_suffix}{suffix}', 1
        while name.lower() in self._names:
            number += 1
            name = f'{stem}_{number}{own_suffix}{suffix}'
        self._names.add(name.lower())
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        if not URL.match(picture.name) and path.resolve() == Path(picture.name).resolve():
            raise ValueError(f'{path}: the drawing would replace the picture itself; choose another --out')
        return path


def _stem_and_suffix(name: str) -> Tuple[str, str]:
    """Of the file that a path or URL names."""
    path = Path(unquote(urlparse(name).path)) if URL.match(name) else Path(name)
    return path.stem or 'picture', path.suffix
