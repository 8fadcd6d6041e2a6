"""Training step and inference of two configs in one process, with random weights: by default of Stable-DINO R50 against
mmdet's DINO R50.

Prints median time, ratio, host syncs and (on CUDA) peak memory. A training step is forward, losses, backward,
gradient clipping and the config's optimiser. A loss or score that is not finite is an error.

    python tools/benchmarks/bench_step.py --device cuda --precision fp32 bf16 fp16
    python tools/benchmarks/bench_step.py --size 256 320 --repeats 3          # small, for a CPU
    python tools/benchmarks/bench_step.py --ours configs/dn_detr/dn_detr_r50_50e.py \\
        --theirs mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py
"""

import argparse
from pathlib import Path
from typing import Callable, List, Optional, Tuple

import torch
from host_syncs import HostSyncCounter
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import OPTIMIZERS
from mmengine.structures import InstanceData
from timing import alternating_medians, machine
from torch import Tensor, nn

OURS = str(Path(__file__).resolve().parents[2] / 'configs' / 'stable_dino_r50_12e.py')
THEIRS = 'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py'
DTYPES = dict(fp32=torch.float32, bf16=torch.bfloat16, fp16=torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--ours', default=OURS, metavar='CONFIG')
    parser.add_argument('--theirs', default=THEIRS, metavar='CONFIG', help="to compare with; mmdet:: for mmdet's own")
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--precision', nargs='+', default=['fp32'], choices=DTYPES)
    parser.add_argument('--size', nargs=2, type=int, default=[800, 1216], metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch-size', type=int, default=2)
    parser.add_argument('--boxes', nargs='+', type=int, default=[7, 60], help='ground truths of an image')
    parser.add_argument('--repeats', type=int, default=10, help='steps to take the median of')
    args = parser.parse_args()
    register_all_modules()
    models = [build(config).to(args.device) for config in (args.ours, args.theirs)]
    optimizers = [build_optimizer(config, model) for config, model in zip((args.ours, args.theirs), models)]
    images = torch.randn(args.batch_size, 3, *args.size, device=args.device)

    print(f'{machine(args.device)}; batch {args.batch_size} of {args.size[0]} x {args.size[1]}\n')
    print(
        '| what | precision | boxes | ours, ms | mmdet, ms | ours / mmdet | syncs | mmdet | peak GiB | mmdet | ratio |'
    )
    print('|---|---|---|---|---|---|---|---|---|---|---|')
    for precision in args.precision:
        for num_boxes in args.boxes:
            samples = make_samples(args.batch_size, num_boxes, args.size, args.device)
            scalers = [torch.amp.GradScaler(args.device, enabled=precision == 'fp16') for _ in models]
            steps = [
                lambda m=model, o=optimizer, c=scaler, p=precision, s=samples: train_step(m, o, c, p, images, s)
                for model, optimizer, scaler in zip(models, optimizers, scalers)
            ]
            print_row('training step', precision, num_boxes, steps, args)
        steps = [lambda m=model, p=precision, s=samples: detect(m, p, images, s) for model in models]
        print_row('inference', precision, '', steps, args)


def load(config: str) -> Config:
    return get_config(config) if '::' in config else Config.fromfile(config)


def build(config: str, changes: Optional[dict] = None) -> nn.Module:
    """The model of a config, with ``changes`` merged in and random weights."""
    cfg = load(config)
    cfg.model.backbone.init_cfg = None
    cfg.model.backbone.frozen_stages = 1  # as in mmdet's configs, so that both sides train the same layers
    torch.manual_seed(0)
    MMLogger.get_current_instance().setLevel('WARNING')  # mmengine lists every weight that it initialises
    model = MODELS.build(Config._merge_a_into_b(changes or {}, cfg.model))
    model.init_weights()
    return model


def build_optimizer(config: str, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a config, with a learning rate that leaves the model as it is."""
    return OPTIMIZERS.build(dict(load(config).optim_wrapper.optimizer, params=model.parameters(), lr=1e-6))


def make_samples(batch_size: int, most_boxes: int, size: List[int], device: str) -> List[DetDataSample]:
    """Every second image has half the boxes, as batches are uneven."""
    height, width = size
    limits = torch.tensor([width / 2, height / 2], device=device)
    samples = []
    for index in range(batch_size):
        num_boxes = most_boxes - index % 2 * (most_boxes // 2)
        corners = torch.rand(num_boxes, 2, device=device) * limits
        sizes = (torch.rand(num_boxes, 2, device=device) * 0.4 + 0.05) * limits
        meta = dict(img_shape=tuple(size), batch_input_shape=tuple(size), scale_factor=(1.0, 1.0))
        sample = DetDataSample(metainfo=meta)
        labels = torch.randint(0, 80, (num_boxes,), device=device)
        sample.gt_instances = InstanceData(bboxes=torch.cat([corners, corners + sizes], 1), labels=labels)
        samples.append(sample)
    return samples


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: str,
    images: Tensor,
    samples: List[DetDataSample],
) -> Tensor:
    model.train()
    with torch.autocast(images.device.type, DTYPES[precision], enabled=precision != 'fp32'):
        losses = model.loss(images, samples)
    total = sum(loss.sum() for loss in losses.values())
    scaler.scale(total).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    return total.detach()


@torch.no_grad()
def detect(model: nn.Module, precision: str, images: Tensor, samples: List[DetDataSample]) -> Tensor:
    model.eval()
    with torch.autocast(images.device.type, DTYPES[precision], enabled=precision != 'fp32'):
        results = model.predict(images, samples)
    return results[0].pred_instances.scores.sum()


def print_row(what: str, precision: str, num_boxes: object, steps: List[Callable], args: argparse.Namespace) -> None:
    ours, theirs = alternating_medians(steps, args.repeats, args.device, warm_up=2)
    for name, step in zip(('ours', 'mmdet'), steps):
        if not step().isfinite():
            raise ValueError(f'{what} in {precision} with {num_boxes} boxes gave a value that is not finite: {name}')
    syncs, peaks = zip(*(syncs_and_peak(step, args.device) for step in steps))
    row = [what, precision, num_boxes, f'{ours:.1f}', f'{theirs:.1f}', f'{ours / theirs:.2f}', *syncs]
    row += (
        [f'{peaks[0]:.2f}', f'{peaks[1]:.2f}', f'{peaks[0] / peaks[1]:.2f}'] if args.device == 'cuda' else ['', '', '']
    )
    print('| ' + ' | '.join(map(str, row)) + ' |', flush=True)


def syncs_and_peak(step: Callable, device: str) -> Tuple[int, float]:
    """Host syncs of one step, and its peak memory in GiB (0 on a CPU)."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
    with HostSyncCounter(torch.device(device)) as counter:
        step()
    return counter.count, torch.cuda.max_memory_allocated() / 2**30 if device == 'cuda' else 0.0


if __name__ == '__main__':
    main()
