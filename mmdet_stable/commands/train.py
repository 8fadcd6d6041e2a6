"""Trains a detector on a folder of images: ``python -m mmdet_stable train DATA --time 30m``.

It says what it finds in the data and what it decides, writes a config, trains, evaluates and writes a report. What no
option says is decided from the data and the hardware.
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction

from mmdet_stable.utils.trust import add_trust, require_trust

HELP = 'train a detector on a folder of images'
OPTIONS = (
    *('size', 'image_size', 'queries', 'batch_size', 'epochs', 'lr', 'workers', 'backbone', 'weights', 'layer_decay'),
    *('average', 'patience', 'time', 'resume', 'seed', 'work_dir', 'cfg_options'),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        'data',
        nargs='+',
        help='folder (COCO, YOLO or Pascal VOC), data.yaml, or COCO files for training and validation',
    )
    parser.add_argument('--size', choices=['tiny', 'small', 'base', 'large'], help='of the model; default: by hardware')
    parser.add_argument('--image-size', type=int, metavar='PIXELS', help='longer side that images are resized to')
    parser.add_argument('--queries', type=int, help='how many objects the model looks for in an image')
    parser.add_argument('--batch-size', type=int, help='images of a training step')
    parser.add_argument('--epochs', type=int, help='default: 12 to 50, by the number of images; not with --time')
    parser.add_argument('--lr', type=float, help='learning rate; a tenth of it for a pretrained backbone')
    parser.add_argument('--workers', type=int, help='processes that load images')
    parser.add_argument(
        '--backbone', metavar='NAME', help='e.g. efficientnet_lite0, resnet50, swin_l, timm:convnext_tiny'
    )
    parser.add_argument(
        '--layer-decay',
        type=float,
        metavar='FACTOR',
        help='by which learning rates of the backbone fall from layer to layer; default: 0.7 to 0.9 for a plain vision '
        'transformer, else 1, which is none',
    )
    parser.add_argument(
        '--weights', metavar='NAME|FILE', help='detector to fine-tune: published, by name, or a checkpoint of ours'
    )
    parser.add_argument('--average', choices=['ema', 'swa', 'none'], help='average of weights to keep; default: none')
    parser.add_argument(
        '--patience',
        type=int,
        metavar='N',
        help='after N validations without a better AP, drop the learning rate, and after N more, stop; default: never',
    )
    parser.add_argument('--time', help='what all of it may take, e.g. 30m or 2h; decides the number of epochs')
    parser.add_argument('--resume', action='store_true', help='go on with the training in the work dir')
    parser.add_argument('--seed', type=int, default=60, help='of the split and the training; default: 60')
    parser.add_argument('--work-dir', help='where everything goes; default: work_dirs/<name of the data>')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config, for this call'
    )
    add_trust(parser)


def run(args: argparse.Namespace) -> int:
    """Train; 1 where data or options do not work out."""
    from mmdet_stable.training import train  # needs all of mmdet, and matplotlib

    try:
        if args.weights and Path(args.weights).expanduser().is_file():
            require_trust([Path(args.weights)], args.trust)  # the config beside it is run
        train(args.data, **{name: getattr(args, name) for name in OPTIONS})
    except (ValueError, OSError, ImportError) as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('\nThe same command with --resume goes on from the last checkpoint.', file=sys.stderr)
        raise
    return 0
