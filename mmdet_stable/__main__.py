"""What this package offers on the command line: ``python -m mmdet_stable COMMAND``."""

import argparse
import sys
from typing import Optional, Sequence

from mmdet_stable.commands import COMMANDS


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status."""
    parser = argparse.ArgumentParser(prog='python -m mmdet_stable', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    return args.run(args)


if __name__ == '__main__':
    sys.exit(main())
