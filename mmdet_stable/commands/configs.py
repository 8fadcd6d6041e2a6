"""Prints the paths of configs that come with this package: ``python -m mmdet_stable configs 'table7/*'``."""

import argparse
import sys
from fnmatch import fnmatch

from mmdet_stable.shipped import config_folder, shipped_configs

HELP = 'print the paths of the configs that come with this package'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'pattern',
        nargs='?',
        default='',
        metavar='PATTERN',
        help='only those whose path has this in it; * and ? stand for any characters',
    )
    parser.add_argument('--folder', action='store_true', help='print the folder instead; tools lie beside it')


def run(args: argparse.Namespace) -> int:
    """Print one path per line; 1 where there is none."""
    folder = config_folder()
    if args.folder:
        print(folder)
        return 0
    found = [path for path in shipped_configs() if fnmatch(path.relative_to(folder).as_posix(), f'*{args.pattern}*')]
    if not found:
        print(f'no config matches {args.pattern!r}; without a pattern, all are listed', file=sys.stderr)
        return 1
    print(*found, sep='\n')
    return 0
