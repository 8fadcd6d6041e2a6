"""Stable-DINO R50 on a GPU against the CPU: losses and gradients from the same weights, images and denoising queries.

python tools/benchmarks/compare_devices.py [--device cuda] [--size 256 320] [--num-queries 300]
"""

import argparse
import copy
from pathlib import Path
from typing import Dict, List, Tuple

import torch
from bench_step import make_samples
from mmcv.ops.multi_scale_deform_attn import MultiScaleDeformableAttnFunction, multi_scale_deformable_attn_pytorch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from timing import machine
from torch import Tensor, nn

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'stable_dino_r50_12e.py'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--size', nargs=2, type=int, default=[256, 320], metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--num-queries', type=int, default=300)
    args = parser.parse_args()
    register_all_modules()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    print(machine(args.device))
    if args.device == 'cuda':
        compare_operator()
    torch.manual_seed(0)
    model = build(args.num_queries)
    samples = make_samples(2, 6, args.size, 'cpu')
    images, denoising = torch.randn(2, 3, *args.size), model.dn_query_generator(samples)
    (losses, gradients), (others, other_gradients) = (
        losses_and_gradients(copy.deepcopy(model), images, samples, denoising, device)
        for device in ('cpu', args.device)
    )
    worst = max(abs(others[name] - value) / abs(value) for name, value in losses.items())
    squared = sum((other_gradients[name] - value).square().sum() for name, value in gradients.items())
    norm = sum(value.square().sum() for value in gradients.values())
    print(f'{len(losses)} losses, largest difference: {worst:.1e}')
    print(f'{len(gradients)} gradients, norm of the difference: {(squared / norm).sqrt().item():.1e}')


def compare_operator() -> None:
    """mmcv's CUDA kernel in float32 against its plain PyTorch version in float64 on the CPU."""
    shapes, start = torch.tensor([[12, 16], [6, 8], [3, 4]]), torch.tensor([0, 192, 240])
    inputs = [
        torch.rand(shape, dtype=torch.float64) for shape in ((2, 252, 8, 32), (2, 50, 8, 3, 4, 2), (2, 50, 8, 3, 4))
    ]
    expected_inputs = [value.clone().requires_grad_() for value in inputs]
    value, locations, weights = expected_inputs
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    found_inputs = [value.float().cuda().requires_grad_() for value in inputs]
    value, locations, weights = found_inputs
    found = MultiScaleDeformableAttnFunction.apply(value, shapes.cuda(), start.cuda(), locations, weights, 64)
    direction = torch.randn_like(expected)
    expected.backward(direction)
    found.backward(direction.float().cuda())
    pairs = [(found, expected), *((a.grad, b.grad) for a, b in zip(found_inputs, expected_inputs))]
    errors = [((a.cpu() - b).abs().max() / b.abs().max()).item() for a, b in pairs]
    print('deformable attention, value and gradients: ' + ', '.join(f'{error:.1e}' for error in errors))


def build(num_queries: int) -> nn.Module:
    cfg = Config.fromfile(CONFIG).model
    cfg.backbone.init_cfg, cfg.num_queries = None, num_queries
    model = MODELS.build(cfg)
    model.init_weights()
    # As initialised, sampling points lie on pixel centres: a kink of bilinear sampling, where rounding picks the slope.
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith('sampling_offsets.bias'):
                parameter.add_(torch.rand_like(parameter) * 0.6 + 0.2)
    return model.train()


def losses_and_gradients(
    model: nn.Module, images: Tensor, samples: List, denoising: Tuple, device: str
) -> Tuple[Dict[str, float], Dict[str, Tensor]]:
    """One forward and backward pass with given denoising queries; results on the CPU."""
    model.to(device)
    queries = [value.detach().to(device) if isinstance(value, Tensor) else value for value in denoising]
    model.dn_query_generator.__class__ = type('Stored', (nn.Module,), {'forward': lambda self, _: queries})
    losses = model.loss(images.to(device), [sample.to(device) for sample in copy.deepcopy(samples)])
    sum(loss.sum() for loss in losses.values()).backward()
    gradients = {name: value.grad.cpu() for name, value in model.named_parameters() if value.grad is not None}
    return {name: loss.item() for name, loss in losses.items()}, gradients


if __name__ == '__main__':
    main()
