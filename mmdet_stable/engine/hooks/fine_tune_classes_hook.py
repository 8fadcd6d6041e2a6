"""Fine-tuning on other classes: keep what fits, say what does not."""

import re
from typing import Dict, Optional, Sequence

from mmdet.models.dense_heads import DeformableDETRHead, DINOHead
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor, nn

from mmdet_stable.utils import mismatched_shapes

from .model import unwrapped_model

CLASS_WEIGHTS = re.compile(r'\.(?:cls_branches|fc_cls|label_embedding|predictor\.cls)\.')


@HOOKS.register_module()
class FineTuneClassesHook(Hook):
    """Fits the class weights of a checkpoint of other classes to the model, when training starts from ``load_from``.

    These are the classification layers and the label embedding of denoising queries. Where the checkpoint names its
    classes, the rows of classes that the data has too move to their new places; all other rows start afresh. Rows that
    are of no class stay: a softmax's background, the "unknown" of DN-DETR's denoising queries, and all of a branch that
    only tells objects from background. What moves, and every other weight that is not loaded, is listed in the log.
    Resuming and testing are left alone: there, a checkpoint of other classes is an error.
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
        if theirs is None or list(theirs) != list(ours or ()):
            fitted = fit_class_weights(model, state_dict, ours, theirs)
            if fitted:
                kept = [name for name in ours or () if name in (theirs or ())]
                runner.logger.warning(
                    f'The checkpoint has other classes than this model. Kept: {", ".join(kept) or "none"}; the other '
                    f'rows of these weights start afresh: {", ".join(fitted)}'
                )
        report_missing(runner, model, state_dict)


def class_names(dataset_meta: Optional[dict]) -> Optional[Sequence[str]]:
    """The classes that mmdet notes in a checkpoint, under the keys of its versions 3 and 2."""
    dataset_meta = dataset_meta or {}
    return dataset_meta.get('classes', dataset_meta.get('CLASSES'))


def shared_rows(ours: Optional[Sequence[str]], theirs: Optional[Sequence[str]]) -> Dict[int, int]:
    """Our row -> their row, for classes of the same name."""
    places = {name: row for row, name in enumerate(theirs or ())}
    return {row: places[name] for row, name in enumerate(ours or ()) if name in places}


def fit_class_weights(
    model: nn.Module,
    state_dict: Dict[str, Tensor],
    ours: Optional[Sequence[str]],
    theirs: Optional[Sequence[str]],
) -> list:
    """Replace class weights of ``state_dict``, in place, by what the model can load; returns their names and shapes.

    Args:
        ours, theirs: the classes of the data and of the checkpoint, which differ; None where they are not known. Where
            both are known, weights of the same shape are fitted too.
    """
    own = model.state_dict()
    wrong = mismatched_shapes(model, state_dict)
    moved = ours is not None and theirs is not None
    names = [name for name in state_dict if name in own and CLASS_WEIGHTS.search(name)]
    # Of other width is other than of other classes: left for the error that names it.
    names = [name for name in names if state_dict[name].shape[1:] == own[name].shape[1:] and (moved or name in wrong)]
    fitted = []
    for name in names:
        old, value = state_dict[name], own[name].clone()
        if is_objectness(model, name):
            num_kept = min(len(old), len(value))
            value[:num_kept] = old[:num_kept]
            state_dict[name] = value
            continue
        for our_row, their_row in shared_rows(ours, theirs).items():
            value[our_row] = old[their_row]
        if has_row_of_no_class(model, name) and (theirs is None or len(old) > len(theirs)):
            value[-1] = old[-1]
        state_dict[name] = value
        fitted.append(f'{name} {tuple(old.shape)}')
    return fitted


def has_row_of_no_class(model: nn.Module, name: str) -> bool:
    """Whether the last row of a class weight is a softmax's background, or the "unknown" of DN-DETR, of which the
    content of all its matching queries is made.
    """
    weight, owner = model.state_dict()[name], model.get_submodule(CLASS_WEIGHTS.split(name, maxsplit=1)[0])
    return len(weight) > getattr(owner, 'num_classes', len(weight))


def is_objectness(model: nn.Module, name: str) -> bool:
    """Whether a class weight is that of the encoder's proposals in a two-stage Deformable-DETR: row 0 is "object"
    there, and the other rows, which learn that nothing is of their class, are not used.

    DINO's has a row for each class. Where all layers share one branch, row 0 is a class, too, and goes by its name.
    """
    head = getattr(model, 'bbox_head', None)
    if not isinstance(head, DeformableDETRHead) or isinstance(head, DINOHead):
        return False
    separate = head.as_two_stage and not head.share_pred_layer
    return separate and name.startswith(f'bbox_head.cls_branches.{head.num_pred_layer - 1}.')


def report_missing(runner: Runner, model: nn.Module, state_dict: Dict[str, Tensor]) -> None:
    """Every weight of the model that the checkpoint lacks, and every one that it has in vain."""
    own = set(model.state_dict())
    theirs = {name[len('module.') :] if name.startswith('module.') else name for name in state_dict}
    for what, names in (('are not in the checkpoint and start afresh', own - theirs), ('are not used', theirs - own)):
        if names:
            runner.logger.warning(f'{len(names)} weights {what}: {", ".join(sorted(names))}')
