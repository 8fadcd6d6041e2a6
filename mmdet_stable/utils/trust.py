"""The user's word, before models are built that configs of others describe."""

import argparse
import sys
from pathlib import Path
from typing import Sequence


def add_trust(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        '--trust',
        action='store_true',
        help='build models as configs in work dirs, or beside checkpoints, say, without asking; these can run any code',
    )


def require_trust(work_dirs: Sequence[Path], trusted: bool) -> None:
    """Have the user's word, by ``--trust`` or on the terminal, before models of work dirs are built.

    To read a saved config, nothing of it is run; but what it names as model, data or imports can be any code.

    Raises:
        PermissionError: without that word.
    """
    if trusted or not work_dirs:
        return
    places = ', '.join(map(str, work_dirs))
    if sys.stdin is not None and sys.stdin.isatty():
        print(f'The models of {places} are built as the configs there say, which can run any code.', file=sys.stderr)
        print('Do you trust whoever made them? [y/N] ', end='', file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() in ('y', 'yes'):
            return
    raise PermissionError(
        f'{places}: nothing was built, as what the configs there name can run any code. If you trust whoever made '
        'them, add --trust'
    )
