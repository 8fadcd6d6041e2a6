"""What this package offers on the command line: ``python -m mmdet_stable COMMAND``."""

import argparse
import sys
from typing import Dict, Optional, Sequence

from mmdet_stable.commands import COMMANDS
from mmdet_stable.utils.user_errors import run_command


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status: 1 where it failed, 130 where the user has stopped it.

    Raises:
        SystemExit: of status 2 for wrong usage, after a help 0.
    """
    words = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog='python -m mmdet_stable',
        description='Trains, uses, evaluates and exports detectors.',
        epilog='`python -m mmdet_stable COMMAND --help` explains one of them',
    )
    subparsers = parser.add_subparsers(required=True, metavar='COMMAND')
    parsers: Dict[str, argparse.ArgumentParser] = {}
    for name, command in COMMANDS.items():
        description = (command.__doc__ or '').replace('``', '`')
        parsers[name] = subparsers.add_parser(name, help=command.HELP, description=description)
        command.add_arguments(parsers[name])
    if not words or words[0] not in COMMANDS:
        parser.parse_args(words)  # which ends with help, or says what is wrong
        parser.error('give COMMAND first')
    name, *words = words
    # Options may stand between other arguments, which argparse offers for parsers without commands.
    args = parsers[name].parse_intermixed_args(words)
    return run_command(COMMANDS[name].run, args, parsers[name])


if __name__ == '__main__':
    sys.exit(main())
