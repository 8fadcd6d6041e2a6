"""The commands of ``python -m mmdet_stable``: one module each, with ``HELP``, ``add_arguments`` and ``run``."""

from . import configs, convert, export, weights

COMMANDS = {'configs': configs, 'convert': convert, 'export': export, 'weights': weights}

__all__ = ['COMMANDS']
