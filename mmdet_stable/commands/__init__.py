"""The commands of ``python -m mmdet_stable``: one module each, with ``HELP``, ``add_arguments`` and ``run``."""

from . import configs, convert, train, weights

COMMANDS = {'configs': configs, 'convert': convert, 'train': train, 'weights': weights}

__all__ = ['COMMANDS']
