"""What importing the package changes outside of it, apart from entries of its own in registries."""

from mmengine.runner.checkpoint import CheckpointLoader

from .downloads import load_from_http, load_from_torchvision
from .safe_globals import allow_mmengine_checkpoints
from .safe_loading import load_from_local


def load_safely() -> None:
    """Let everything that mmengine loads in this process, also for other packages, go through torch's safe loader.

    - Of mmengine's loaders of checkpoints, those for files, URLs and ``torchvision://`` are replaced by ours.
    - torch's allow-list gets what mmengine's Runner writes into checkpoints.
    """
    CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    CheckpointLoader.register_scheme(prefixes=('http://', 'https://'), loader=load_from_http, force=True)
    torchvision = ('torchvision://', 'modelzoo://')
    CheckpointLoader.register_scheme(prefixes=torchvision, loader=load_from_torchvision, force=True)
    allow_mmengine_checkpoints()
