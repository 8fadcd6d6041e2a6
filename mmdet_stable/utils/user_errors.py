"""Mistakes of the user, which are told in words and, unless ``MMDET_STABLE_TRACEBACK`` is set, without a traceback."""

import argparse
import contextlib
import os
import sys
from typing import Callable, Iterator, Tuple, Type

from .children import INTERRUPTED

USER_ERRORS = (ValueError, OSError, ImportError)  # what this package raises, with what to do about it
TRACEBACK = 'MMDET_STABLE_TRACEBACK'  # environment variable: any value but an empty one asks for tracebacks


def in_words(error: Exception) -> str:
    """The text ``error: ...`` of an error, without its type and number."""
    said = str(error)
    if isinstance(error, OSError) and error.strerror and error.filename is None:
        said = error.strerror
    return f'error: {said or type(error).__name__}'


@contextlib.contextmanager
def without_traceback(kinds: Tuple[Type[Exception], ...] = USER_ERRORS) -> Iterator[None]:
    """Let mistakes of the user, errors of these ``kinds``, end the program with status 1, in words."""
    try:
        yield
    except kinds as error:
        if os.environ.get(TRACEBACK):
            raise
        raise SystemExit(in_words(error)) from error


def run_command(
    run: Callable[[argparse.Namespace], int], args: argparse.Namespace, parser: argparse.ArgumentParser
) -> int:
    """Run a command; returns its exit status: 1 where a mistake of the user showed, 130 where the user has stopped it.

    Raises:
        SystemExit: of status 2, after a line on usage, for an ``argparse.ArgumentError``: arguments that do not go
            together.
    """
    try:
        status = run(args)
        sys.stdout.flush()
    except argparse.ArgumentError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads has enough, as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python still wants to write
        return 1
    except USER_ERRORS as error:
        if os.environ.get(TRACEBACK):
            raise
        print(in_words(error), file=sys.stderr)
        return 1
    return status
