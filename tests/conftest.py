import logging

import pytest
import torch

import mmdet_stable  # noqa: F401  (registers what the tests build)


@pytest.fixture(autouse=True)
def seeded():
    """Every test starts from the same random state, and without mmengine's listing of every initialised weight."""
    torch.manual_seed(0)
    logging.getLogger('mmengine').setLevel(logging.WARNING)
