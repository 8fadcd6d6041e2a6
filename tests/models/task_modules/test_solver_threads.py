"""The solver's threads."""

import numpy as np
from mmdet.registry import TASK_UTILS

from mmdet_stable.models.task_modules import stable_hungarian_assigner as module
from mmdet_stable.utils import own_cpus


def test_as_many_as_this_process_has_cpus(monkeypatch):
    """Not as many as torch has threads, which is one for each process of torchrun."""
    seen = []

    class Pool(module.ThreadPoolExecutor):
        def __init__(self, threads):
            seen.append(threads)
            super().__init__(threads)

    monkeypatch.setattr(module, 'ThreadPoolExecutor', Pool)
    monkeypatch.setattr(module, 'WORTH_THREADS', 0)
    monkeypatch.setattr('torch.get_num_threads', lambda: 77)
    assigner = TASK_UTILS.build(dict(type='StableHungarianAssigner', match_costs=[dict(type='BBoxL1Cost', weight=5.0)]))
    costs = np.random.default_rng(0).random((2, 3, 4, 9), dtype=np.float32)
    assert assigner._solve(costs, [4, 2, 0], 1).shape == (4, 2 * (4 + 2 + 0))
    assert seen == [own_cpus()]
