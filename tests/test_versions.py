import subprocess
import sys

import pytest

from mmdet_stable import versions
from tests.utils import ROOT


def install(monkeypatch, found):
    real = versions.installed_version
    monkeypatch.setattr(versions, 'installed_version', lambda name: found[name] if name in found else real(name))


@pytest.mark.parametrize(
    'found,problem',
    [
        (None, 'mmcv is not installed'),
        ('2.2.0', 'mmcv 2.2.0 is installed, but mmdet_stable needs mmcv>=2.1.0,<2.2.0'),
        ('2.0.1', 'mmcv 2.0.1 is installed'),
        ('2.1.0', None),
        ('2.1.0+cu130', None),
    ],
)
def test_the_guard_names_package_range_and_fix(monkeypatch, found, problem):
    install(monkeypatch, {'mmcv': found, 'mmcv-lite': None})
    if problem is None:
        return versions.check_versions()
    with pytest.raises(ImportError, match=problem) as error:
        versions.check_versions()
    assert 'pip install mmcv-lite==2.1.0' in str(error.value)


@pytest.mark.parametrize(
    'found,files,problem',
    [
        ('2.1.0', ['_ext.py'], None),
        ('2.1.0', ['_ext.cpython-311-x86_64-linux-gnu.so'], None),
        ('2.2.0', ['_ext.py'], 'mmcv-lite 2.2.0 is installed, but mmdet_stable needs mmcv-lite>=2.1.0,<2.2.0'),
        ('2.1.0', [], r'mmcv-lite 2.1.0 lacks the operators of mmdet_stable, .*_ext.py. Fix: pip install --force-rein'),
    ],
)
def test_mmcv_lite_will_do_with_operators(monkeypatch, tmp_path, found, files, problem):
    install(monkeypatch, {'mmcv': None, 'mmcv-lite': found})
    monkeypatch.setattr(versions, 'mmcv_folder', lambda: tmp_path)
    for name in files:
        (tmp_path / name).touch()
    if problem is None:
        return versions.check_versions()
    with pytest.raises(ImportError, match=problem):
        versions.check_versions()


@pytest.mark.parametrize('package,fork', versions.FORKS.items())
def test_forks_under_the_same_import_name_are_refused_by_name(monkeypatch, package, fork):
    install(monkeypatch, {fork: '2.3.6'})
    with pytest.raises(ImportError, match=f'{fork} 2.3.6 is installed, .* Fix: pip uninstall -y {fork}; pip'):
        versions.check_versions()


def test_releases():
    assert versions.release('2.13.0+cpu') == (2, 13, 0) and versions.release('3.3.0rc1') == (3, 3, 0)


def run_doctor(*arguments):
    return subprocess.run([sys.executable, *arguments, 'tools/doctor.py'], cwd=ROOT, capture_output=True, text=True)


def test_doctor_is_content_here():
    result = run_doctor()
    assert result.returncode == 0, result.stdout
    assert 'mmcv._ext' in result.stdout and 'everything mmdet_stable needs is here' in result.stdout


def test_doctor_speaks_where_nothing_is_installed():
    """Without site-packages: every requirement is reported missing, with its fix, and nothing crashes."""
    result = run_doctor('-S', '-I')
    assert result.returncode == 1 and not result.stderr
    for package, wanted in versions.REQUIREMENTS.items():
        assert f'{package} is not installed' in result.stdout and wanted.fix in result.stdout
