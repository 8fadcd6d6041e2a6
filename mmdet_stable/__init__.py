"""Stable-DINO and its relatives for MMDetection 3. Importing this package registers everything it offers.

It changes two more things, for the whole process, both in ``mmdet_stable.engine.on_import``: mmengine's loaders of
checkpoints, for files, URLs and ``torchvision://``, are replaced by ones that use torch's safe loader; and torch's
allow-list gets what mmengine writes into checkpoints. ``published://NAME`` and plain names, for published weights, and
``efficientnet_lite0://``, for those of an installed package, join the loaders.
"""

from typing import Any

from .versions import __version__, check_versions

check_versions()

from . import datasets, engine, evaluation, inference, models, weights  # noqa: E402  (the guard must speak before mmcv can fail)
from .inference import Detector, load  # noqa: E402
from .models.dense_heads import (  # noqa: E402
    MaskDINOHead,
    SetLoss,
    StableConditionalDETRHead,
    StableDABDETRHead,
    StableDeformableDETRHead,
    StableDETRHead,
    StableDINOHead,
)
from .models.detectors import (  # noqa: E402
    DNDETR,
    DABDeformableDETR,
    DNConditionalDETR,
    DNDeformableDETR,
    HDeformableDETR,
    MaskDINO,
    StableDDQDETR,
    StableDeformableDETR,
    StableDINO,
)
from .models.layers import DNQueryGenerator  # noqa: E402
from .models.losses import PositionSupervisedLoss  # noqa: E402
from .models.necks import DenseMemoryFusion, SimpleMemoryFusion, UShapedMemoryFusion  # noqa: E402
from .models.task_modules import PositionModulatedFocalCost, StableHungarianAssigner  # noqa: E402
from .shipped import config  # noqa: E402


def __getattr__(name: str) -> Any:
    """``train`` is imported when it is first asked for: it needs matplotlib, and nothing else here does."""
    if name == 'train':
        from .training import train

        return train
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


__all__ = [
    'DNDETR',
    'DABDeformableDETR',
    'DNConditionalDETR',
    'DNDeformableDETR',
    'DNQueryGenerator',
    'DenseMemoryFusion',
    'Detector',
    'HDeformableDETR',
    'MaskDINO',
    'MaskDINOHead',
    'PositionModulatedFocalCost',
    'PositionSupervisedLoss',
    'SetLoss',
    'SimpleMemoryFusion',
    'StableConditionalDETRHead',
    'StableDABDETRHead',
    'StableDDQDETR',
    'StableDETRHead',
    'StableDINO',
    'StableDINOHead',
    'StableDeformableDETR',
    'StableDeformableDETRHead',
    'StableHungarianAssigner',
    'UShapedMemoryFusion',
    '__version__',
    'config',
    'datasets',
    'engine',
    'evaluation',
    'inference',
    'load',
    'models',
    'train',
    'weights',
]
