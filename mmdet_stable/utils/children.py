"""Commands that end with the process that started them, where that is told to stop."""

import signal
import subprocess
from contextlib import contextmanager
from typing import Any, Iterator, Sequence

INTERRUPTED = 130  # the exit code that shells give to Ctrl-C


@contextmanager
def stoppable() -> Iterator[None]:
    """Meanwhile SIGTERM and SIGHUP raise ``KeyboardInterrupt``, as Ctrl-C does; one that is ignored, as by nohup, stays
    ignored."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def call(command: Sequence[object], **settings: Any) -> int:
    """Run a command, with settings of ``subprocess.Popen``, and return its exit code.

    An exception meanwhile, as ``KeyboardInterrupt``, goes on only after the command was terminated and has ended.
    """
    process = subprocess.Popen(list(map(str, command)), **settings)
    try:
        return process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
