"""Creates .venv with a stack that works: torch, mmcv, mmdet, and this package. `make` calls it.

mmcv comes as mmcv-lite with the operators in torch of this package, which compiles nothing, or compiled. Without
--mmcv, it is compiled only for an NVIDIA GPU, where nvcc of torch's CUDA version is there to do it. Compiling takes
most of the time. The wheel is kept in a cache (~/.cache/mmdet_stable, or $MMDET_STABLE_CACHE) under the Python, torch
and CUDA versions it was compiled for, so the next clone takes it from there.
"""

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, Optional

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PYTHON = VENV / 'bin' / 'python'
READY = VENV / 'ready'  # lite or compiled; the Makefile looks at it, and at its date
TORCH, MMCV_VERSION = 'torch==2.13.0', '2.1.0'
BUILD_TOOLS = ['setuptools<80', 'wheel']  # mmcv's build imports pkg_resources, gone from newer setuptools
PYTHONS = (3, 11), (3, 13)  # of requirements/stack.txt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--mmcv', choices=['auto', 'lite', 'compiled'], default='auto', help='kind of operators')
    kind = parser.parse_args().mmcv
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        sys.exit(
            f'setup: Python {"{}.{}".format(*PYTHONS[0])} to {"{}.{}".format(*PYTHONS[1])} is needed, this is '
            f'{sys.version.split()[0]}; choose another with: make PYTHON=python3.12'
        )
    began = time.time()
    if kind == 'auto':
        kind = suitable_kind()
    create_venv()
    READY.unlink(missing_ok=True)
    if kind == 'lite':
        install_lite()
    else:
        install_compiled()
    pip('install', '--no-deps', '--no-build-isolation', '-e', '.')  # brings the operators for mmcv-lite
    step('checking')
    if run([PYTHON, 'tools/doctor.py'], check=False):
        sys.exit('setup: .venv is not usable yet, see above')
    READY.write_text(kind)
    step(f'ready after {(time.time() - began) / 60:.1f} minutes')


def suitable_kind() -> str:
    """Compiled operators where there are a GPU and a compiler for it; otherwise those in torch."""
    if not has_gpu():
        return 'lite'
    if has_nvcc():
        return 'compiled'
    step(
        "this machine has an NVIDIA GPU, but no nvcc to compile mmcv's CUDA operators with: taking those in torch, "
        'which were not timed on a GPU. With nvcc of the CUDA version that torch was built for: make MMCV=compiled'
    )
    return 'lite'


def install_lite() -> None:
    step(f'installing {TORCH}, mmcv-lite {MMCV_VERSION} and the rest')
    pip('uninstall', '--quiet', '-y', 'mmcv')  # shares its files with mmcv-lite
    pip('install', TORCH, *BUILD_TOOLS, f'mmcv-lite=={MMCV_VERSION}', '-r', 'requirements/stack.txt')


def install_compiled() -> None:
    if has_gpu() and not has_nvcc():
        sys.exit(
            "setup: this machine has an NVIDIA GPU, but no nvcc to compile mmcv's CUDA operators with; install the "
            'CUDA toolkit of the version that torch was built for, set CUDA_HOME, or do without: make MMCV=lite'
        )
    step(f'installing {TORCH}')
    pip('install', TORCH, *BUILD_TOOLS, 'ninja')
    wheel = mmcv_wheel()
    step(f'installing {wheel.name}')
    pip('install', '-r', 'requirements/stack.txt')
    pip('uninstall', '--quiet', '-y', 'mmcv', 'mmcv-lite')  # also mmcv of the same version, built for another torch
    pip('install', '--no-deps', str(wheel))


def create_venv() -> None:
    """Create .venv, unless one with this Python version is there already."""
    code = 'import pip, sys; sys.exit(sys.version_info[:2] != ({}, {}))'.format(*sys.version_info[:2])
    if PYTHON.exists() and not run([PYTHON, '-c', code], check=False, capture_output=True):
        return
    step(f'creating .venv with Python {sys.version.split()[0]}')
    shutil.rmtree(VENV, ignore_errors=True)
    if run([sys.executable, '-m', 'venv', str(VENV)], check=False):
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit('setup: could not create .venv; on Debian and Ubuntu: apt-get install python3-venv')


def mmcv_wheel() -> Path:
    """A wheel of mmcv with operators for this Python, torch and CUDA: from the cache, or compiled into it."""
    gpu = has_gpu()
    code = 'import sys, torch; print(sys.implementation.cache_tag, torch.__version__, torch.version.cuda, sep="-")'
    target = subprocess.run([PYTHON, '-c', code], check=True, capture_output=True, text=True).stdout.strip()
    target += '-gpu' if gpu else '-cpu'
    cache = Path(os.environ.get('MMDET_STABLE_CACHE', '~/.cache/mmdet_stable')).expanduser() / target
    found = sorted(cache.glob('mmcv-*.whl'))
    if found:
        return found[0]
    jobs = os.environ.get('MAX_JOBS', str(os.cpu_count()))
    operators = 'CUDA operators' if gpu else 'CPU operators'
    step(f'compiling mmcv {MMCV_VERSION} with its {operators} on {jobs} cores: 10 minutes or so, once')
    scratch = cache / f'building-{os.getpid()}'
    try:
        pip(
            'wheel',
            '--no-deps',
            '--no-build-isolation',
            '--no-cache-dir',
            '--no-binary',
            'mmcv',
            '-w',
            str(scratch),
            f'mmcv=={MMCV_VERSION}',
            MMCV_WITH_OPS='1',
            FORCE_CUDA=str(int(gpu)),
            MAX_JOBS=jobs,
        )
        (wheel,) = scratch.glob('mmcv-*.whl')
        return wheel.replace(cache / wheel.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def has_gpu() -> bool:
    return shutil.which('nvidia-smi') is not None and not run(['nvidia-smi'], check=False, capture_output=True)


def has_nvcc() -> bool:
    home = Path(os.environ.get('CUDA_HOME', '/usr/local/cuda'))
    return shutil.which('nvcc') is not None or (home / 'bin' / 'nvcc').exists()


def step(text: str) -> None:
    print(f'setup: {text}', flush=True)


def pip(*arguments: str, **environment: str) -> None:
    run([PYTHON, '-m', 'pip', '--quiet', '--disable-pip-version-check', *arguments], environment=environment)


def run(command: list, check: bool = True, environment: Optional[Dict[str, str]] = None, **kwargs) -> int:
    result = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, **kwargs)
    if check and result.returncode:
        sys.exit(f'setup: failed with exit status {result.returncode}: {" ".join(map(str, command))}')
    return result.returncode


if __name__ == '__main__':
    main()
