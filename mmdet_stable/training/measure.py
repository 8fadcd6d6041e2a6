"""What a step takes on this machine, measured on the first steps, and what fits into a time."""

import math
import os
import re
import tempfile
import time
from itertools import islice
from typing import Generator, NamedTuple, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.runner import Runner, set_random_seed
from torch.utils.data import DataLoader

from mmdet_stable.engine.hooks.dataset_check_hook import name_images_in_errors
from mmdet_stable.utils.quiet import ignore_meshgrid_advice, quiet
from mmdet_stable.utils.unknown_settings import settings_named

UNITS = dict(s=1, m=60, h=3600, d=86400)
STEPS = (3, 12)  # that are measured, at least and at most, after one that is not
SECONDS = 8.0  # after which no more than the least are measured
USED = 0.9  # of a time, as machines are not always equally fast
SLOW = 2 * 3600  # seconds of a training from which on a CPU is warned of


class Pace(NamedTuple):
    """Seconds.

    Attributes:
        step: of a training step with one batch, loading included.
        validation: of all validation images.
        steps: of an epoch.
        saving: of writing one checkpoint.
    """

    step: float
    validation: float
    steps: int
    saving: float = 0.0

    def duration(self, epochs: int, validations: int) -> float:
        """Of a training, with a checkpoint after each epoch and after each validation, which may be the best so far,
        and the report at the end, which takes about as long as three validations."""
        training = epochs * (self.steps * self.step + self.saving)
        return training + validations * (self.validation + self.saving) + 3 * self.validation

    def epochs_in(self, seconds: float, most_validations: int) -> int:
        """How many epochs fit; 0 where not even one does."""
        epochs = 0
        while self.duration(epochs + 1, min(epochs + 1, most_validations)) <= USED * seconds:
            epochs += 1
            if epochs >= 1000:
                break
        return epochs


def measure(cfg: Config) -> Pace:
    """Train a copy of the model for some steps, let it look at one batch of validation images, and write it to the disk
    of the work dir.

    Raises:
        UnknownSettingError: for a setting that a component does not take.
    """
    register_all_modules()
    # What building logs, the training logs again. A logger of a new name becomes the current one, which is asked.
    MMLogger.get_instance(f'measure {time.monotonic_ns()}', log_level='WARNING')
    ignore_meshgrid_advice()
    seed = cfg.get('randomness', {}).get('seed') or 0
    set_random_seed(seed)
    with settings_named(cfg):
        model = MODELS.build(cfg.model)
        model.init_weights()
        model.to(get_device())
        optim_wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    with quiet(), settings_named(cfg):
        loader, val_loader = (
            Runner.build_dataloader(cfg[name], seed=seed) for name in ('train_dataloader', 'val_dataloader')
        )
    for dataset in (loader.dataset, val_loader.dataset):
        name_images_in_errors(dataset)
    batches = _endless(loader)
    model.train()
    durations = []
    begin = time.perf_counter()
    for batch in islice(batches, 1 + STEPS[1]):
        model.train_step(batch, optim_wrapper)
        _wait()
        now = time.perf_counter()
        durations.append(now - begin)
        begin = now
        if len(durations) > STEPS[0] and sum(durations[1:]) > SECONDS:
            break
    batches.close()
    model.eval()
    batch = next(iter(val_loader))
    with torch.no_grad():
        model.val_step(batch)  # the first one also prepares
        begin = time.perf_counter()
        model.val_step(batch)
        _wait()
    validation = (time.perf_counter() - begin) * len(val_loader)
    measured = durations[1:] or durations
    begin = time.perf_counter()
    with tempfile.TemporaryFile(dir=cfg.work_dir) as file:
        torch.save(dict(state_dict=model.state_dict(), optimizer=optim_wrapper.state_dict()), file)
        file.flush()
        os.fsync(file.fileno())
    return Pace(sum(measured) / len(measured), validation, len(loader), time.perf_counter() - begin)


def _endless(loader: DataLoader) -> Generator[dict, None, None]:
    while True:
        yield from loader


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def parse_duration(text: str) -> float:
    """Seconds of a text like ``'30m'``, ``'1h30m'``, ``'2d'`` or ``'90s'``.

    Raises:
        ValueError: for anything else.
    """
    if not re.fullmatch(r'(?:\d+(?:\.\d+)?[smhd])+', text):
        raise ValueError(f'time={text}: write it like 90s, 30m, 1h30m or 2d')
    seconds = sum(float(number) * UNITS[unit] for number, unit in re.findall(r'([\d.]+)([smhd])', text))
    if seconds <= 0:
        raise ValueError(f'time={text} must be above 0')
    return seconds


def readable(seconds: float) -> str:
    """A duration for people, e.g. ``'2.3 days'``."""
    for limit, unit, name in ((172800, 86400, 'days'), (7200, 3600, 'hours'), (120, 60, 'minutes')):
        if seconds >= limit:
            return f'{seconds / unit:.1f} {name}'
    return f'{math.ceil(seconds)} seconds'


def image_side_for(pace: Pace, epochs: int, validations: int, image_size: Tuple[int, int], seconds: float) -> int:
    """The longer side of images at which the same training would take so long; time goes by pixels."""
    scale = math.sqrt(USED * seconds / pace.duration(epochs, validations))
    return max(int(max(image_size) * scale) // 32 * 32, 64)
