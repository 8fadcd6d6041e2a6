"""Fine-tuning on other classes: keep what fits, say what does not."""

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from mmdet_stable.utils import mismatched_shapes

from .model import unwrapped_model

CLASS_WEIGHTS = ('cls_branches.', 'fc_cls.', 'label_embedding.')


@HOOKS.register_module()
class FineTuneClassesHook(Hook):
    """Drops class weights from a checkpoint of other classes, when training starts from ``load_from``.

    These are the classification layers and the label embedding of denoising queries; they are listed in the log.
    Resuming and testing are left alone: there, a checkpoint of other classes is an error.
    """

    priority = 'VERY_HIGH'  # before hooks that load the checkpoint into a model of their own

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        training = isinstance(runner._train_loop, BaseLoop)  # the property would build it
        if runner._resume or not training:
            return
        model = unwrapped_model(runner)
        state_dict = checkpoint.get('state_dict', checkpoint)
        dropped = {
            name: theirs
            for name, (theirs, ours) in mismatched_shapes(model, state_dict).items()
            if any(part in name for part in CLASS_WEIGHTS) and ours[1:] == theirs[1:]
        }
        generator = getattr(model, 'dn_query_generator', None)
        for name in dropped:
            theirs = state_dict.pop(name)
            if 'label_embedding.' in name and getattr(generator, 'indicator', False):
                # Its last row, of "unknown", is the content of all matching queries and knows no class.
                state_dict[name] = torch.cat([model.state_dict()[name][:-1].to(theirs), theirs[-1:]])
        if dropped:
            runner.logger.warning(
                'The checkpoint has other classes than this model; these weights start afresh: '
                + ', '.join(f'{name} {shape}' for name, shape in dropped.items())
            )
