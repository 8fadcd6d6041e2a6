"""The commands of ``python -m mmdet_stable``: one module each, with ``HELP``, ``add_arguments`` and ``run``."""

from . import configs, convert, evaluate, export, predict, train, weights

COMMANDS = {
    'configs': configs,
    'convert': convert,
    'evaluate': evaluate,
    'export': export,
    'predict': predict,
    'train': train,
    'weights': weights,
}

__all__ = ['COMMANDS']
