from . import hooks
from .downloads import load_from_http, load_from_torchvision
from .layer_decay import LayerDecayOptimWrapperConstructor
from .on_import import load_safely
from .safe_globals import allow_mmengine_checkpoints
from .safe_loading import load_from_local

load_safely()

__all__ = [
    'LayerDecayOptimWrapperConstructor',
    'allow_mmengine_checkpoints',
    'hooks',
    'load_from_http',
    'load_from_local',
    'load_from_torchvision',
    'load_safely',
]
