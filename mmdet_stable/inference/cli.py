"""What the commands that use a trained model share."""

import argparse
from pathlib import Path

from mmengine.config import DictAction

from mmdet_stable.utils.trust import add_trust, require_trust

from .detector import Detector, build_detector
from .model_files import find_model


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and where it runs; :func:`detector_of` takes them."""
    parser.add_argument(
        'model',
        help='a work dir, a config or its name, a checkpoint beside its config, mmdet::..., or the name of published '
        'weights',
    )
    parser.add_argument('--checkpoint', help='file or URL; needed with a config')
    parser.add_argument('--device', help='as cuda:0; default: a GPU, if there is one')
    parser.add_argument('--batch-size', type=int, default=1, help='images at once; default: 1')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings to change')
    add_trust(parser)


def detector_of(args: argparse.Namespace) -> Detector:
    """The detector that arguments name.

    Raises:
        ValueError, FileNotFoundError: as :func:`load`.
        PermissionError: for a config that was found in a work dir, without the user's word.
    """
    files = find_model(args.model, args.checkpoint)
    if files.found:
        require_trust([Path(args.model)], args.trust)
    return build_detector(files, args.device, args.cfg_options)
