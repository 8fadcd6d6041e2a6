"""The commands of ``python -m mmdet_stable``: one module each, with ``HELP``, ``add_arguments`` and ``run``."""

from . import configs

COMMANDS = {'configs': configs}

__all__ = ['COMMANDS']
