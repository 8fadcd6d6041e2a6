"""What the commands that use a trained model share."""

import argparse
from pathlib import Path

from mmdet_stable.utils.arguments import SettingsAction, at_least
from mmdet_stable.utils.trust import add_trust, require_trust

from .detector import Detector, build_detector
from .model_files import ModelFiles, find_model


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model; :func:`model_files_of` takes it."""
    parser.add_argument(
        'model',
        metavar='MODEL',
        help='a work dir; a checkpoint beside its config; the name of published weights, which the command `weights` '
        'lists; a config of mmdet as mmdet::...; or any other config, by file or name, with --checkpoint',
    )
    parser.add_argument(
        '--checkpoint',
        metavar='FILE',
        help='weights to take, a file, a URL or published://NAME; needed with a config, and replaces those of any '
        'other MODEL',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=SettingsAction,
        metavar='KEY=VALUE',
        help='settings of the config to change, such as model.test_cfg.max_per_img=50',
    )
    add_trust(parser)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and how it runs; :func:`detector_of` takes them."""
    add_model(parser)
    parser.add_argument('--device', help='such as cpu or cuda:0; default: a GPU, if there is one')
    parser.add_argument('--batch-size', type=at_least(1), default=1, metavar='N', help='images at once; default: 1')


def model_files_of(args: argparse.Namespace) -> ModelFiles:
    """The files that arguments name.

    Raises:
        ValueError, FileNotFoundError: as :func:`find_model`.
        PermissionError: for a config that was found in a work dir, without the user's word.
    """
    files = find_model(args.model, args.checkpoint)
    if files.found:
        require_trust([Path(args.model)], args.trust)
    return files


def detector_of(args: argparse.Namespace) -> Detector:
    """The detector that arguments name.

    Raises:
        ValueError, FileNotFoundError, PermissionError: as :func:`model_files_of`, and as :func:`load`.
    """
    return build_detector(model_files_of(args), args.device, args.cfg_options)
