"""Shows what this environment runs on, and the exact fix for what is wrong: python tools/doctor.py

Exits with 1 if mmdet_stable cannot run. Needs nothing but the standard library.
"""

import importlib
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, List, Optional, Tuple

ROOT = Path(__file__).resolve().parents[1]
# In a checkout, tools lie beside the package; in an installed wheel inside of it, in the folder .mim.
PACKAGE = ROOT.parent if ROOT.name == '.mim' else ROOT / 'mmdet_stable'

# Found by path: importing the package itself would already fail on what is to be diagnosed.
spec = importlib.util.spec_from_file_location('versions', PACKAGE / 'versions.py')
versions = importlib.util.module_from_spec(spec)
spec.loader.exec_module(versions)

INSTALL_MMCV = versions.REQUIREMENTS['mmcv'].fix
Finding = Tuple[str, str, Optional[str]]  # subject, what was found, the fix or None where all is well


def main() -> int:
    problems = 0
    for subject, found, fix in findings():
        print(f'{"ok " if fix is None else "BAD"} {subject:<28} {found}')
        if fix is not None:
            problems += 1
            print(f'    fix: {fix}')
    print(f'{problems} problem{"s" * (problems != 1)} found' if problems else 'everything mmdet_stable needs is here')
    return min(problems, 1)


def findings() -> Iterator[Finding]:
    fix = None if sys.version_info >= (3, 9) else 'use Python 3.9 or newer'
    yield 'python', f'{platform.python_version()} on {platform.platform()}', fix
    for package in versions.REQUIREMENTS:
        problem = versions.version_problem(package)
        text, _, fix = (problem or '').partition(' Fix: ')
        name = versions.mmcv_distribution() if package == 'mmcv' else package
        yield name, versions.installed_version(name) if problem is None else text, fix or None
    if versions.installed_version('mmcv') and versions.installed_version('mmcv-lite'):
        yield 'mmcv-lite', "and mmcv are both installed, and write over each other's files", INSTALL_MMCV
    if importlib.util.find_spec('pkg_resources') is None:
        yield 'pkg_resources', 'is missing, with which mmengine finds mmdet::... configs', 'pip install "setuptools<80"'
    yield from import_findings()
    if versions.installed_version('mmdet_stable') is None:
        yield (
            'mmdet_stable',
            'not installed, so that configs cannot import it',
            f'pip install --no-build-isolation -e {ROOT}',
        )
    elif not any(map(versions.version_problem, versions.REQUIREMENTS)):
        error = import_error('mmdet_stable')
        yield 'mmdet_stable', versions.installed_version('mmdet_stable'), error
        if error is None:
            yield from weight_findings()


def weight_findings() -> Iterator[Finding]:
    """Where the weights are that backbones start from. It is no fault if they are missing: training fetches them."""
    from mmengine.config import Config

    from mmdet_stable import config
    from mmdet_stable.engine.downloads import cached_file, pretrained, url_of

    for name in ('stable_dino_r50_12e', 'dn_detr_r101_50e', 'stable_dino_swin_l_12e'):
        for _, checkpoint in pretrained(Config.fromfile(config(name)).model, 'model'):
            url = url_of(checkpoint)
            path = cached_file(url)
            found = f'in {path.parent}' if path.exists() else f'fetched when needed, from {url} to {path.parent}'
            yield 'pretrained weights', f'{path.name}: {found}', None


def import_findings() -> Iterator[Finding]:
    """torch, CUDA, and mmcv's compiled operators."""
    if versions.installed_version('torch') is None:
        return
    error = import_error('torch')
    if error:
        yield 'torch', 'is installed but does not import', error
        return
    import torch

    cuda = torch.cuda.is_available()
    yield (
        'CUDA',
        f'{torch.cuda.get_device_name()}, torch built with CUDA {torch.version.cuda}'
        if cuda
        else ('none; training works on the CPU, slowly'),
        missing_cuda_fix(torch),
    )
    if versions.version_problem('mmcv'):
        return
    yield from operator_findings(cuda)


def missing_cuda_fix(torch) -> Optional[str]:
    """A GPU that torch does not see."""
    if torch.cuda.is_available() or shutil.which('nvidia-smi') is None:
        return None
    if subprocess.run(['nvidia-smi'], capture_output=True).returncode:
        return None
    return 'this machine has a GPU, but this torch is a CPU build: reinstall torch for your CUDA version'


def operator_findings(cuda: bool) -> Iterator[Finding]:
    """Which operators mmcv uses: compiled ones, or those in torch of mmdet_stable."""
    error = import_error('mmcv._ext')
    if error is not None:
        reason = import_error('mmcv')
        if reason is not None:
            missing = re.search(r"No module named '(\w+)'", reason)
            yield 'mmcv', f'does not import: {reason}', f'pip install {missing[1]}' if missing else library_fix(reason)
            return
        absent = "No module named 'mmcv._ext'" in error
        found = 'missing' if absent else f'was built for another torch, or is damaged ({error})'
        yield 'operators (mmcv._ext)', found, versions.REINSTALL if absent else INSTALL_MMCV
        return
    file = Path(importlib.util.find_spec('mmcv._ext').origin)
    if file.suffix != '.py':
        yield 'operators (mmcv._ext)', 'compiled', None
        if cuda:
            yield 'deformable attention, CUDA', *cuda_operator()
        return
    current = file.read_bytes() == (PACKAGE / 'operators' / '_ext.py').read_bytes()
    fix = None if current else f'these are not the operators of {PACKAGE}: {versions.REINSTALL}'
    yield 'operators (mmcv._ext)', f'in torch, {file}', fix
    if cuda:
        yield 'operators on this GPU', f'in torch, not timed on a GPU; compiled ones: {versions.COMPILED_MMCV}', None


def library_fix(error: str) -> str:
    """What to do about an import that fails for want of a system library, such as OpenCV's libGL."""
    library = re.search(r'(\S+\.so[.\d]*): cannot open shared object', error)
    if library and 'libGL' in library[1]:
        return 'apt-get install libgl1, or: pip uninstall -y opencv-python; pip install opencv-python-headless'
    return f'install the system library {library[1]}' if library else INSTALL_MMCV


def cuda_operator() -> Tuple[str, Optional[str]]:
    """Run mmcv's CUDA kernel against its plain PyTorch version."""
    import torch
    from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch

    shapes = torch.tensor([[6, 8], [3, 4]], device='cuda')
    value = torch.rand(2, 60, 4, 8, device='cuda')
    locations = torch.rand(2, 5, 4, 2, 3, 2, device='cuda')
    weights = torch.rand(2, 5, 4, 2, 3, device='cuda')
    start = torch.tensor([0, 48], device='cuda')
    command = versions.COMPILED_MMCV.replace('MMCV_WITH_OPS', 'FORCE_CUDA=1 MMCV_WITH_OPS')
    rebuild = f'build mmcv for this GPU: {command}'
    try:
        result = MultiScaleDeformableAttnFunction.apply(value, shapes, start, locations, weights, 64)
    except RuntimeError as error:
        return f'does not run: {error}', rebuild
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    if torch.allclose(result, expected, atol=1e-4):
        return 'runs, and agrees with PyTorch', None
    return 'gives wrong values', rebuild


def import_error(module: str) -> Optional[str]:
    """Why an import fails, or None; tried in a process of its own, so that a crash is a finding too."""
    run = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', f'import torch, {module}' if module != 'torch' else 'import torch'],
        capture_output=True,
        text=True,
    )
    lines: List[str] = run.stderr.strip().splitlines()
    return (lines[-1] if lines else f'exit status {run.returncode}') if run.returncode else None


if __name__ == '__main__':
    sys.exit(main())
