"""Lets torch's safe loader (``weights_only=True``, the default since torch 2.6) read mmengine's checkpoints."""

import pickle
from importlib import import_module
from typing import Callable

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def allow_mmengine_checkpoints() -> None:
    """Allow-list what mmengine's Runner saves besides tensors: its logging buffers and their numpy arrays.

    Everything else in a checkpoint is still refused, so a file from a stranger cannot run code.
    """
    ours = '_core' if np.lib.NumpyVersion(np.__version__) >= '2.0.0' else 'core'  # 1.26 has an empty _core, too
    multiarray = import_module(f'numpy.{ours}.multiarray')
    # numpy 2 moved this module; a checkpoint may come from either side.
    arrays = [
        (getattr(multiarray, name), f'numpy.{package}.multiarray.{name}')
        for package in ('core', '_core')
        for name in ('_reconstruct', 'scalar')
    ]
    dtypes = [type(np.dtype(name)) for name in ('float64', 'float32', 'int64', 'int32', 'bool')]
    torch.serialization.add_safe_globals(
        [HistoryBuffer, (history_statistic, 'builtins.getattr'), *arrays, np.ndarray, np.dtype, *dtypes]
    )


def history_statistic(owner: type, name: str) -> Callable:
    """What ``getattr`` in a checkpoint becomes: mmengine's way to name a statistic of its buffers, and only that."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'a checkpoint may not read the attribute {name!r} of {owner!r}')
    return getattr(owner, name)
