"""Counts how often the host waits for the device."""

import warnings
from typing import Optional

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
# Reading a value, or a result whose shape depends on values.
_WAITING_OPS = (
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten._unique2.default,
    aten.unique_dim.default,
)


class HostSyncCounter:
    """Counts the points of a ``with`` block at which the host waits for the device, in ``count``.

    On CUDA these are torch's own synchronisation warnings. Without CUDA, where nothing ever waits, they are the calls
    that would: ``.cpu()``, a blocking ``.to(device)``, ``new_tensor``, reading a value (``item``, ``if tensor``,
    ``max(tensor, 1)``), ``nonzero``, ``unique``, and indexing with a boolean mask.

    Args:
        device: of the tensors in the block.
    """

    def __init__(self, device: Optional[torch.device] = None) -> None:
        self.count = 0
        self._on_cuda = device is not None and torch.device(device).type == 'cuda'

    def __enter__(self) -> 'HostSyncCounter':
        if self._on_cuda:
            self._warnings = warnings.catch_warnings(record=True)
            self._caught = self._warnings.__enter__()
            warnings.simplefilter('always')
            torch.cuda.set_sync_debug_mode('warn')
        else:
            self._modes = (_CopyMode(self), _OperationMode(self))
            for mode in self._modes:
                mode.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if self._on_cuda:
            torch.cuda.set_sync_debug_mode('default')
            self._warnings.__exit__(*error)
            messages = [str(warning.message) for warning in self._caught]
            # Turning the mode on warns once, of itself.
            self.count = sum('synchroniz' in text and 'debug mode' not in text for text in messages)
        else:
            for mode in reversed(self._modes):
                mode.__exit__(*error)


class _CopyMode(TorchFunctionMode):
    """Copies between host and device, which on CPU tensors never reach the dispatcher."""

    def __init__(self, counter: HostSyncCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        waiting = func in (torch.Tensor.cpu, torch.Tensor.new_tensor, torch.Tensor.tolist)
        if func is torch.Tensor.to:
            to_device = any(isinstance(value, (torch.device, str)) for value in (*args, *kwargs.values()))
            waiting = to_device and not kwargs.get('non_blocking')
        self.counter.count += waiting
        return func(*args, **kwargs)


class _OperationMode(TorchDispatchMode):
    """Operations that need values on the host."""

    def __init__(self, counter: HostSyncCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        by_mask = func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default) and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        self.counter.count += func in _WAITING_OPS or by_mask
        return func(*args, **(kwargs or {}))
