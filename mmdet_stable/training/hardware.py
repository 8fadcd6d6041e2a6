"""What this machine offers to a training."""

import os
from typing import NamedTuple

import torch
from mmengine.device import get_device

from mmdet_stable.utils.cpus import own_cpus


class Hardware(NamedTuple):
    """A device and what feeds it.

    Attributes:
        device: as torch names it: ``'cpu'``, ``'cuda'``, ``'mps'``.
        name: for people.
        memory: of the device, in GiB; of the machine for a CPU.
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
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    return Hardware(device, 'CPU' if device == 'cpu' else device, memory, cores)
