"""The operators in torch against those of compiled mmcv, on a CPU: python tools/benchmarks/bench_operators.py

Boxes lie at random in 1000 x 1000 pixels, with sides of up to the given size. "Classes" moves them apart by 80 random
classes, as mmcv's batched_nms does. Times are those that one thread had on the processor, so that other work on the
machine matters little. Needs compiled mmcv.
"""

import argparse
import statistics
import time
from typing import Callable, Sequence, Tuple

import torch
from mmcv import _ext as compiled
from timing import machine
from torch import Tensor

from mmdet_stable.operators import _ext as in_torch

KINDS = {'sides up to 100': (100, 1), 'sides up to 600': (600, 1), 'sides up to 300, 80 classes': (300, 80)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeats', type=int, default=21)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f'{machine("cpu")}\n\n| operator | boxes | in torch, ms | compiled, ms |\n|---|---|---|---|')
    for number in (300, 1000, 3000):
        for kind, (side, classes) in KINDS.items():
            boxes, scores = random_boxes(number, side, classes)
            calls = [lambda m=m, b=boxes, s=scores: m.nms(b, s, 0.7, 0) for m in (in_torch, compiled)]
            report(f'nms | {number}, {kind}', calls, args.repeats)
    boxes, scores = random_boxes(1000, 300, 1)
    settings = torch.zeros(1000, 5), 0.5, 0.5, 1e-3, 1, 0
    calls = [lambda m=m: m.softnms(boxes, scores, *settings) for m in (in_torch, compiled)]
    report('softnms | 1000, sides up to 300', calls, args.repeats)


def random_boxes(number: int, side: float, classes: int) -> Tuple[Tensor, Tensor]:
    corners = torch.rand(number, 2) * 1000 + torch.randint(classes, (number, 1)) * 2000.0
    return torch.cat([corners, corners + torch.rand(number, 2) * side], 1), torch.rand(number)


def report(name: str, calls: Sequence[Callable], repeats: int) -> None:
    """Print the medians of calls that take turns."""
    times = [[] for _ in calls]
    for _ in range(repeats):
        for call, taken in zip(calls, times):
            began = time.thread_time()
            call()
            taken.append((time.thread_time() - began) * 1e3)
    print('| {} | {:.1f} | {:.1f} |'.format(name, *map(statistics.median, times)), flush=True)


if __name__ == '__main__':
    main()
