"""What this package offers on the command line: ``python -m mmdet_stable COMMAND``."""

import argparse
import os
import sys
from typing import Optional, Sequence

from mmdet_stable.commands import COMMANDS


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run one command; returns its exit status, 130 where the user has stopped it."""
    parser = argparse.ArgumentParser(prog='python -m mmdet_stable', description=__doc__)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.HELP, description=command.__doc__)
        command.add_arguments(subparser)
        subparser.set_defaults(run=command.run)
    args = parser.parse_args(argv)
    try:
        status: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still wants to write
        return 1
    return status


if __name__ == '__main__':
    sys.exit(main())
