"""The weights in a checkpoint, and checks on them, which mmengine, as it only warns, leaves to the model."""

from typing import Any, Dict, Mapping, Tuple

from torch import Tensor, nn

Shape = Tuple[int, ...]
# Where the weights lie in a checkpoint, in this order: mmengine's key, and that of many released backbones and models.
WEIGHT_KEYS = ('state_dict', 'model')


def find_weights(checkpoint: Any) -> Dict[str, Tensor]:
    """The weights in what a file holds: its ``'state_dict'``, else its ``'model'``, else the dict itself.

    Raises:
        ValueError: if there are none; to be read after the file's name.
    """
    if not isinstance(checkpoint, dict):
        raise ValueError(f'holds a {type(checkpoint).__name__}')
    key = next((key for key in WEIGHT_KEYS if key in checkpoint), None)
    weights = checkpoint if key is None else checkpoint[key]
    if not isinstance(weights, dict):
        raise ValueError(f'holds a {type(weights).__name__} as its "{key}"')
    if not any(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError('holds no tensors by name')
    return weights


def weights_for(model: nn.Module, checkpoint: Any) -> Dict[str, Tensor]:
    """The weights in what a file holds, under the names of the model: without ``module.`` of distributed training.

    Raises:
        ValueError: if there are none, or those of another model.
    """
    weights = {name.removeprefix('module.'): value for name, value in find_weights(checkpoint).items()}
    check_state_dict_fits(model, weights)
    return weights


def mismatched_shapes(
    model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = ''
) -> Dict[str, Tuple[Shape, Shape]]:
    """Weights whose shapes differ: name -> (shape in ``state_dict``, shape in ``model``)."""
    own = {prefix + name: tuple(value.shape) for name, value in model.state_dict().items()}
    loaded = {name: tuple(value.shape) for name, value in state_dict.items() if name in own and hasattr(value, 'shape')}
    return {name: (shape, own[name]) for name, shape in loaded.items() if shape != own[name]}


def check_state_dict_shapes(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
    """Raise ``ValueError`` where mmengine would skip weights of other shapes and go on with random ones."""
    wrong = mismatched_shapes(model, state_dict, prefix)
    if not wrong:
        return
    shown = '\n'.join(
        f'  {name}: {theirs} in the checkpoint, {ours} in the model' for name, (theirs, ours) in list(wrong.items())[:8]
    )
    more = f'\n  ... and {len(wrong) - 8} more' if len(wrong) > 8 else ''
    raise ValueError(
        f'{len(wrong)} weights of the checkpoint do not fit the model, nothing was loaded:\n{shown}{more}\n'
        'Use the config the checkpoint was trained with. Where only the class count differs: to test, set '
        "model.bbox_head.num_classes to that of the checkpoint; to fine-tune, keep the config's FineTuneClassesHook, "
        'which drops the class weights and reports them.'
    )


def check_state_dict_fits(model: nn.Module, state_dict: Mapping[str, Tensor], prefix: str = '') -> None:
    """Raise ``ValueError`` for a checkpoint whose weights have other shapes than the model's, or other names."""
    if state_dict and not any(prefix + name in state_dict for name in model.state_dict()):
        raise ValueError(
            f'the checkpoint holds none of the weights of {type(model).__name__}, but {len(state_dict)} others, as '
            f'{next(iter(state_dict))}; use the config it was trained with'
        )
    check_state_dict_shapes(model, state_dict, prefix)
