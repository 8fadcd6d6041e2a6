"""Lists published weights by name, or downloads and converts one: ``python -m mmdet_stable weights dino-r50-12e``."""

from mmdet_stable.weights.cli import add_weights_arguments as add_arguments
from mmdet_stable.weights.cli import run_weights as run

HELP = 'list published weights by name, or get one'

__all__ = ['HELP', 'add_arguments', 'run']
