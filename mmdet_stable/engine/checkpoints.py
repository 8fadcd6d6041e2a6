"""Checkpoints that are either whole or not there."""

import logging
import os
import re
import shutil
import zipfile
from pathlib import Path
from typing import Iterator, Optional, Union

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log
from torch import nn

NUMBERED = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


class AtomicBackend(LocalBackend):
    """mmengine's local files, of which a reader, or whoever looks after a crash, sees the old or the new, whole."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write ``obj`` beside the file, and put it in its place once it is on the disk.

        Raises:
            OSError: where that fails, as on a full disk; whatever stood there before is untouched.
        """
        path = Path(filepath)
        scratch = path.with_name(f'.{path.name}.{os.getpid()}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(scratch, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(scratch, path)
        except OSError as error:
            if path.parent.is_dir():
                scratch.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f'{error.strerror}: cannot write {len(obj) / 2**20:.1f} MB to {path}. Earlier files are intact; make '
                'room or choose another folder. A training goes on with --resume',
            ) from error


register_backend('atomic', AtomicBackend, force=True)


def check_writable(folder: Path, what: str, option: str) -> None:
    """Write into a folder before the work for it is done.

    Args:
        what: it is to the user, e.g. ``'work dir'``.
        option: that names another.

    Raises:
        OSError: where that is impossible.
    """
    try:
        AtomicBackend().put(b'', folder / '.writable')
    except OSError as error:
        raise OSError(error.errno, f'{what} {folder} cannot be written to; choose another by {option}') from error
    (folder / '.writable').unlink(missing_ok=True)


def remove_scratch_files(folder: Path) -> None:
    """Clear away what processes that were killed have left half-written by :class:`AtomicBackend`; to be called by the
    only process that writes there."""
    for scratch in folder.glob('.*.[0-9]*.part'):
        scratch.unlink(missing_ok=True)


def prepare_folder(folder: Path, model: nn.Module) -> None:
    """Create a folder for checkpoints of a model, clear away what is half-written there, and see that one has room.

    Raises:
        OSError: where the disk has no room for a single checkpoint: weights, and the two moments of Adam.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_scratch_files(folder)
    needed = 3 * sum(value.numel() * value.element_size() for value in model.state_dict().values())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f'{folder} has {free / 2**20:.0f} MB left, but a checkpoint needs about {needed / 2**20:.0f} MB; '
            'make room, or choose another --work-dir'
        )


def latest_checkpoint(work_dir: str) -> Optional[str]:
    """The whole checkpoint to go on from; None where there is none.

    First what ``last_checkpoint`` names, as long as it lies in the work dir; then the others by number of epochs or
    iterations, and by time where numbers are equal; then what ``last_checkpoint`` names elsewhere. Files that are
    damaged are named in a warning and passed over.
    """
    for path in _candidates(Path(work_dir)):
        problem = checkpoint_problem(path)
        if problem is None:
            return str(path)
        print_log(f'{path} is passed over: {problem}', 'current', logging.WARNING)
    return None


def checkpoint_problem(path: Path) -> Optional[str]:
    """Why a file is no whole checkpoint of a training, or None. Reads it all, without unpickling anything."""
    if not path.is_file():
        return 'there is no such file'
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            names = archive.namelist()
    except (zipfile.BadZipFile, EOFError, OSError) as error:
        return f'it is cut off, or no checkpoint ({error})'
    if damaged is not None:
        return f'it is damaged in {damaged}'
    return None if any(name.endswith('/data.pkl') for name in names) else 'it holds no data of torch.save'


def _candidates(work_dir: Path) -> Iterator[Path]:
    """The best first, each once."""
    pointer = work_dir / 'last_checkpoint'
    named = Path(pointer.read_text(errors='replace').strip()) if pointer.is_file() else Path()
    inside = work_dir / named.name  # of a work dir that was copied, the copy
    if named.name and inside.is_file():
        yield inside
    numbered = []
    for path in work_dir.glob('*.pth'):
        match = NUMBERED.fullmatch(path.name)
        if match is not None and path != inside:
            numbered.append((int(match[1]), path.stat().st_mtime, path))
    for _, _, path in sorted(numbered, reverse=True):
        yield path
    if named.name and not inside.is_file():
        yield named
