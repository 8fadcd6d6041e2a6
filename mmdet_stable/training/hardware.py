"""What this machine offers to a training."""

import os
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.device import get_device

from mmdet_stable.utils.cpus import own_cpus

# Where Linux says what a container may use, by version 2 and 1 of its control groups.
MEMORY_LIMITS = (Path('/sys/fs/cgroup/memory.max'), Path('/sys/fs/cgroup/memory/memory.limit_in_bytes'))


class Hardware(NamedTuple):
    """A device and what feeds it.

    Attributes:
        device: as torch names it: ``'cpu'``, ``'cuda'``, ``'mps'``.
        name: for people.
        memory: of the device, in GiB; of the machine or container for a CPU.
        cores: CPUs that this process may use.
    """

    device: str
    name: str
    memory: float
    cores: int

    @property
    def is_cpu(self) -> bool:
        return self.device == 'cpu'


def this_machine() -> Hardware:
    """The device that mmengine will train on."""
    device, cores = get_device(), own_cpus()
    if device == 'cuda':
        properties = torch.cuda.get_device_properties(0)
        return Hardware(device, properties.name, properties.total_memory / 2**30, cores)
    return Hardware(device, 'CPU' if device == 'cpu' else device, host_memory(), cores)


def host_memory() -> float:
    """GiB of this machine, or of the container that this process runs in."""
    limits = [path.read_text().strip() for path in MEMORY_LIMITS if path.is_file()]
    known = [int(limit) for limit in limits if limit.isdigit()]  # 'max' for none
    return min([os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'), *known]) / 2**30
