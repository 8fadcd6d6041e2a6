"""All benchmarks: ratios of this package against mmdet 3.3, in one process, and where the time goes. Examples:

python tools/benchmarks/run.py --json results.json           # on the CPU, at a size for it
python tools/benchmarks/run.py --device cuda --size 800 1216 --batch-size 2 --repeats 20
python tools/benchmarks/run.py --only set_loss crowded stages
python tools/benchmarks/run.py --only step --side mmdet      # mmdet alone, without ratios

Times are medians, taken in turns. Syncs are those of the forward pass and the losses. Memory comes on top of models and
optimisers: torch's peak on a GPU; on a CPU, what the forward pass keeps for the backward pass.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional

import bench_set_loss
import torch
from bench_step import DTYPES, OURS, THEIRS, build, build_optimizer, detect, make_samples, train_step
from host_syncs import HostSyncCounter
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hub import get_config
from stages import stage_times
from terminaltables import GithubFlavoredMarkdownTable
from timing import alternating_medians, machine
from torch import nn

from mmdet_stable.models.layers import DeformableAttention

DN_DETR = OURS.replace('stable_dino_r50_12e', 'dn_detr/dn_detr_r50_50e')
DAB_DETR = 'mmdet::dab_detr/dab-detr_r50_8xb2-50e_coco.py'
HEADER = ['what', 'ours, ms', 'against', 'ms', 'ratio', 'aim', 'syncs', 'against', 'MiB', 'against', 'ratio']


class SetLossStep:
    """Matching, losses and backward of a head alone."""

    def __init__(self, head: nn.Module, batch_size: int, boxes: int, device: str) -> None:
        self.head = head.to(device)
        self.inputs = bench_set_loss.make_inputs(batch_size, boxes, device)

    def __call__(self) -> None:
        bench_set_loss.step(self.head, self.inputs)

    def forward(self) -> None:
        self.head.loss_by_feat(*self.inputs)


class ModelStep:
    """A training step, or inference, of a whole model with random weights."""

    def __init__(
        self,
        args: argparse.Namespace,
        config: str,
        boxes: int = 7,
        training: bool = True,
        precision: str = 'fp32',
        changes: Optional[dict] = None,
    ) -> None:
        self.model = build(config, changes).to(args.device)
        self.training = training
        self.precision = precision
        self.images = torch.randn(args.batch_size, 3, *args.size, device=args.device)
        self.samples = make_samples(args.batch_size, boxes, args.size, args.device)
        self.optimizer = build_optimizer(config, self.model)
        self.scaler = torch.amp.GradScaler(args.device, enabled=precision == 'fp16')

    def __call__(self) -> None:
        if self.training:
            value = train_step(self.model, self.optimizer, self.scaler, self.precision, self.images, self.samples)
        else:
            value = detect(self.model, self.precision, self.images, self.samples)
        if not value.isfinite():
            raise ValueError(f'{type(self.model).__name__} in {self.precision} gave {value}')

    def forward(self) -> Optional[dict]:
        """Without backward pass and optimiser."""
        if not self.training:
            return self()
        self.model.train()
        dtype = DTYPES[self.precision]
        with torch.autocast(self.images.device.type, dtype, enabled=dtype != torch.float32):
            return self.model.loss(self.images, self.samples)


class AttentionStep:
    """One deformable attention, with the sizes of DINO's: forward pass, and backward pass where training."""

    def __init__(self, args: argparse.Namespace, ours: bool, num_queries: Optional[int], training: bool) -> None:
        torch.manual_seed(0)
        kind = DeformableAttention if ours else MultiScaleDeformableAttention
        self.attention = kind(batch_first=True).to(args.device)
        self.training = training
        shapes = torch.tensor([[math.ceil(length / stride) for length in args.size] for stride in (8, 16, 32, 64)])
        sizes = shapes.prod(1)
        value = torch.randn(args.batch_size, int(sizes.sum()), 256, device=args.device)
        self.query = value[:, :num_queries].clone().requires_grad_(training)
        self.inputs = dict(
            value=value,
            reference_points=torch.rand(*self.query.shape[:2], 4, 2, device=args.device),
            spatial_shapes=shapes.to(args.device),
            level_start_index=(sizes.cumsum(0) - sizes).to(args.device),
        )

    def __call__(self) -> None:
        output = self.forward()
        if self.training:
            output.sum().backward()

    def forward(self) -> torch.Tensor:
        with torch.set_grad_enabled(self.training):
            return self.attention(self.query, **self.inputs)


class Contest(NamedTuple):
    """Two steps to compare, ours first; ``aim`` is the ratio of their times that is wanted."""

    what: str
    against: str
    steps: List[nn.Module]
    aim: float


def set_loss(args: argparse.Namespace) -> Iterator[Contest]:
    for batch_size in (2, 8):
        for boxes in (7, 60):
            heads = [bench_set_loss.build_head(cfg) for cfg in (Config.fromfile(OURS), get_config(THEIRS))]
            steps = [SetLossStep(head, batch_size, boxes, args.device) for head in heads]
            aim = 0.25 if args.device == 'cpu' else 0.07
            yield Contest(f'set loss, batch {batch_size}, {boxes} boxes', "mmdet's DINO", steps, aim)


def deformable(args: argparse.Namespace) -> Iterator[Contest]:
    for part, num_queries in (('encoder', None), ('decoder', 900)):
        for name, training in (('training', True), ('inference', False)):
            steps = [AttentionStep(args, ours, num_queries, training) for ours in (True, False)]
            yield Contest(f'deformable attention, {part}, {name}', "mmcv's", steps, 1.0)


def step(args: argparse.Namespace) -> Iterator[Contest]:
    for boxes in (7, 60):
        steps = [ModelStep(args, config, boxes) for config in (OURS, THEIRS)]
        yield Contest(f'training step, {boxes} boxes', "mmdet's DINO", steps, 1.0 if args.device == 'cpu' else 0.9)


def inference(args: argparse.Namespace) -> Iterator[Contest]:
    steps = [ModelStep(args, config, training=False) for config in (OURS, THEIRS)]
    yield Contest('inference, with NMS', "mmdet's DINO, without", steps, 0.95)


def fusion(args: argparse.Namespace) -> Iterator[Contest]:
    steps = [ModelStep(args, OURS), ModelStep(args, OURS, changes=dict(encoder=dict(fusion=None)))]
    yield Contest('dense fusion', 'none', steps, 1.02)


def crowded(args: argparse.Namespace) -> Iterator[Contest]:
    yield Contest('500 boxes an image', '7 boxes', [ModelStep(args, OURS, boxes) for boxes in (500, 7)], 1.3)


def checkpointing(args: argparse.Namespace) -> Iterator[Contest]:
    steps = [ModelStep(args, OURS, changes=dict(encoder=dict(num_cp=6))), ModelStep(args, OURS)]
    yield Contest('activation checkpointing', 'none', steps, 1.35)


def compiled(args: argparse.Namespace) -> Iterator[Contest]:
    for name, training in (('training step', True), ('inference', False)):
        changes = dict(compile_layers=dict())
        steps = [ModelStep(args, OURS, training=training, changes=changes), ModelStep(args, OURS, training=training)]
        samples = steps[0].samples
        for boxes in (3, 20) if training else ():  # compiled for any number of denoising queries
            steps[0].samples = make_samples(args.batch_size, boxes, args.size, args.device)
            steps[0]()
        steps[0].samples = samples
        yield Contest(f'torch.compile of layers, {name}', 'none', steps, 1.0)


def denoising(args: argparse.Namespace) -> Iterator[Contest]:
    for name, training in (('training step', True), ('inference', False)):
        steps = [ModelStep(args, config, training=training) for config in (DN_DETR, DAB_DETR)]
        yield Contest(f'DN-DETR, {name}', "mmdet's DAB-DETR", steps, 1.0)


def mixed(args: argparse.Namespace) -> Iterator[Contest]:
    for precision in ('fp16', 'bf16'):
        steps = [ModelStep(args, OURS, precision=name) for name in (precision, 'fp32')]
        yield Contest(f'training step, {precision}', 'fp32', steps, 0.7)


BENCHES = [set_loss, deformable, step, inference, fusion, crowded, checkpointing, compiled, denoising, mixed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [bench.__name__ for bench in BENCHES]
    parser.add_argument('--device', choices=['cpu', 'cuda'], default='cpu')
    parser.add_argument(
        '--only', nargs='+', choices=[*names, 'stages'], metavar='BENCH', help=', '.join([*names, 'stages'])
    )
    parser.add_argument('--side', choices=['both', 'ours', 'mmdet'], default='both', help='time one side alone')
    parser.add_argument('--size', nargs=2, type=int, default=[256, 320], metavar=('HEIGHT', 'WIDTH'))
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=5, help='steps to take the median of')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write all numbers there, too')
    args = parser.parse_args()
    # Autocast of a CPU is slower than none; it is compared where asked for.
    wanted = args.only or [name for name in [*names, 'stages'] if name != 'mixed' or args.device == 'cuda']
    register_all_modules()
    torch.manual_seed(0)
    print(f'{machine(args.device)}; batch {args.batch_size} of {args.size[0]} x {args.size[1]}\n', flush=True)
    rows = []
    for bench in BENCHES:
        if bench.__name__ in wanted:
            for contest in bench(args):
                rows.append(measure(contest, args))
                print(f'{contest.what} done', flush=True)
    if rows:
        print(table(rows))
    stages = profile(args) if 'stages' in wanted else {}
    if args.json:
        result = dict(
            machine=machine(args.device), size=args.size, batch_size=args.batch_size, rows=rows, stages=stages
        )
        args.json.write_text(json.dumps(result, indent=1))


def measure(contest: Contest, args: argparse.Namespace) -> Dict[str, object]:
    """One row; what was not measured is left out."""
    sides = {'both': [0, 1], 'ours': [0], 'mmdet': [1]}[args.side]
    steps = [contest.steps[side] for side in sides]
    times = alternating_medians(steps, args.repeats, args.device, warm_up=2)
    row = dict(what=contest.what, against=contest.against, aim=contest.aim)
    for side, step, milliseconds in zip(sides, steps, times):
        with HostSyncCounter(torch.device(args.device)) as counter:
            step.forward()
        row[f'ms_{side}'], row[f'syncs_{side}'] = milliseconds, counter.count
        row[f'mib_{side}'] = memory(step, args.device) / 2**20
    if len(sides) == 2:
        row['ratio'] = times[0] / times[1]
        row['memory_ratio'] = row['mib_0'] / row['mib_1'] if row['mib_1'] else None
    return row


def memory(step, device: str) -> int:
    """Bytes on top of models and optimisers: the peak of a step on a GPU; on a CPU, what the forward pass keeps."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        return torch.cuda.max_memory_allocated() - before
    kept: Dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if not isinstance(tensor, nn.Parameter):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        step.forward()
    return sum(kept.values())


def table(rows: List[Dict[str, object]]) -> str:
    def cell(row: Dict[str, object], key: str, digits: int) -> str:
        return '' if row.get(key) is None else f'{row[key]:.{digits}f}'

    columns = [('ms_0', 1), ('against', None), ('ms_1', 1), ('ratio', 2), ('aim', 2), ('syncs_0', 0), ('syncs_1', 0)]
    columns += [('mib_0', 0), ('mib_1', 0), ('memory_ratio', 2)]
    lines = [
        [row['what'], *(row['against'] if key == 'against' else cell(row, key, digits) for key, digits in columns)]
        for row in rows
    ]
    return GithubFlavoredMarkdownTable([HEADER, *lines]).table


def profile(args: argparse.Namespace) -> Dict[str, Dict[str, float]]:
    """Milliseconds of every stage of a training step and of inference, printed, for both sides."""
    found = {}
    for training in (True, False):
        what = 'training step' if training else 'inference'
        for name, config in (('ours', OURS), ('mmdet', THEIRS)):
            if args.side in ('both', name):
                step = ModelStep(args, config, training=training)
                found[f'{what}, {name}'] = stage_times(step.model, step, args.repeats, args.device)
    stages = list(dict.fromkeys(stage for times in found.values() for stage in times))
    lines = [
        [stage, *(f'{times[stage]:.1f}' if stage in times else '' for times in found.values())] for stage in stages
    ]
    total = ['all', *(f'{sum(times.values()):.1f}' for times in found.values())]
    print('\n' + GithubFlavoredMarkdownTable([['stage, ms', *found], *lines, total]).table)
    return found


if __name__ == '__main__':
    main()
