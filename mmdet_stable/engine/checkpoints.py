"""Checkpoints that are either whole or not there."""

import logging
import os
import re
import zipfile
from pathlib import Path
from typing import Iterator, Optional, Union

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

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
            scratch.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f'{error.strerror}: cannot write {len(obj) / 2**20:.1f} MB to {path}. Earlier files are intact; make '
                'room or choose another --work-dir, and go on with --resume',
            ) from error


register_backend('atomic', AtomicBackend, force=True)


def latest_checkpoint(work_dir: str) -> Optional[str]:
    """The newest whole checkpoint of a work dir, by time and number; None where there is none.

    Files that are damaged are named in a warning and passed over; ``last_checkpoint`` decides only among checkpoints of
    other names.
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
    """Newest first."""
    numbered = {path: NUMBERED.fullmatch(path.name) for path in work_dir.glob('*.pth')}
    yield from sorted((path for path in numbered if numbered[path]), key=_age, reverse=True)
    pointer = work_dir / 'last_checkpoint'
    if pointer.is_file():
        named = Path(pointer.read_text(errors='replace').strip())
        if named.name and not numbered.get(work_dir / named.name):
            yield named


def _age(path: Path) -> tuple:
    """Time of the last change, and the number, which decides between files of the same time."""
    return path.stat().st_mtime, int(NUMBERED.fullmatch(path.name)[1])
