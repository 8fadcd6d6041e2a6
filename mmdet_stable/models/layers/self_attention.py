"""Faster self-attention for decoders."""

from typing import Dict, Tuple

from torch import nn


def skip_attention_weights(module: nn.Module) -> None:
    """Let every ``nn.MultiheadAttention`` in a module use torch's fused kernels.

    They do not apply where attention weights are returned, which mmcv asks for and throws away.
    """
    for part in module.modules():
        if isinstance(part, nn.MultiheadAttention):
            part.register_forward_pre_hook(_without_weights, with_kwargs=True)


def _without_weights(_: nn.Module, args: Tuple, kwargs: Dict) -> Tuple[Tuple, Dict]:
    return args, {**kwargs, 'need_weights': False}
