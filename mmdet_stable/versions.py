"""The package's version, and the check of what it runs on.

This file imports nothing but the standard library, so that ``setup.py``, ``tools/doctor.py`` and an environment in
which mmcv cannot even be imported can all use it.
"""

import re
from importlib import metadata
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Tuple

__version__ = '0.1.0'


class VersionRange(NamedTuple):
    """Versions ``minimum <= v < below`` of one requirement, and how to get one."""

    minimum: str
    below: str
    fix: str

    def __str__(self) -> str:
        return f'>={self.minimum},<{self.below}'


REQUIREMENTS: Dict[str, VersionRange] = {
    'torch': VersionRange('2.6', '3', 'pip install "torch>=2.6,<3"'),
    'mmengine': VersionRange('0.10.7', '1.0', 'pip install "mmengine>=0.10.7,<1.0"'),
    'mmcv': VersionRange('2.1.0', '2.2.0', 'pip uninstall -y mmcv mmcv-lite; pip install mmcv-lite==2.1.0'),
    'mmdet': VersionRange('3.3.0', '3.4.0', 'pip install mmdet==3.3.0'),
    'pycocotools': VersionRange('2.0.6', '3', 'pip install pycocotools'),
    'scipy': VersionRange('1.9', '2', 'pip install scipy'),
}

COMPILED_MMCV = (
    'pip uninstall -y mmcv mmcv-lite; pip install "setuptools<80" wheel ninja; '
    'MMCV_WITH_OPS=1 pip install --no-cache-dir --no-binary mmcv --no-build-isolation mmcv==2.1.0'
)
FORKS = {'mmengine': 'onedl-mmengine', 'mmcv': 'onedl-mmcv', 'mmdet': 'onedl-mmdetection'}  # same import names
REINSTALL = 'pip install --force-reinstall --no-deps mmdet_stable, or with -e . in its folder'


def release(version: str) -> Tuple[int, ...]:
    """The leading numbers of a version: ``'2.13.0+cpu'`` -> ``(2, 13, 0)``."""
    match = re.match(r'\d+(\.\d+)*', version)
    return tuple(int(part) for part in match.group().split('.')) if match else ()


def installed_version(package: str) -> Optional[str]:
    """The installed version of ``package``, without importing it; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def mmcv_distribution() -> str:
    """The distribution that brings mmcv: ``mmcv-lite`` where it is alone, otherwise ``mmcv``."""
    lite = installed_version('mmcv') is None and installed_version('mmcv-lite') is not None
    return 'mmcv-lite' if lite else 'mmcv'


def version_problem(package: str) -> Optional[str]:
    """What is wrong with the installed version of one requirement, with the command that mends it, or None."""
    wanted = REQUIREMENTS[package]
    name = mmcv_distribution() if package == 'mmcv' else package
    found = installed_version(name)
    fork = FORKS.get(package)
    if fork is not None and installed_version(fork) is not None:
        return (
            f'{fork} {installed_version(fork)} is installed, with which mmdet_stable was not tried; it needs '
            f'{package}{wanted}. Fix: pip uninstall -y {fork}; {wanted.fix}'
        )
    if found is None:
        return f'{package} is not installed (wanted {package}{wanted}). Fix: {wanted.fix}'
    if not release(wanted.minimum) <= release(found) < release(wanted.below):
        return f'{name} {found} is installed, but mmdet_stable needs {name}{wanted}. Fix: {wanted.fix}'
    if name == 'mmcv-lite' and not any(mmcv_folder().glob('_ext.*')):
        return f'mmcv-lite {found} lacks the operators of mmdet_stable, {mmcv_folder() / "_ext.py"}. Fix: {REINSTALL}'
    return None


def mmcv_folder() -> Path:
    return Path(str(metadata.distribution(mmcv_distribution()).locate_file('mmcv')))


def check_versions() -> None:
    """Raise one ``ImportError`` that lists every missing or unsuitable requirement with its fix."""
    problems: List[str] = [problem for problem in map(version_problem, REQUIREMENTS) if problem]
    if problems:
        raise ImportError(
            'mmdet_stable cannot run in this environment:\n  - '
            + '\n  - '.join(problems)
            + '\n`python tools/doctor.py` shows the whole picture.'
        )
