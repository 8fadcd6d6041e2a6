"""Which operators the set-up takes, and when `make` calls it."""

import importlib.util
import os
import shutil
import subprocess

import pytest

from tests.utils import ROOT

spec = importlib.util.spec_from_file_location('setup_env', ROOT / 'tools' / 'setup_env.py')
setup_env = importlib.util.module_from_spec(spec)
spec.loader.exec_module(setup_env)


@pytest.mark.parametrize(
    'gpu,nvcc,kind', [(False, False, 'lite'), (False, True, 'lite'), (True, False, 'lite'), (True, True, 'compiled')]
)
def test_mmcv_is_compiled_only_for_a_gpu_with_nvcc(gpu, nvcc, kind, tmp_path, monkeypatch, capsys):
    """On machines made of a PATH."""
    for name, exists in (('nvidia-smi', gpu), ('nvcc', nvcc)):
        if exists:
            (tmp_path / name).write_text('#!/bin/sh\n')
            (tmp_path / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.setenv('CUDA_HOME', str(tmp_path / 'none'))
    assert setup_env.suitable_kind() == kind
    assert ('no nvcc' in capsys.readouterr().out) == (gpu and not nvcc)
    if gpu and not nvcc:
        with pytest.raises(SystemExit, match='or do without: make MMCV=lite'):
            setup_env.install_compiled()


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
def test_make_sets_up_anew_for_the_other_kind_only(tmp_path):
    (source,) = [line for line in (ROOT / 'Makefile').read_text().splitlines() if line.startswith('.venv/ready:')]
    for name in source.split()[1:]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    shutil.copy(ROOT / 'Makefile', tmp_path)

    def commands(*arguments):
        environment = {name: value for name, value in os.environ.items() if name not in ('MMCV', 'MAKEFLAGS')}
        make = ['make', '--dry-run', 'test', 'PYTHON=python', *arguments]
        return subprocess.run(make, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout

    assert 'python tools/setup_env.py --mmcv auto\n' in commands()
    (tmp_path / '.venv').mkdir()
    (tmp_path / '.venv' / 'ready').write_text('compiled')
    assert 'setup_env' not in commands() and 'setup_env' not in commands('MMCV=compiled')
    assert 'setup_env.py --mmcv lite\n' in commands('MMCV=lite')
