import os
import subprocess
import sys

import pytest

from mmdet_stable import versions
from tests.utils import ROOT


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
    real = versions.installed_version
    monkeypatch.setattr(versions, 'installed_version', lambda name: found if name == 'mmcv' else real(name))
    if problem is None:
        return versions.check_versions()
    with pytest.raises(ImportError, match=problem) as error:
        versions.check_versions()
    assert '--no-build-isolation mmcv==2.1.0' in str(error.value)


def test_releases():
    assert versions.release('2.13.0+cpu') == (2, 13, 0) and versions.release('3.3.0rc1') == (3, 3, 0)


def run_doctor(*arguments, **environment):
    command = [sys.executable, *arguments, 'tools/doctor.py']
    return subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)


def test_doctor_is_content_here(tmp_path):
    """Also where weights of backbones are not downloaded yet, of which it says where they go."""
    cache = tmp_path / 'hub' / 'checkpoints'
    cache.mkdir(parents=True)
    (cache / 'resnet50-0676ba61.pth').touch()
    result = run_doctor(TORCH_HOME=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert 'mmcv._ext' in result.stdout and 'everything mmdet_stable needs is here' in result.stdout
    assert f'resnet50-0676ba61.pth: in {cache}\n' in result.stdout
    missing = 'https://download.pytorch.org/models/resnet101-63fe2227.pth'
    assert f'resnet101-63fe2227.pth: fetched when needed, from {missing} to {cache}' in result.stdout
    assert 'swin_large_patch4_window12_384_22k.pth: fetched' in result.stdout


def test_doctor_speaks_where_nothing_is_installed():
    """Without site-packages: every requirement is reported missing, with its fix, and nothing crashes."""
    result = run_doctor('-S', '-I')
    assert result.returncode == 1 and not result.stderr
    for package, wanted in versions.REQUIREMENTS.items():
        assert f'{package} is not installed' in result.stdout and wanted.fix in result.stdout
