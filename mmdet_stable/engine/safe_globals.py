"""Lets torch's safe loader (``weights_only=True``, the default since 2.6) read mmengine's checkpoints."""

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer


def allow_mmengine_checkpoints() -> None:
    """Allow-list the data classes that mmengine's Runner saves besides tensors: its logging buffers and their numpy
    arrays.

    Everything else in a checkpoint is still refused, so a file from a stranger cannot run code.
    """
    multiarray = np._core.multiarray if hasattr(np, '_core') else np.core.multiarray
    dtypes = [type(np.dtype(name)) for name in ('float64', 'float32', 'int64', 'int32', 'bool')]
    torch.serialization.add_safe_globals(
        [HistoryBuffer, multiarray._reconstruct, multiarray.scalar, np.ndarray, np.dtype, *dtypes]
    )
