"""Faster self-attention for decoders."""

from typing import Dict, Tuple

from torch import nn


def skip_attention_weights(layers: nn.ModuleList) -> None:
    """Let the self-attention of mmdet's decoder layers use torch's fused kernels.

    They do not apply where attention weights are returned, which mmcv asks for and throws away.
    """
    for layer in layers:
        layer.self_attn.attn.register_forward_pre_hook(_without_weights, with_kwargs=True)


def _without_weights(_: nn.Module, args: Tuple, kwargs: Dict) -> Tuple[Tuple, Dict]:
    return args, {**kwargs, 'need_weights': False}
