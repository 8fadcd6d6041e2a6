"""What the benchmarks share: fair timing of two things on one machine, and the machine's name."""

import platform
import statistics
import time
from typing import Callable, List, Sequence

import mmcv
import mmdet
import torch


def machine(device: str) -> str:
    """Device and versions, for the head of a table."""
    name = torch.cuda.get_device_name() if device == 'cuda' else f'{torch.get_num_threads()} CPU threads'
    versions = f'torch {torch.__version__}, mmcv {mmcv.__version__}, mmdet {mmdet.__version__}'
    return f'{name}, Python {platform.python_version()}, {versions}'


def alternating_medians(steps: Sequence[Callable], repeats: int, device: str, warm_up: int = 3) -> List[float]:
    """Median milliseconds of each step, taken in turns so that all see the same machine; results are not looked at."""
    times: List[List[float]] = [[] for _ in steps]
    for _ in range(repeats + warm_up):
        for step, taken in zip(steps, times):
            began = time.perf_counter()
            step()
            if device == 'cuda':
                torch.cuda.synchronize()
            taken.append((time.perf_counter() - began) * 1e3)
    return [statistics.median(taken[warm_up:]) for taken in times]
