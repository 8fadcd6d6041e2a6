"""Converts published weights to this package, with a config that fits them, and back."""

from mmdet_stable.weights.cli import add_convert_arguments as add_arguments
from mmdet_stable.weights.cli import run_convert as run

HELP = 'convert published weights to this package, or back'

__all__ = ['HELP', 'add_arguments', 'run']
