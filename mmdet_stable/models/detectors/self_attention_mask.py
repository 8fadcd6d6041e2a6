"""Self-attention masks for mmdet's decoders, which have no common argument for them, while their layers do."""

import inspect
from contextlib import ExitStack, contextmanager
from typing import Dict, Iterator, Optional, Tuple

from torch import Tensor, nn


def self_attention_mask_name(layer: nn.Module) -> str:
    """What the decoder layers of mmdet call the mask of their self-attention."""
    parameters = inspect.signature(layer.forward).parameters
    for name in ('self_attn_mask', 'self_attn_masks'):
        if name in parameters:
            return name
    raise ValueError(
        f'{type(layer).__name__} takes no self-attention mask, which is needed to hide one kind of queries, as '
        'denoising queries, from another; use a decoder whose layers do'
    )


@contextmanager
def self_attention_mask(layers: nn.ModuleList, name: str, mask: Optional[Tensor]) -> Iterator[None]:
    """Hand a mask to every decoder layer, also where mmdet's decoder has no argument for it; None changes nothing.

    A mask that the layer is given anyway, and those of enclosing calls, stay in force, too.
    """

    def add_mask(_, args: Tuple, kwargs: Dict) -> Tuple[Tuple, Dict]:
        others = kwargs.get(name)
        return args, {**kwargs, name: mask if others is None else mask | others}

    with ExitStack() as stack:
        if mask is not None:
            for layer in layers:
                stack.enter_context(layer.register_forward_pre_hook(add_mask, with_kwargs=True))
        yield
