"""Checkpoints that survive a crash at any moment."""

from collections import deque
from pathlib import Path
from typing import Any, Deque, List, Optional

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmdet_stable.engine.checkpoints import AtomicBackend, prepare_folder
from mmdet_stable.utils.files import remove_scratch_files

from .model import unwrapped_model


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook`` for local folders, without its three gaps: a file that is being written has no
    name of a checkpoint yet, neither has ``last_checkpoint``, and an outdated checkpoint is removed only after its
    successor is whole.

    Args:
        as in mmengine, but for local folders only.

    Raises:
        ValueError: for an ``out_dir`` of remote storage, e.g. ``'s3://bucket'``, or a backend of mmengine.
    """

    keep_ckpt_ids: Deque[int]  # of mmengine: the steps whose checkpoints are kept

    def __init__(
        self, *args: Any, backend_args: Optional[dict] = None, file_client_args: Optional[dict] = None, **kwargs: Any
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
        if is_main_process():
            prepare_folder(Path(self.out_dir), unwrapped_model(runner))
            remove_scratch_files(Path(runner.work_dir))

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
