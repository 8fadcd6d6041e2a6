"""What mmengine loads as a checkpoint from this machine: weights, never code, and errors that say what is wrong."""

import re
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Optional

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

# What torch's safe loader says it would not call.
REFUSED = re.compile(r'(?:GLOBAL|function|class) (\w+[.\w]*)')


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_from_local(filename: str, map_location: Any = None) -> dict:
    """Load a checkpoint or a bare state dict by torch's safe loader; takes the place of mmengine's loader for files.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, is no checkpoint, or asks to run code, which never happens.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'{filename}: there is no such checkpoint')
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except UnpicklingError as error:
        refused = REFUSED.search(str(error))
        what = f'holds objects of {refused[1]}' if refused else 'is damaged, no checkpoint of torch'
        raise ValueError(
            f'{filename} {what}, or asks to run code; nothing of it was run. Take the weights from whoever wrote it as '
            'a plain dict of tensors'
        ) from error
    except (RuntimeError, EOFError, ValueError) as error:
        raise ValueError(
            f'{filename} is cut off, damaged, or no checkpoint of torch ({first_line(error)}). Copy it again, or go '
            'on from an earlier one: --resume without a value finds the newest whole one'
        ) from error
    problem = contents_problem(checkpoint)
    if problem:
        raise ValueError(f'{filename} {problem}; expected a checkpoint of mmengine, or a dict of tensors')
    return checkpoint


def first_line(error: Exception) -> str:
    """What an error says, without the rest of torch's advice."""
    return (str(error) or type(error).__name__).splitlines()[0]


def contents_problem(checkpoint: Any) -> Optional[str]:
    """Why a file that could be read holds no weights, or None."""
    if not isinstance(checkpoint, dict):
        return f'holds a {type(checkpoint).__name__}'
    weights = checkpoint.get('state_dict', checkpoint)
    if not isinstance(weights, dict):
        return f'holds a {type(weights).__name__} as its "state_dict"'
    if not any(isinstance(value, Tensor) for value in weights.values()):
        return 'holds no tensors by name'
    return None
