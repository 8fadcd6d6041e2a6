"""Noise of denoising queries that grows while training goes on."""

import math

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmdet_stable.models.layers import DNQueryGenerator

from .model import unwrapped_model

SHAPES = {
    'linear': lambda progress: progress,
    'cosine': lambda progress: (1 - math.cos(math.pi * progress)) / 2,
}


@HOOKS.register_module()
class DenoisingNoiseHook(Hook):
    """Scales box and label noise of the model's ``DNQueryGenerator`` from ``start`` to ``end`` times its settings.

    The factor follows from the iteration, so that a resumed training goes on with it; it is logged, and stands in every
    checkpoint's ``meta`` as ``denoising_noise``.

    Args:
        start, end: factors at the beginning and the end, from 0 up.
        shape: ``'linear'`` or ``'cosine'``.
        until: share of the training after which ``end`` is reached, above 0 and at most 1.

    Raises:
        ValueError: for settings out of range; before training, where the model has no ``DNQueryGenerator``, or
            one whose negatives would fall onto positives.

    Source: the curriculum that arXiv:2203.01305 names as an open direction.
    """

    def __init__(self, start: float = 0.0, end: float = 1.0, shape: str = 'linear', until: float = 1.0) -> None:
        if shape not in SHAPES:
            raise ValueError(f'shape={shape!r}: known are {list(SHAPES)}')
        if min(start, end) < 0 or not 0 < until <= 1:
            raise ValueError(f'start={start} and end={end} must be at least 0, until={until} above 0 and at most 1')
        self.start = start
        self.end = end
        self.shape = SHAPES[shape]
        self.until = until

    def before_train(self, runner: Runner) -> None:
        generator = self.generator(runner)
        if generator.negatives == 'near' and min(self.start, self.end) == 0:
            raise ValueError(
                f'start={self.start}, end={self.end}: without noise, negatives="near" are the same queries as the '
                'positives; set both above 0'
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        factor = self.factor(runner.iter / max(runner.max_iters - 1, 1))
        self.generator(runner).noise_factor = factor
        runner.message_hub.update_scalar('train/denoising_noise', factor)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta']['denoising_noise'] = self.generator(runner).noise_factor

    def factor(self, progress: float) -> float:
        """The factor at a share of the training from 0 to 1."""
        return self.start + (self.end - self.start) * self.shape(min(progress / self.until, 1.0))

    @staticmethod
    def generator(runner: Runner) -> DNQueryGenerator:
        """What makes the denoising queries of the runner's model."""
        model = unwrapped_model(runner)
        generator = getattr(model, 'dn_query_generator', None)
        if generator is None or not hasattr(generator, 'noise_factor'):
            raise ValueError(
                f'DenoisingNoiseHook needs a model with a DNQueryGenerator; {type(model).__name__} has '
                f'{type(generator).__name__}: set type="DNQueryGenerator" in model.dn_cfg, or remove the hook'
            )
        return generator
