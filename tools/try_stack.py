"""Tries this package on another stack: python tools/try_stack.py --python python3.10 --torch 2.6.0

Creates an environment of its own with the operators in torch, and runs the fast tests in it. pip chooses what --torch
and --package leave open. The environment stays, in .venv-stacks or --folder; a second call only runs the tests.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import List

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ['mmcv-lite==2.1.0', 'mmengine==0.10.7', 'mmdet==3.3.0', 'scikit-learn', 'pytest', 'hypothesis']
FAST_TESTS = ['tests/models', 'tests/engine', 'tests/operators', 'tests/test_versions.py', 'tests/test_readme.py']


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--python', default=sys.executable, help='interpreter')
    parser.add_argument('--torch', help="torch's version, such as 2.6.0")
    parser.add_argument('--package', nargs='+', default=[], help='further requirements, such as "numpy<2"')
    parser.add_argument('--folder', help='environment')
    parser.add_argument('--tests', nargs='+', default=FAST_TESTS, help='for pytest')
    args = parser.parse_args()
    requirements = [f'torch=={args.torch}' if args.torch else 'torch', *args.package]
    folder = Path(args.folder or ROOT / '.venv-stacks' / '-'.join([Path(args.python).name, *requirements]))
    if not (folder / 'ready').exists():
        create(args.python, folder, requirements)
    python = folder / 'bin' / 'python'
    run(python, 'tools/doctor.py')  # also lists the versions
    run(python, '-m', 'pytest', *args.tests)


def create(interpreter: str, folder: Path, requirements: List[str]) -> None:
    python = folder / 'bin' / 'python'
    run(interpreter, '-m', 'venv', folder)
    run(python, '-m', 'pip', 'install', '--quiet', 'setuptools<80', 'wheel', *requirements, *PACKAGES)
    run(python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', '-e', '.')
    (folder / 'ready').touch()


def run(*command) -> None:
    result = subprocess.run([str(part) for part in command], cwd=ROOT)
    if result.returncode:
        sys.exit(f'try_stack: failed with exit status {result.returncode}: {" ".join(map(str, command))}')


if __name__ == '__main__':
    main()
