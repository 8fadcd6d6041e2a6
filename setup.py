"""Install with ``pip install -e .``; torch and mmcv first, see the README.

torch and mmcv are not among the dependencies: pip could only build mmcv without its operators, or fail without saying
why. Importing the package checks both, and says what to do.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
versions = runpy.run_path(str(ROOT / 'mmdet_stable' / 'versions.py'))
dependencies = [f'{name}{wanted}' for name, wanted in versions['REQUIREMENTS'].items() if name not in ('torch', 'mmcv')]


class BuildWithConfigs(build_py):
    """Puts configs and tools into the wheel, in the folder ``.mim``, where OpenMMLab's ``mim`` looks for them."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'mmdet_stable' / '.mim'
        for folder in ('configs', 'tools'):
            ignore = shutil.ignore_patterns('__pycache__')
            shutil.copytree(ROOT / folder, target / folder, ignore=ignore, dirs_exist_ok=True)
        shutil.copy(ROOT / 'model-index.yml', target)


setup(
    name='mmdet_stable',
    version=versions['__version__'],
    description='Stable-DINO for MMDetection 3: stable matching and memory fusion as components',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    cmdclass={'build_py': BuildWithConfigs},
    packages=find_packages(include=['mmdet_stable', 'mmdet_stable.*']),
    package_data={'mmdet_stable.weights': ['rules/*.yml']},
    python_requires='>=3.9',
    install_requires=dependencies,
    extras_require={
        'demo': ['scikit-learn>=1.3'],
        'dev': ['pytest>=8', 'hypothesis>=6', 'ruff==0.17.5', 'pre-commit>=3', 'scikit-learn>=1.3'],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
