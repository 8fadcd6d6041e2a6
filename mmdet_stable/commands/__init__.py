"""The commands of ``python -m mmdet_stable``: one module each, with ``HELP``, ``add_arguments`` and ``run``."""

from . import configs, convert, weights

COMMANDS = {'configs': configs, 'convert': convert, 'weights': weights}

__all__ = ['COMMANDS']
