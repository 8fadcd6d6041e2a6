"""Stable-DINO and its relatives for MMDetection 3. Importing this package registers everything it offers."""

from .versions import __version__, check_versions

check_versions()

from . import datasets, engine, evaluation, models  # noqa: E402  (the guard must speak before mmcv can fail)
from .shipped import config  # noqa: E402

__all__ = ['__version__', 'config', 'datasets', 'engine', 'evaluation', 'models']
