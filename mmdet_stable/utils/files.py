"""Files that are either whole or not there."""

import os
from pathlib import Path
from typing import Union


def write_whole(
    path: Path, content: Union[str, bytes], remedy: str = 'make room, or choose another place to write to'
) -> None:
    """Write a file beside its place, and put it there once it is on the disk, so that a reader, or whoever looks after
    a crash, sees the old or the new one.

    Args:
        path: its folder is created.
        content: a text becomes UTF-8.
        remedy: what to do where writing fails, for the error.

    Raises:
        OSError: where that fails, as on a full disk; whatever stood there before is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    scratch = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, 'wb') as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(scratch, path)
    except OSError as error:
        if scratch.exists():  # not below a file, say, where unlinking would raise another error
            scratch.unlink()
        raise OSError(
            error.errno,
            f'{error.strerror}: cannot write {len(data) / 2**20:.1f} MB to {path}. Earlier files are intact; {remedy}',
        ) from error


def check_writable(folder: Path, what: str, option: str) -> None:
    """Write into a folder before the work for it is done.

    Args:
        what: it is to the user, e.g. ``'work dir'``.
        option: that names another.

    Raises:
        OSError: where that is impossible.
    """
    try:
        write_whole(folder / '.writable', b'')
    except OSError as error:
        raise OSError(error.errno, f'{what} {folder} cannot be written to; choose another by {option}') from error
    (folder / '.writable').unlink(missing_ok=True)


def remove_scratch_files(folder: Path) -> None:
    """Clear away what processes that were killed have left half-written by :func:`write_whole`; to be called by the
    only process that writes there."""
    for scratch in folder.glob('.*.[0-9]*.part'):
        scratch.unlink(missing_ok=True)
