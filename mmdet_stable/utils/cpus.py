"""How many CPUs this process has."""

import os


def own_cpus() -> int:
    """CPUs that this process may use: those it is allowed to run on, shared with the other processes that torchrun
    has started on this machine; at least 1.

    torch's number of threads does not tell: torchrun sets it to 1 for every process.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1
    return max(allowed // int(os.environ.get('LOCAL_WORLD_SIZE', 1)), 1)
