"""What a training needs of a GPU's memory, config by config. Example:

python tools/benchmarks/memory.py configs/stable_dino_r50_12e.py configs/dn_detr/dn_detr_r50_50e.py --batch-size 2

On CUDA the peak of a training step, and its time, are measured. On a CPU they are estimated: weights with gradients and
AdamW's two moments, and what the forward pass and the losses keep for the backward pass. Temporary tensors come on top
of an estimate, and what the CUDA operator of deformable attention does not keep is too much in it.
"""

import argparse
from pathlib import Path
from types import SimpleNamespace
from typing import List

import numpy as np
import torch
from bench_step import build, build_optimizer, make_samples, train_step
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from run import memory
from timing import alternating_medians, machine
from torch import Tensor, nn

GIB = 2**30
BYTES_OF_STATE = 16  # of a weight that learns: itself, its gradient, two moments, in float32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+')
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--size', nargs=2, type=int, default=[800, 1216], metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--boxes', type=int, default=7, help='ground truths of an image')
    args = parser.parse_args()
    register_all_modules()
    print(f'{machine(args.device)}; batch {args.batch_size} of {args.size[0]} x {args.size[1]}, {args.boxes} boxes\n')
    measured = args.device == 'cuda'
    print(f'| config | weights, M | {"peak GiB | step, ms" if measured else "state GiB | kept GiB | sum GiB"} |')
    print('|' + '---|' * (4 if measured else 5))
    for config in args.configs:
        print(row(config, args), flush=True)


def row(config: str, args: argparse.Namespace) -> str:
    model = build(config).to(args.device)
    model.train()
    samples = make_samples(args.batch_size, args.boxes, args.size, args.device)
    if 'MaskDINO' in type(model).__name__:
        add_masks(samples, args.size)
    images = torch.randn(args.batch_size, 3, *args.size, device=args.device)
    numbers = [sum(weight.numel() for weight in model.parameters()) / 1e6]
    if args.device == 'cuda':
        numbers += peak_and_time(model, config, images, samples)
    else:
        learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        state = (BYTES_OF_STATE * learning + 4 * (1e6 * numbers[0] - learning)) / GIB
        kept = memory(SimpleNamespace(forward=lambda: model.loss(images, samples)), 'cpu') / GIB
        numbers += [state, kept, state + kept]
    return f'| {Path(config).stem} | ' + ' | '.join(f'{number:.1f}' for number in numbers) + ' |'


def add_masks(samples: List[DetDataSample], size: List[int]) -> None:
    """Masks that fill the boxes."""
    for sample in samples:
        boxes = sample.gt_instances.bboxes.round().int().tolist()
        masks = np.zeros((len(boxes), *size), np.uint8)
        for mask, (left, top, right, bottom) in zip(masks, boxes):
            mask[top:bottom, left:right] = 1
        sample.gt_instances.masks = BitmapMasks(masks, *size)


def peak_and_time(model: nn.Module, config: str, images: Tensor, samples: List[DetDataSample]) -> List[float]:
    optimizer, scaler = build_optimizer(config, model), torch.amp.GradScaler('cuda', enabled=False)

    def step() -> Tensor:
        return train_step(model, optimizer, scaler, 'fp32', images, samples)

    (milliseconds,) = alternating_medians([step], repeats=5, device='cuda')
    torch.cuda.reset_peak_memory_stats()
    step()
    return [torch.cuda.max_memory_allocated() / GIB, milliseconds]


if __name__ == '__main__':
    main()
