"""Stable-DINO and its relatives for MMDetection 3. Importing this package registers everything it offers."""

from .versions import __version__, check_versions

check_versions()

from . import datasets, engine, evaluation, models, weights  # noqa: E402  (the guard must speak before mmcv can fail)

__all__ = ['__version__', 'datasets', 'engine', 'evaluation', 'models', 'weights']
