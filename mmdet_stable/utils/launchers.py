"""Which of several processes this one is, before they know of each other."""

import os

# Where each launcher tells a process its number among all.
RANK_VARIABLES = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


def is_first_process(launcher: str) -> bool:
    """Whether this process is the only one, or the first of those that a launcher has started: ``'pytorch'``,
    ``'slurm'``, ``'mpi'``, or ``'none'``."""
    return int(os.environ.get(RANK_VARIABLES.get(launcher, ''), 0)) == 0
