"""One process at a time in a folder."""

import fcntl
import logging
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from mmengine.logging import print_log


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Hold the lock that a file stands for, and note in the file who holds it.

    The system ends the lock with the process, however that ends, so that a file that was left behind locks nothing.

    Yields:
        Whether the lock is held here; False where another process holds it. True, with a warning, where the file system
        knows no locks.
    """
    with open(path, 'a+') as file:
        os.register_at_fork(after_in_child=file.close)  # else data workers keep it, for as long as they outlive a kill
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            print_log(
                f'{path} cannot be locked ({error.strerror}): see to it that nothing else writes into this folder',
                'current',
                logging.WARNING,
            )
        file.truncate(0)
        file.write(f'process {os.getpid()} on {socket.gethostname()} since {time.strftime("%Y-%m-%d %H:%M:%S")}')
        file.flush()
        yield True


def lock_holder(path: Path) -> str:
    """Who holds a lock, or held it last, e.g. ``'process 17 on node3 since 2026-11-21 10:00:00'``."""
    return path.read_text(errors='replace').strip() or 'another process'
