"""Exports a trained detector to ONNX, or to a program of torch, and checks that the file computes the same."""

import argparse
import importlib.util
import sys
from pathlib import Path

from mmdet_stable.inference.cli import add_model, model_files_of
from mmdet_stable.utils.arguments import at_least, fraction

HELP = 'export a detector to ONNX, and check the file'
NEEDED = ('onnx', 'onnxscript', 'onnxruntime')


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        'checkpoint_of_config', nargs='?', metavar='CHECKPOINT', help='short for --checkpoint CHECKPOINT'
    )
    parser.add_argument(
        *('-o', '--out'), type=Path, required=True, metavar='FILE', help='file to write, such as model.onnx'
    )
    parser.add_argument(
        '--to', choices=('onnx', 'torch'), default='onnx', help='ONNX, or a program of torch.export; default: onnx'
    )
    parser.add_argument(
        '--size',
        nargs=2,
        type=at_least(1),
        metavar=('HEIGHT', 'WIDTH'),
        help='of all inputs in pixels; smaller pictures are padded, and the padding ignored; default: any size',
    )
    parser.add_argument('--padded', action='store_true', help='let pictures of different sizes into one batch')
    parser.add_argument('--fp16', action='store_true', help='half precision in convolutions and matrix products')
    parser.add_argument(
        '--int8',
        type=Path,
        metavar='FOLDER',
        help='convolutions and matrix products in 8 bits, calibrated on the pictures of this folder',
    )
    parser.add_argument(
        '--nms', type=fraction, metavar='IOU', help='NMS in the file, 0 for none; default: test_cfg.nms of the config'
    )
    parser.add_argument(
        '--sampling',
        choices=('gather', 'grid_sample'),
        default='gather',
        help='how deformable attention samples; default: gather',
    )
    parser.add_argument(
        '--opset', type=at_least(18), default=18, metavar='N', help='version of ONNX operators, from 18 on; default: 18'
    )
    parser.add_argument(
        '--images', nargs='+', type=Path, default=(), metavar='FILE', help='pictures to check on; default: synthetic'
    )
    parser.add_argument(
        '--ann-file', type=Path, metavar='JSON', help='COCO annotations; measures AP of file and model on them'
    )
    parser.add_argument(
        '--img-dir', type=Path, metavar='DIR', help='where the pictures of --ann-file lie; default: beside the file'
    )
    parser.add_argument(
        '--with-runtime', action='store_true', help='write the Python that runs the file, a folder, beside it'
    )


def run(args: argparse.Namespace) -> int:
    """Export, check and report; where anything is wrong, no file is left."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f'{", ".join(missing)}: not installed. Fix: pip install "mmdet_stable[export]"', name=missing[0]
        )
    from mmdet_stable.export import Evidence, Settings, check_inputs, export, load

    if args.checkpoint_of_config is not None:
        if args.checkpoint is not None:
            raise argparse.ArgumentError(None, 'give the checkpoint once, after MODEL or as --checkpoint')
        args.checkpoint = args.checkpoint_of_config
    size = None if args.size is None else (args.size[0], args.size[1])
    settings = Settings(size, args.padded, args.sampling, args.fp16, args.nms, args.opset, args.int8)
    evidence = Evidence(args.images, args.ann_file, args.img_dir)
    check_inputs(args.to, args.out, settings, evidence, args.with_runtime)
    source = load(model_files_of(args), settings, args.cfg_options)
    print('exporting and checking, which takes a minute or more on a CPU ...', file=sys.stderr, flush=True)
    print(*export(source, args.to, args.out, evidence, args.with_runtime), sep='\n')
    return 0
