"""Finding the configs, in this checkout and in an installed wheel, and the tools inside the latter."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from mmengine.config import Config

import mmdet_stable
from mmdet_stable.__main__ import main
from tests.tools.command_line import ENVIRONMENT
from tests.utils import ROOT


@pytest.mark.parametrize(
    'name', ['f1_s3', 'f1_s3.py', 'table7/f1_s3', 'ablations/table7/f1_s3.py'], ids=['stem', 'file', 'folder', 'path']
)
def test_a_config_by_its_name(name):
    assert mmdet_stable.config(name) == str(ROOT / 'configs' / 'ablations' / 'table7' / 'f1_s3.py')


def test_every_config_has_a_name_of_its_own():
    for path in mmdet_stable.shipped.shipped_configs():
        assert mmdet_stable.config(path.stem) == str(path)


def test_the_example_of_the_readme_is_read():
    assert Config.fromfile(mmdet_stable.config('stable_dino_r50_12e')).model.type == 'StableDINO'


@pytest.mark.parametrize(
    'name,hint',
    [
        ('stable_dino_r50_12', "'stable_dino_r50_12' names no config; did you mean stable_dino_r50_12e"),
        ('zzz', "'zzz' names no config; `python -m mmdet_stable configs` lists all"),
        ('runtime', "'runtime' names no config"),  # a fragment
    ],
)
def test_unknown_names(name, hint):
    with pytest.raises(ValueError) as error:
        mmdet_stable.config(name)
    assert hint in str(error.value)


def test_configs_are_listed(capsys):
    assert main(['configs']) == 0
    listed = capsys.readouterr().out.splitlines()
    assert str(ROOT / 'configs' / 'stable_dino_r50_12e.py') in listed and all(Path(path).is_file() for path in listed)
    assert not [path for path in listed if '_base_' in path]
    assert main(['configs', 'table7/*_s3']) == 0
    assert capsys.readouterr().out == f'{ROOT / "configs" / "ablations" / "table7" / "f1_s3.py"}\n'
    assert main(['configs', '--folder']) == 0
    assert capsys.readouterr().out == f'{ROOT / "configs"}\n'
    assert main(['configs', 'zzz']) == 1
    assert "no config matches 'zzz'" in capsys.readouterr().err


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """The wheel's files, as pip would unpack them, in a folder that takes precedence over this checkout."""
    folder = tmp_path_factory.mktemp('wheel')
    archive = source_archive(folder)
    command = [sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '--no-build-isolation', '--no-index']
    checked([*command, '--wheel-dir', folder, f'file://{archive}'])
    (wheel,) = folder.glob('*.whl')
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder / 'site')
    return folder / 'site'


def source_archive(folder):
    """The wheel is built from what is published as source; both are made of a copy, as they leave folders behind."""
    sources = folder / 'sources'
    for name in ('mmdet_stable', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns('__pycache__'))
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, sources)
    checked([sys.executable, 'setup.py', '--quiet', 'sdist', '--dist-dir', folder], cwd=sources)
    (archive,) = folder.glob('*.tar.gz')
    return archive


def test_an_editable_install_comes_before_a_clone_of_the_same_name(tmp_path):
    """Beside a clone, its folder `mmdet_stable` is an empty package unless a path of the installation leads to ours."""
    source_archive(tmp_path)
    checked([sys.executable, 'setup.py', '--quiet', 'editable_wheel', '--dist-dir', tmp_path], cwd=tmp_path / 'sources')
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as files:
        (path,) = (name for name in files.namelist() if name.endswith('.pth'))
        assert files.read(path).decode().strip() == str(tmp_path / 'sources')


def checked(command, **options):
    result = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


def call(installed, *command):
    env = {**ENVIRONMENT, 'PYTHONPATH': str(installed)}
    return checked([sys.executable, *command], cwd=installed.parent, env=env)


def test_configs_of_an_installed_wheel(installed):
    expected = installed / 'mmdet_stable' / '.mim' / 'configs' / 'stable_dino_r50_12e.py'
    assert call(installed, '-m', 'mmdet_stable', 'configs', 'stable_dino_r50_12e').splitlines()[-1] == str(expected)


def test_doctor_of_an_installed_wheel(installed):
    output = call(installed, installed / 'mmdet_stable' / '.mim' / 'tools' / 'doctor.py')
    assert 'everything mmdet_stable needs is here' in output
