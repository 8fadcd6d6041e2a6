import logging
import os

import pytest
import torch
from mmdet.utils import register_all_modules

import mmdet_stable  # noqa: F401  (registers what the tests build)

# Models are tiny: several threads would wait for each other, on a busy machine for minutes.
torch.set_num_threads(1)
os.environ.setdefault('OMP_NUM_THREADS', '1')  # of the processes that tests start
register_all_modules()  # what mmengine's Runner does: mmdet becomes the default scope


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, and without mmengine's listing of every initialised weight."""
    torch.manual_seed(0)
    logging.getLogger('mmengine').setLevel(logging.WARNING)
