"""Exports a trained detector to ONNX, or to a program of torch, and checks that the file computes the same."""

import argparse
import importlib.util
import sys
from pathlib import Path

from mmengine.config import DictAction

HELP = 'export a trained detector, with a report of what the file differs by'
NEEDED = ('onnx', 'onnxscript', 'onnxruntime')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config')
    parser.add_argument('checkpoint', help='of this config')
    parser.add_argument('--to', choices=('onnx', 'torch'), default='onnx', help='(default: %(default)s)')
    parser.add_argument('-o', '--out', type=Path, required=True, metavar='FILE')
    parser.add_argument(
        '--size',
        nargs=2,
        type=int,
        metavar=('HEIGHT', 'WIDTH'),
        help='of all inputs; smaller pictures are padded, and the padding ignored. Default: any size',
    )
    parser.add_argument('--padded', action='store_true', help='let pictures of different sizes into one batch')
    parser.add_argument('--fp16', action='store_true', help='half precision in convolutions and matrix products')
    parser.add_argument(
        '--int8',
        type=Path,
        metavar='FOLDER',
        help='convolutions and matrix products in 8 bits, calibrated on the pictures of this folder',
    )
    parser.add_argument('--nms', type=float, metavar='IOU', help='NMS in the graph, 0 for none; default: test_cfg.nms')
    parser.add_argument(
        '--sampling',
        choices=('gather', 'grid_sample'),
        default='gather',
        help='how deformable attention samples (default: %(default)s)',
    )
    parser.add_argument('--opset', type=int, default=18, help='of ONNX, from 18 on (default: %(default)s)')
    parser.add_argument('--images', nargs='+', type=Path, default=(), metavar='FILE', help='pictures to check on')
    parser.add_argument('--ann-file', type=Path, metavar='JSON', help='measure COCO AP of file and model on these')
    parser.add_argument('--img-dir', type=Path, help='where their pictures lie (default: beside the file)')
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='settings of the config'
    )
    parser.add_argument('--with-runtime', action='store_true', help='write the runtime, a folder of Python, beside it')


def run(args: argparse.Namespace) -> int:
    """Export, check and report; 1 where anything is wrong, and then no file is left."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        print(f'{", ".join(missing)}: not installed. Fix: pip install "mmdet_stable[export]"', file=sys.stderr)
        return 1
    from mmdet_stable.export import Evidence, ExportError, Settings, export, load
    from mmdet_stable.runtime import ModelError, PictureError

    size = None if args.size is None else (args.size[0], args.size[1])
    settings = Settings(size, args.padded, args.sampling, args.fp16, args.nms, args.opset, args.int8)
    evidence = Evidence(args.images, args.ann_file, args.img_dir)
    try:
        source = load(args.config, args.checkpoint, settings, args.cfg_options)
        print(*export(source, args.to, args.out, evidence, args.with_runtime), sep='\n')
    except (ExportError, ModelError, PictureError, FileNotFoundError) as error:
        print(f'{type(error).__name__}: {error}', file=sys.stderr)
        return 1
    return 0
