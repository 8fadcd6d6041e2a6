"""Latency of one picture on a CPU: eager, compiled and exported, in PyTorch, ONNX Runtime and OpenVINO, against mmdet's
DINO in PyTorch.

All ways run in turns in one process, so that they see the same machine, also where other work shares it; read the
ratios. Weights are random. Ways whose package is not installed are left out.

    python tools/benchmarks/export.py --config configs/demo_digits.py --size 128 160
    python tools/benchmarks/export.py --size 800 1216 --threads 1
"""

import argparse
import copy
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List

import numpy as np
import onnx
import onnxruntime
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from timing import machine

from mmdet_stable.export import Settings, Source, source_of
from mmdet_stable.export.onnx_file import exported_program, onnx_model, without
from mmdet_stable.export.parity import synthetic_pictures
from mmdet_stable.export.quantising import quantised
from mmdet_stable.runtime.pictures import resize

ROOT = Path(__file__).resolve().parents[2]
THEIRS = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
WAYS = ('mmdet', 'eager', 'compiled', 'exported', 'onnx', 'int8', 'openvino')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', default=str(ROOT / 'configs' / 'stable_dino_r50_12e.py'))
    parser.add_argument('--size', nargs=2, type=int, default=[800, 1216], metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--repeats', type=int, default=100)
    parser.add_argument('--warm-up', type=int, default=20)
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--sampling', choices=('gather', 'grid_sample'), default='gather')
    parser.add_argument('--only', nargs='+', choices=WAYS, default=WAYS)
    args = parser.parse_args()
    register_all_modules()
    torch.set_num_threads(args.threads)
    height, width = args.size
    picture = resize(synthetic_pictures()[0], (height, width)).transpose(2, 0, 1)[None].copy()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ways = built(args, torch.from_numpy(picture), Path(folder))
        times = in_turns(ways, args.repeats, args.warm_up)
    print(
        f'{machine("cpu")}, onnxruntime {onnxruntime.__version__}; {args.threads} threads; one picture of '
        f'{height} x {width}, {args.repeats} runs after {args.warm_up}\n'
    )
    print('| way | p50, ms | p95, ms | p50 / mmdet eager |\n|---|---|---|---|')
    base = statistics.median(times['mmdet']) if 'mmdet' in times else float('nan')
    for name, taken in times.items():
        median = statistics.median(taken)
        print(f'| {name} | {median:.1f} | {np.percentile(taken, 95):.1f} | {median / base:.2f} |')


def built(args: argparse.Namespace, image: torch.Tensor, folder: Path) -> Dict[str, Callable]:
    """What to time, by name."""
    sizes = (image.shape[2], image.shape[3])
    ways: Dict[str, Callable] = {}
    ours = Config.fromfile(args.config)
    model = model_of(ours)
    if 'mmdet' in args.only:
        ways['mmdet'] = predicting(model_of(theirs(ours)), image, sizes)
    if 'eager' in args.only:
        ways['eager'] = predicting(model, image, sizes)
    if 'compiled' in args.only:
        compiled = copy.deepcopy(model)
        for layer in [*compiled.coders[0].layers, *compiled.coders[1].layers]:
            layer.compile(dynamic=False)
        ways['compiled'] = predicting(compiled, image, sizes)
    settings = Settings(sampling=args.sampling)
    names = [str(number) for number in range(model.bbox_head.num_classes)]
    source: Source = source_of(model, ours, names, settings)
    program = exported_program(source.module, settings)
    if 'exported' in args.only:
        module = program.module()
        ways['exported'] = lambda: module(image)
    if not {'onnx', 'int8', 'openvino'} & set(args.only):
        return ways
    path = folder / 'model.onnx'
    written = without(source.module.unwanted, onnx_model(program, settings))
    onnx.save(written, str(path))
    inputs = dict(images=image.numpy())
    if 'onnx' in args.only:
        ways['onnx'] = in_onnxruntime(path, inputs, args.threads)
    if 'int8' in args.only:
        onnx.save(quantised(written, [inputs]), str(folder / 'int8.onnx'))
        ways['int8'] = in_onnxruntime(folder / 'int8.onnx', inputs, args.threads)
    if 'openvino' in args.only and importlib.util.find_spec('openvino'):
        import openvino

        settings_of = {'INFERENCE_NUM_THREADS': args.threads, 'INFERENCE_PRECISION_HINT': 'f32'}
        read = openvino.Core().compile_model(str(path), 'CPU', settings_of)
        ways['openvino'] = lambda: read(inputs)
    return ways


def theirs(ours: Config) -> Config:
    """mmdet's DINO: of width 256, with the backbone, depth and number of queries of ours."""
    cfg = get_config(THEIRS)
    levels = ours.model.neck.num_outs
    cfg.model.update(backbone=ours.model.backbone, num_queries=ours.model.num_queries, num_feature_levels=levels)
    cfg.model.backbone.init_cfg = None
    cfg.model.neck.update(in_channels=ours.model.neck.in_channels, num_outs=levels)
    for coder in ('encoder', 'decoder'):
        cfg.model[coder].num_layers = ours.model[coder].num_layers
        layer = cfg.model[coder].layer_cfg
        (layer.cross_attn_cfg if coder == 'decoder' else layer.self_attn_cfg).num_levels = levels
    cfg.model.bbox_head.num_classes = ours.model.bbox_head.num_classes
    cfg.model.test_cfg.max_per_img = ours.model.test_cfg.max_per_img
    return cfg


def model_of(cfg: Config) -> torch.nn.Module:
    """With random weights, which do not change how long it takes."""
    cfg = copy.deepcopy(cfg)
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()  # some are not even finite before
    return model.eval()


def predicting(model: torch.nn.Module, image: torch.Tensor, size: tuple) -> Callable:
    """mmdet's ``test_step`` without loading and resizing."""
    meta = dict(img_shape=size, ori_shape=size, batch_input_shape=size, scale_factor=(1.0, 1.0))
    data = dict(inputs=[image[0].flip(0)], data_samples=[DetDataSample(metainfo=meta)])
    return lambda: model.test_step(copy.deepcopy(data))


def in_onnxruntime(path: Path, inputs: Dict[str, np.ndarray], threads: int) -> Callable:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    return lambda: session.run(None, inputs)


def in_turns(ways: Dict[str, Callable], repeats: int, warm_up: int) -> Dict[str, List[float]]:
    """Milliseconds of each run of each way."""
    times: Dict[str, List[float]] = {name: [] for name in ways}
    for _ in range(repeats + warm_up):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: taken[warm_up:] for name, taken in times.items()}


if __name__ == '__main__':
    main()
