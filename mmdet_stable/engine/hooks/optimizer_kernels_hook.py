"""Which of torch's kernels an optimiser goes on with."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner


@HOOKS.register_module()
class OptimizerKernelsHook(Hook):
    """Resumes with the optimiser's kernels as configured, ``fused`` or not.

    torch would take those of the checkpoint, and then fail in mixed precision.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if isinstance(runner.optim_wrapper, OptimWrapper):  # there is none in a test
            for group in checkpoint.get('optimizer', {}).get('param_groups', ()):
                if 'fused' in group:
                    group['fused'] = runner.optim_wrapper.optimizer.defaults.get('fused')
