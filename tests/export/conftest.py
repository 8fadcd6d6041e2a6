import importlib.util

import pytest

NEEDED = ('onnx', 'onnxruntime', 'onnxscript')  # of requirements/stack.txt
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
collect_ignore_glob = ['test_*.py'] if MISSING else []


def pytest_report_header():
    return f'tests/export is left out: {", ".join(MISSING)} not installed' if MISSING else None


@pytest.fixture(scope='session')
def families(tmp_path_factory):
    """Exports a family when it is first asked for."""
    from .models import FAMILIES, exported

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
def trained(tmp_path_factory):
    """Config, checkpoint and data of a tiny detector, as files."""
    from .models import write_trained

    return write_trained(tmp_path_factory.mktemp('trained'))
