"""Reading images such that an error names the file, which OpenCV's do not."""

import os
from contextlib import contextmanager
from typing import Any, Dict, Iterator, Optional

from mmdet.datasets.transforms import InferencerLoader
from mmdet.registry import TRANSFORMS
from mmengine.dataset import Compose

from .image_checks import ImageEntry, image_findings

# Findings that are the reason why an image could not be loaded.
BROKEN = ('image-missing', 'image-unreadable', 'image-truncated')


class NamingPipeline(Compose):
    """A data set's pipeline whose errors say at which image they happened.

    Raises:
        ValueError: when called, for whatever goes wrong, with the original error as its cause.
    """

    def __call__(self, data: Dict[str, Any]) -> Optional[Dict[str, Any]]:
        with named(data.get('img_path')):
            return super().__call__(data)


@TRANSFORMS.register_module(name='InferencerLoader', force=True)
class NamingInferencerLoader(InferencerLoader):
    """mmdet's loader of the images that ``DetInferencer`` is given, in its place; errors name the file."""

    def transform(self, results: Any) -> dict:
        path = results.get('img_path') if isinstance(results, dict) else results
        with named(path if isinstance(path, str) else None):
            return super().transform(results)


@contextmanager
def named(path: Optional[str]) -> Iterator[None]:
    """Raise errors again as a ``ValueError`` that begins with the path, and says what is wrong with that image.

    Without a path, as for images in memory, errors stay as they are.
    """
    try:
        yield
    except Exception as error:
        if path is None:
            raise
        raise ValueError(explained(path, error)) from error


def explained(path: str, error: Exception) -> str:
    """What is wrong with an image, or, where nothing is, the error with the path of the image in front."""
    findings = image_findings([ImageEntry(path, '', None)], decode=True) if os.path.exists(path) else ()
    broken = next((finding for finding in findings if finding.kind in BROKEN), None)
    return str(broken) if broken else f'{path}: {type(error).__name__}: {error}'
