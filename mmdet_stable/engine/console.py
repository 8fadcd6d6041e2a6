"""What a person sees of a training: a short summary, progress, evaluation and warnings; the log file has all of it."""

import logging
import re
from typing import Any, Dict, Iterator

from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.logging.logger import MMFormatter
from mmengine.optim import OptimWrapper
from mmengine.registry import RUNNERS
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet_stable.engine.unknown_settings import settings_named
from mmdet_stable.utils.quiet import ignore_meshgrid_advice, quiet

# What is shown of the set-up: where weights come from, and a learning rate that is not the config's.
ESSENTIAL = re.compile(r'Load checkpoint from|resumed epoch|LR is set based on|downloading')
# Repeated in every epoch, or for every weight, or advice to the programmers of mmengine's users.
NOISE = re.compile(
    r'Exp name:|is skipped since its requires_grad=False|"FileClient" will be deprecated|"HardDiskBackend" is the alias'
)
# Losses of layers before the last, of encoder proposals, denoising and one-to-many queries; `loss` is the sum of all.
PARTIAL_LOSS = re.compile(r'  (?:d\d+\.\w*|(?:enc|dn|o2m)_)loss_\w+: \S+')


def build_runner(cfg: Config) -> Runner:
    """The runner of a config: :class:`ConciseRunner`, unless it asks for another by ``runner_type``.

    Raises:
        UnknownSettingError: for a setting that a component does not take.
    """
    ignore_meshgrid_advice()
    with settings_named(cfg):
        return RUNNERS.build(cfg) if 'runner_type' in cfg else ConciseRunner.from_cfg(cfg)


class ConciseRunner(Runner):
    """mmengine's ``Runner``, whose console leaves out what only the log file is read for.

    That is, before the first step: settings, environment, hooks, and the options of each weight; a summary stands in
    their place. Later: the losses of single layers. With ``log_level='DEBUG'`` nothing is left out.
    """

    def build_logger(self, log_level: str = 'INFO', *args: Any, **kwargs: Any) -> MMLogger:
        logger = super().build_logger(log_level, *args, **kwargs)
        self.console = ConsoleFilter()
        for handler in logger.handlers:
            if not isinstance(handler, logging.FileHandler) and handler.level > logging.DEBUG:
                handler.addFilter(self.console)
                handler.setFormatter(ConsoleFormatter(color=True, datefmt='%m/%d %H:%M:%S'))
        return logger

    @staticmethod
    def build_dataloader(*args: Any, **kwargs: Any) -> DataLoader:
        with quiet():
            return Runner.build_dataloader(*args, **kwargs)

    def build_evaluator(self, evaluator: Any) -> Evaluator:
        with quiet():
            return super().build_evaluator(evaluator)

    def train(self) -> nn.Module:
        with settings_named(self.cfg):  # of data sets and optimiser, which are built here
            return super().train()

    def test(self) -> Dict[str, float]:
        with settings_named(self.cfg):
            return super().test()

    def call_hook(self, fn_name: str, **kwargs: Any) -> None:
        super().call_hook(fn_name, **kwargs)
        if self.console.setting_up and fn_name in ('before_train', 'before_test', 'before_val'):
            self.console.setting_up = False
            self.logger.info('\n'.join([f'ready to {fn_name[len("before_") :]}', *summary(self)]))


class ConsoleFilter(logging.Filter):
    """Lets pass what a person needs; ``setting_up`` until the first step."""

    setting_up = True

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if NOISE.search(text):
            return False
        return not self.setting_up or record.levelno > logging.INFO or ESSENTIAL.match(text) is not None


class ConsoleFormatter(MMFormatter):
    """mmengine's format with short lines: of the losses, the sum and those of the last layer."""

    def format(self, record: logging.LogRecord) -> str:
        return PARTIAL_LOSS.sub('', super().format(record))


def summary(runner: Runner) -> Iterator[str]:
    """A few lines on what is about to run, and where the rest is written."""
    weights = list(runner.model.parameters())
    total, frozen = sum(map(Tensor.numel, weights)), sum(p.numel() for p in weights if not p.requires_grad)
    yield f'  model:    {runner.model_name}, {total / 1e6:.1f} M weights, {frozen / 1e6:.1f} M of them frozen'
    for split, loop in (('train', runner._train_loop), ('val', runner._val_loop), ('test', runner._test_loop)):
        if isinstance(loop, BaseLoop):  # the properties of the same names would build what is not needed
            loader = loop.dataloader
            yield f'  {split + ":":<9} images {len(loader.dataset)}, batches {len(loader)}'
    if isinstance(runner._train_loop, BaseLoop):
        yield f'  schedule: epochs {runner.max_epochs}, steps {runner.max_iters}, of which done {runner.iter}'
    if isinstance(runner.optim_wrapper, OptimWrapper):
        groups = runner.optim_wrapper.param_groups
        rates = sorted({group.get('initial_lr', group['lr']) for group in groups}, reverse=True)
        listed = ', '.join(f'{rate:.3g}' for rate in rates)
        yield f'  rates:    {listed} ({type(runner.optim_wrapper.optimizer).__name__})'
    yield f'  on:       {runner.world_size} x {weights[0].device.type}, seed {runner.seed}'
    yield f'  log:      {runner.logger.log_file}'
