"""What mmengine leaves in a work dir: the config, and checkpoints, of which one is to be chosen."""

import logging
import re
import zipfile
from pathlib import Path
from typing import Iterable, Iterator, List, Optional, Union

from mmengine.config import Config
from mmengine.logging import print_log

from .saved_config import read_saved_config

NUMBERED = re.compile(r'(?:epoch|iter)_(\d+)\.pth')


def saved_config(work_dir: Path) -> Config:
    """The config that mmengine saved in a work dir, read without running it; its ``filename`` is the path.

    Configs that inherit are not among those that mmengine saves, and are passed over.

    Raises:
        ValueError: where there is not one such config.
    """
    readable: List[Config] = []
    problems = []
    for path in sorted(work_dir.glob('*.py')):
        try:
            readable.append(read_saved_config(path))
        except ValueError as error:
            problems.append(str(error))
    whole = [config for config in readable if '_base_' not in config and 'model' in config]
    if len(whole) != 1:
        found = ', '.join(Path(config.filename).name for config in whole) or 'none'
        raise ValueError(
            f'{work_dir}: one config that mmengine saved is needed to know the model, found: {found}'
            + ''.join(f'\n  {problem}' for problem in problems)
            + '\nGive the path of the config, and the checkpoint by --checkpoint'
        )
    return whole[0]


def config_beside(checkpoint: Path) -> Config:
    """The config that belongs to a checkpoint, read without running it: the one of its name, as the converter of
    weights writes it, or that of the work dir.

    Raises:
        ValueError: where there is none, or it inherits from another.
    """
    same_name = checkpoint.with_suffix('.py')
    if not same_name.is_file():
        return saved_config(checkpoint.parent)
    config = read_saved_config(same_name)
    if 'model' not in config:
        raise ValueError(
            f'{same_name} has no "model", or inherits it; a whole config is needed, as mmengine saves with checkpoints'
        )
    return config


def checkpoint_of(work_dir: Path) -> str:
    """The best checkpoint of a work dir, otherwise the latest.

    Raises:
        FileNotFoundError: where there is no whole one.
    """
    chosen = best_checkpoint(work_dir) or latest_checkpoint(work_dir)
    if chosen is None:
        damaged = any(Path(work_dir).glob('*.pth'))
        remedy = 'all are damaged; copy them again, or train anew' if damaged else 'train first'
        raise FileNotFoundError(f'{work_dir}: there is no whole checkpoint in this work dir; {remedy}')
    return chosen


def best_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The whole checkpoint that mmengine's ``save_best`` kept, the newest of several; None where there is none.

    Files that are damaged are named in a warning and passed over.
    """
    best = Path(work_dir).glob('best_*.pth')
    return _first_whole(sorted(best, key=lambda path: path.stat().st_mtime, reverse=True))


def latest_checkpoint(work_dir: Union[str, Path]) -> Optional[str]:
    """The whole checkpoint to go on from; None where there is none.

    First what ``last_checkpoint`` names, as long as it lies in the work dir; then the others by number of epochs or
    iterations, and by time where numbers are equal; then what ``last_checkpoint`` names elsewhere. Files that are
    damaged are named in a warning and passed over.
    """
    return _first_whole(_candidates(Path(work_dir)))


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


def _first_whole(paths: Iterable[Path]) -> Optional[str]:
    for path in paths:
        problem = checkpoint_problem(path)
        if problem is None:
            return str(path)
        print_log(f'{path} is passed over: {problem}', 'current', logging.WARNING)
    return None


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
