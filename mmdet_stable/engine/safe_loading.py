"""What mmengine loads as a checkpoint from this machine: weights, never code, and errors that say what is wrong."""

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Union

import torch

from mmdet_stable.utils.checkpoint import find_weights

# What torch's safe loader says it would not call.
REFUSED = re.compile(r'(?:GLOBAL|function|class) (\w+[.\w]*)')


def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint or a bare state dict by torch's safe loader.

    Returns:
        What the file holds. Weights under the key ``'model'`` are there as ``'state_dict'``, too: mmengine looks for
        them there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, is no checkpoint, or asks to run code, which never happens.
    """
    checkpoint = read_file(filename, map_location)
    try:
        weights = find_weights(checkpoint)
    except ValueError as error:
        raise ValueError(f'{filename} {error}; expected a checkpoint of mmengine, or a dict of tensors') from error
    return checkpoint if weights is checkpoint else {**checkpoint, 'state_dict': weights}


def read_file(filename: Union[str, Path], map_location: Any = None) -> Any:
    """Whatever a file of ``torch.save`` holds, by torch's safe loader.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, or asks to run code, which never happens.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{filename}: there is no such checkpoint')
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        refused = REFUSED.search(str(error))
        what = f'holds objects of {refused[1]}' if refused else 'is damaged, no checkpoint of torch'
        raise ValueError(
            f'{filename} {what}, or asks to run code; nothing of it was run. Take the weights from whoever wrote it as '
            'a plain dict of tensors'
        ) from error
    except Exception as error:  # of whatever kind torch meets in a damaged file
        raise ValueError(
            f'{filename} is cut off, damaged, or no checkpoint of torch ({first_line(error)}). Copy it again, or go '
            'on from an earlier one: --resume without a value finds the newest whole one'
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, without the rest of torch's advice."""
    return (str(error) or type(error).__name__).splitlines()[0]
