import pytest

from mmdet_stable.export import Settings

from .models import FAMILIES, exported


@pytest.fixture(scope='session')
def families(tmp_path_factory):
    """Exports a family when it is first asked for."""
    known = {}

    def ask(name):
        if name not in known:
            known[name] = exported(FAMILIES[name], tmp_path_factory.mktemp('exported'))
        return known[name]

    return ask


@pytest.fixture(scope='session')
def dino(families):
    return families('Stable-DINO')


@pytest.fixture(scope='session')
def fixed(tmp_path_factory):
    """Stable-DINO for inputs of 128 x 192, with NMS."""
    folder = tmp_path_factory.mktemp('fixed')
    return exported(FAMILIES['Stable-DINO'], folder, Settings(size=(128, 192)), nms=0.3)
