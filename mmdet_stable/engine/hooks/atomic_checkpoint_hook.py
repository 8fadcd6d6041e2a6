"""Checkpoints that survive a crash at any moment."""

import shutil
from collections import deque
from pathlib import Path
from typing import List, Optional

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from mmdet_stable.engine.checkpoints import AtomicBackend, remove_scratch_files

from .model import unwrapped_model


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` for local folders, without its three gaps: a file that is being written has no
    name of a checkpoint yet, neither has ``last_checkpoint``, and an outdated checkpoint is removed only after its
    successor is whole.

    Before training it refuses a disk that has no room for a single checkpoint, and clears away what a process that was
    killed left half-written.

    Args:
        as in mmengine, but for local folders only.

    Raises:
        ValueError: for an ``out_dir`` of remote storage, e.g. ``'s3://bucket'``, or a backend of mmengine.
    """

    def __init__(
        self, *args, backend_args: Optional[dict] = None, file_client_args: Optional[dict] = None, **kwargs
    ) -> None:
        super().__init__(*args, backend_args=dict(backend='atomic'), **kwargs)
        out_dir = self.out_dir if '://' in str(self.out_dir) else None
        settings = dict(out_dir=out_dir, backend_args=backend_args, file_client_args=file_client_args)
        for name, value in settings.items():
            if value:
                raise ValueError(
                    f'AtomicCheckpointHook({name}={value!r}) writes into local folders only; for remote storage use '
                    "mmengine's hook, default_hooks.checkpoint.type='CheckpointHook', or leave this setting out"
                )

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        model = unwrapped_model(runner)
        # Weights, and the two moments of Adam.
        needed = 3 * sum(value.numel() * value.element_size() for value in model.state_dict().values())
        Path(self.out_dir).mkdir(parents=True, exist_ok=True)
        if is_main_process():
            remove_scratch_files(Path(self.out_dir))
            remove_scratch_files(Path(runner.work_dir))
        free = shutil.disk_usage(self.out_dir).free
        if is_main_process() and free < needed:
            raise OSError(
                f'{self.out_dir} has {free / 2**20:.0f} MB left, but a checkpoint needs about {needed / 2**20:.0f} MB; '
                'make room, or choose another --work-dir'
            )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Resume with the optimiser's kernels as configured, ``fused`` or not.

        torch would take those of the checkpoint, and then fail in mixed precision.
        """
        if isinstance(runner.optim_wrapper, OptimWrapper):  # there is none in a test
            for group in checkpoint.get('optimizer', {}).get('param_groups', ()):
                if 'fused' in group:
                    group['fused'] = runner.optim_wrapper.optimizer.defaults.get('fused')

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save, then point to it, then remove what is outdated; each on its own leaves the folder usable."""
        outdated = self._outdated(step)
        runner.message_hub.update_info('keep_ckpt_ids', list(getattr(self, 'keep_ckpt_ids', ())))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            AtomicBackend().put(self.last_ckpt.encode(), Path(runner.work_dir) / 'last_checkpoint')
            for old in outdated:
                (Path(self.out_dir) / self.filename_tmpl.format(old)).unlink(missing_ok=True)

    def _outdated(self, step: int) -> List[int]:
        """Note the new checkpoint, and return the steps of those that exceed ``max_keep_ckpts``."""
        if self.max_keep_ckpts <= 0 or step in self.keep_ckpt_ids:
            return []
        kept = [*self.keep_ckpt_ids, step]
        self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :], self.max_keep_ckpts)
        return kept[: -self.max_keep_ckpts]
