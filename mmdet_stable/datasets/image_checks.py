"""Checks of image files, without decoding more of them than needed."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Iterable, Iterator, List, NamedTuple, Optional, Tuple

from PIL import ExifTags, Image

from .checks import EMPTY_FILE, Finding

END_MARKERS = {'JPEG': b'\xff\xd9', 'PNG': b'IEND'}
TAIL = 16  # bytes in which the end marker must lie
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # all that Pillow raises for bad files


class ImageEntry(NamedTuple):
    """An image of an annotation file.

    Attributes:
        path: its file.
        key: where it stands in the annotation file, e.g. ``'images[3]'``.
        size: (width, height) in pixels that the annotation file gives; None where it gives none.
    """

    path: str
    key: str
    size: Optional[Tuple[int, int]]


def image_findings(entries: Iterable[ImageEntry], decode: bool = False, num_threads: int = 8) -> Iterator[Finding]:
    """Faults of image files, in the order of the entries and as soon as they are known.

    Args:
        decode: decode every file, which also finds damage in the middle, at about ten times the time. Otherwise a file
            is decoded only where its end looks cut off.
    """
    with ThreadPoolExecutor(num_threads) as pool:
        for findings in pool.map(lambda entry: list(_findings_of(entry, decode)), entries):
            yield from findings


def _findings_of(entry: ImageEntry, decode: bool) -> Iterator[Finding]:
    path = Path(entry.path)
    if not path.is_file():
        yield Finding('image-missing', entry.path, entry.key, 'there is no such file')
        return
    if not path.stat().st_size:
        yield Finding('image-unreadable', entry.path, entry.key, EMPTY_FILE)
        return
    try:
        with path.open('rb') as file:
            header = file.read(32)
        with Image.open(path) as image:
            size, mode = upright_size(image), image.mode
            transparent = mode in ('RGBA', 'LA', 'PA') or 'transparency' in image.info
            cut = not _has_end(path, image.format)
            if cut or decode:
                image.load()
    except UNREADABLE as error:
        kind = 'image-truncated' if 'truncated' in str(error) else 'image-unreadable'
        yield Finding(kind, entry.path, entry.key, f'{error}'.replace(f" '{entry.path}'", ''))
        return
    if entry.size is not None and size != tuple(entry.size):
        problem = (
            f'the file has {size[0]} x {size[1]} pixels, the annotation file says {entry.size[0]} x {entry.size[1]}'
        )
        yield Finding('image-size', entry.path, f'{entry.key}.width', problem)
    for kind, what in _unusual_pixels(header, mode, transparent):
        yield Finding(kind, entry.path, entry.key, what)


def upright_size(image: Image.Image) -> Tuple[int, int]:
    """(width, height) after the rotation that EXIF asks for, as OpenCV loads it."""
    width, height = image.size
    on_its_side = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
    return (height, width) if on_its_side else (width, height)


def _has_end(path: Path, image_format: Optional[str]) -> bool:
    """Whether the file ends as its format demands; True for formats without an end marker."""
    marker = END_MARKERS.get(image_format or '')
    if marker is None:
        return True
    with path.open('rb') as file:
        file.seek(-min(TAIL, path.stat().st_size), 2)
        return marker in file.read()


def _unusual_pixels(header: bytes, mode: str, transparent: bool) -> List[Tuple[str, str]]:
    # Pillow reads PNG files of 3 x 16 bits as 3 x 8 bits; the header has their depth at byte 24.
    deep_png = header.startswith(b'\x89PNG') and header[24] == 16
    found = []
    if deep_png or mode[0] in 'IF':
        found.append(('image-16-bit', 'has more than 8 bits for a channel'))
    if transparent:
        found.append(('image-alpha', 'has an alpha channel or a transparent colour'))
    if mode in ('1', 'L', 'LA'):
        found.append(('image-grey', 'is grey'))
    return found
