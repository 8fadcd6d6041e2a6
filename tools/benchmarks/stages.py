"""Where the time of a training step and of inference goes, stage by stage."""

import statistics
import time
from contextlib import ExitStack, contextmanager
from typing import Callable, Dict, Iterator, List
from unittest import mock

import torch
from torch import nn


def stage_times(model: nn.Module, run: Callable, repeats: int, device: str) -> Dict[str, float]:
    """Median milliseconds that each stage of ``run`` spends, the time of stages within it taken off.

    "rest" is what belongs to no stage, as gradient clipping.
    """
    head = model.bbox_head
    matching = 'assign_batch' if hasattr(head.assigner, 'assign_batch') else 'assign'
    methods = {
        'backbone': (model.backbone, 'forward'),
        'neck': (model.neck, 'forward'),
        'encoder': (model, 'forward_encoder'),
        'query selection, denoising queries': (model, 'pre_decoder'),
        'decoder': (model, 'forward_decoder'),
        'matching': (head.assigner, matching),
        'losses': (head, 'loss'),
        'detections': (head, 'predict'),
        'backward': (torch.Tensor, 'backward'),
        'optimiser': (torch.optim.AdamW, 'step'),
    }
    records: List[Dict[str, float]] = []
    for _ in range(repeats + 1):
        clock = StageClock(device)
        with ExitStack() as stack, clock.stage('rest'):
            for name, (owner, method) in methods.items():
                stack.enter_context(mock.patch.object(owner, method, clock.timed(name, getattr(owner, method))))
            run()
        records.append(clock.milliseconds)
    return {name: statistics.median(record.get(name, 0.0) for record in records[1:]) for name in records[1]}


class StageClock:
    """Milliseconds by stage; a stage within another stops the clock of the outer one."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.milliseconds: Dict[str, float] = {}
        self.running: List[str] = []
        self.since = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._account()
        self.running.append(name)
        try:
            yield
        finally:
            self._account()
            self.running.pop()

    def timed(self, name: str, function: Callable) -> Callable:
        def wrapper(*args, **kwargs):
            with self.stage(name):
                return function(*args, **kwargs)

        return wrapper

    def _account(self) -> None:
        if self.device == 'cuda':
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self.running:
            name = self.running[-1]
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + (now - self.since) * 1e3
        self.since = now
