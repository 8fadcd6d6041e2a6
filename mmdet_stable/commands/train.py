"""Trains a detector on a folder of images: ``python -m mmdet_stable train DATA --time 30m``.

It says what it finds in the data and what it decides, writes a config, trains, evaluates and writes a report. What no
option says is decided from the data and the hardware.
"""

import argparse
import sys
from pathlib import Path

from mmdet_stable.utils.arguments import SettingsAction, at_least, positive
from mmdet_stable.utils.trust import add_trust, require_trust

HELP = 'train a detector on a folder of images'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'data',
        nargs='+',
        metavar='DATA',
        help='folder (COCO, YOLO or Pascal VOC), data.yaml, or COCO files for training and validation',
    )
    parser.add_argument('--size', choices=['tiny', 'small', 'base', 'large'], help='of the model; default: by hardware')
    parser.add_argument(
        '--image-size',
        type=at_least(64),
        metavar='PIXELS',
        help='longer side that images are resized to; default: by the sizes of images and objects',
    )
    parser.add_argument(
        '--queries',
        type=at_least(1),
        metavar='N',
        help='how many objects the model looks for in an image; default: by the fullest image',
    )
    parser.add_argument(
        '--batch-size', type=at_least(1), metavar='N', help='images of a training step; default: by hardware'
    )
    parser.add_argument(
        '--epochs',
        type=at_least(1),
        metavar='N',
        help='how often all images are seen; default: 12 to 50, by their number; not with --time',
    )
    parser.add_argument(
        '--lr',
        type=positive,
        metavar='RATE',
        help='learning rate; a tenth of it for a pretrained backbone; default: by --size and batch size',
    )
    parser.add_argument(
        '--workers', type=at_least(0), metavar='N', help='processes that load images; default: by cores'
    )
    parser.add_argument(
        '--backbone',
        metavar='NAME',
        help='such as efficientnet_lite0, resnet50, swin_l, timm:convnext_tiny; default: by --size',
    )
    parser.add_argument(
        '--layer-decay',
        type=positive,
        metavar='FACTOR',
        help='by which learning rates of the backbone fall from layer to layer, at most 1; default: 0.7 to 0.9 for a '
        'plain vision transformer, else 1, which is none',
    )
    parser.add_argument(
        '--weights',
        metavar='NAME|PATH',
        help='detector to fine-tune: published, by name (the command `weights` lists them), a work dir, or a '
        'checkpoint beside its config',
    )
    parser.add_argument('--average', choices=['ema', 'swa', 'none'], help='average of weights to keep; default: none')
    parser.add_argument(
        '--patience',
        type=at_least(1),
        metavar='N',
        help='after N validations without a better AP, drop the learning rate, and after N more, stop; default: never',
    )
    parser.add_argument('--time', help='what all of it may take, such as 90s, 30m or 2h; decides the number of epochs')
    parser.add_argument('--resume', action='store_true', help='go on with the training in the work dir')
    parser.add_argument(
        '--seed', type=at_least(0), default=60, metavar='N', help='of the split and the training; default: 60'
    )
    parser.add_argument(
        '--work-dir', metavar='DIR', help='where everything goes; default: work_dirs/<name of the data>'
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=SettingsAction,
        metavar='KEY=VALUE',
        help='settings of the config to change, for this call',
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Train, and report."""
    from mmdet_stable.training import train  # needs all of mmdet, and matplotlib
    from mmdet_stable.training.run import work_dir_for

    if args.weights and Path(args.weights).expanduser().exists():
        require_trust([Path(args.weights)], args.trust)  # the config beside it is run
    folder = work_dir_for(args.data, args.work_dir)
    options = {name: value for name, value in vars(args).items() if name not in ('data', 'trust')}
    try:
        train(args.data, **options)
    except KeyboardInterrupt:
        if any(folder.glob('*.pth')):
            print('\nThe same command with --resume goes on from the last checkpoint.', file=sys.stderr)
        else:
            print('\nThere is no checkpoint yet: the same command begins anew.', file=sys.stderr)
        raise
    return 0
