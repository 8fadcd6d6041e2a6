"""Fine-tuning on other classes: keep what fits, say what does not."""

from typing import Dict, Optional, Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from mmdet_stable.utils import mismatched_shapes

from .model import unwrapped_model

CLASS_WEIGHTS = ('cls_branches.', 'fc_cls.', 'label_embedding.', 'predictor.cls.')


@HOOKS.register_module()
class FineTuneClassesHook(Hook):
    """Fits the class weights of a checkpoint of other classes to the model, when training starts from ``load_from``.

    These are the classification layers and the label embedding of denoising queries. Where the checkpoint names its
    classes, the rows of classes that the data has too move to their new places; all other rows start afresh. Both, and
    every other weight that is not loaded, are listed in the log. Resuming and testing are left alone: there, a
    checkpoint of other classes is an error.
    """

    priority = 'VERY_HIGH'  # before hooks that load the checkpoint into a model of their own

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        training = isinstance(runner._train_loop, BaseLoop)  # the property would build it
        if runner._resume or not training:
            return
        model = unwrapped_model(runner)
        state_dict = checkpoint.get('state_dict', checkpoint)
        theirs = class_names(checkpoint.get('meta', {}).get('dataset_meta'))
        ours = class_names(runner.train_dataloader.dataset.metainfo)
        rows = {} if theirs is None or ours is None else shared_rows(ours, theirs)
        if theirs is None or list(theirs) != list(ours or ()):
            fitted = fit_class_weights(model, state_dict, rows, moved=theirs is not None and ours is not None)
            if fitted:
                kept = [ours[row] for row in rows]
                runner.logger.warning(
                    f'The checkpoint has other classes than this model. Kept: {", ".join(kept) or "none"}; the other '
                    f'rows of these weights start afresh: {", ".join(fitted)}'
                )
        report_missing(runner, model, state_dict)


def class_names(dataset_meta: Optional[dict]) -> Optional[Sequence[str]]:
    """The classes that mmdet notes in a checkpoint, under the keys of its versions 3 and 2."""
    dataset_meta = dataset_meta or {}
    return dataset_meta.get('classes', dataset_meta.get('CLASSES'))


def shared_rows(ours: Sequence[str], theirs: Sequence[str]) -> Dict[int, int]:
    """Our row -> their row, for classes of the same name."""
    places = {name: row for row, name in enumerate(theirs)}
    return {row: places[name] for row, name in enumerate(ours) if name in places}


def fit_class_weights(model: nn.Module, state_dict: Dict[str, Tensor], rows: Dict[int, int], moved: bool) -> list:
    """Replace class weights of ``state_dict``, in place, by what the model can load; returns their names and shapes.

    Args:
        rows: our row -> their row.
        moved: whether classes are known to differ, so that weights of the same shape are fitted too.
    """
    own = model.state_dict()
    wrong = mismatched_shapes(model, state_dict)
    names = [name for name in state_dict if name in own and any(part in name for part in CLASS_WEIGHTS)]
    # Of other width is other than of other classes: left for the error that names it.
    names = [name for name in names if state_dict[name].shape[1:] == own[name].shape[1:] and (moved or name in wrong)]
    fitted = []
    indicator = getattr(getattr(model, 'dn_query_generator', None), 'indicator', False)
    for name in names:
        theirs, value = state_dict[name], own[name].clone()
        for our_row, their_row in rows.items():
            value[our_row] = theirs[their_row]
        if 'label_embedding.' in name and indicator:
            # Its last row, of "unknown", is the content of all matching queries and knows no class.
            value[-1] = theirs[-1]
        state_dict[name] = value
        fitted.append(f'{name} {tuple(theirs.shape)}')
    return fitted


def report_missing(runner: Runner, model: nn.Module, state_dict: Dict[str, Tensor]) -> None:
    """Every weight of the model that the checkpoint lacks, and every one that it has in vain."""
    own = set(model.state_dict())
    theirs = {name[len('module.') :] if name.startswith('module.') else name for name in state_dict}
    for what, names in (('are not in the checkpoint and start afresh', own - theirs), ('are not used', theirs - own)):
        if names:
            runner.logger.warning(f'{len(names)} weights {what}: {", ".join(sorted(names))}')
