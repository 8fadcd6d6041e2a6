"""Fine-tuning on other classes: keep what fits, say what does not."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from mmdet_stable.utils import mismatched_shapes


@HOOKS.register_module()
class FineTuneClassesHook(Hook):
    """Drops from a checkpoint the weights whose number of classes differs, when training starts from ``load_from``.

    Only weights that differ in their first dimension, which in the model is its class count, are dropped, and they are
    listed in the log. Resuming and testing are left alone: there, a checkpoint of other classes is an error.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        training = isinstance(runner._train_loop, BaseLoop)  # the property would build it
        if runner._resume or not training or 'state_dict' not in checkpoint:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        num_classes = getattr(getattr(model, 'bbox_head', None), 'num_classes', None)
        state_dict = checkpoint['state_dict']
        dropped = {
            name: theirs
            for name, (theirs, ours) in mismatched_shapes(model, state_dict).items()
            if ours[:1] == (num_classes,) and ours[1:] == theirs[1:]
        }
        for name in dropped:
            del state_dict[name]
        if dropped:
            runner.logger.warning(
                f'The checkpoint has other classes than this model ({num_classes}); these weights start '
                f'afresh: {", ".join(f"{name} {shape}" for name, shape in dropped.items())}'
            )
