"""Where the operators in torch come from, and what they never replace."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
from mmengine.hub import get_config

from tests.utils import ROOT, tiny_model_cfg

OPERATORS = ROOT / 'mmdet_stable' / 'operators' / '_ext.py'
DINO = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'


def run_python(code, cwd, **environment):
    command = [sys.executable, '-W', 'ignore', '-c', code]
    return subprocess.run(
        command, cwd=cwd, env={**os.environ, 'OMP_NUM_THREADS': '1', **environment}, capture_output=True, text=True
    )


@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_an_installation_brings_the_operators(kind, tmp_path):
    source = tmp_path / 'source'
    shutil.copytree(ROOT / 'mmdet_stable', source / 'mmdet_stable')
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, source)
    for name in ('configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / name, source / name)
    result = run_python(f'import setuptools.build_meta as b; b.build_{kind}({str(tmp_path)!r})', source)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read('mmcv/_ext.py') == OPERATORS.read_bytes()
        (record,) = (name for name in archive.namelist() if name.endswith('/RECORD'))
        assert kind == 'editable' or 'mmdet_stable/py.typed' in archive.namelist()
        assert b'\nmmcv/_ext.py,' in b'\n' + archive.read(record)  # so that pip removes it


def test_a_compiled_extension_takes_precedence_even_if_it_does_not_load(tmp_path):
    package = tmp_path / 'mmcv'
    package.mkdir()
    (package / '__init__.py').touch()
    shutil.copy(OPERATORS, package)
    assert run_python('import mmcv._ext', tmp_path).returncode == 0
    (package / f'_ext{sysconfig.get_config_var("EXT_SUFFIX")}').write_bytes(b'built for another torch')
    result = run_python('import mmcv._ext', tmp_path)
    assert result.returncode == 1 and 'ImportError' in result.stderr and '_ext.' in result.stderr


def test_mmdets_dino_detects_where_this_package_was_not_imported(tmp_path):
    config = get_config(DINO)
    config.model = tiny_model_cfg(DINO, width=256, num_heads=8, num_layers=1)  # mmdet's decoder takes no other width
    config.test_dataloader.dataset.pipeline[1].scale = (64, 64)
    config.dump(tmp_path / 'config.py')
    code = (
        'import sys\n'
        'from mmdet.apis import DetInferencer\n'
        'import numpy\n'
        'inferencer = DetInferencer("config.py", device="cpu", show_progress=False)\n'
        'result = inferencer(numpy.zeros((64, 64, 3), dtype=numpy.uint8))\n'
        'assert len(result["predictions"][0]["scores"]) == 15\n'
        'assert "mmdet_stable" not in sys.modules\n'
    )
    result = run_python(code, tmp_path)
    assert result.returncode == 0, result.stderr
