import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same cases on every machine; MMDET_STABLE_STRESS=10 tries ten times as many.
FACTOR = float(os.environ.get('MMDET_STABLE_STRESS', '1'))
settings.register_profile('stress', max_examples=int(300 * FACTOR), deadline=None, derandomize=True)
settings.load_profile('stress')


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.stress)
