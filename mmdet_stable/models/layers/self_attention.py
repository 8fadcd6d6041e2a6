"""Faster self-attention for decoders."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, scaled_dot_product_attention


class SelfAttention(nn.MultiheadAttention):
    """``nn.MultiheadAttention`` as mmcv calls it, by torch's fused kernels, and with one mask for all heads.

    mmcv asks for attention weights and throws them away, for which torch leaves its fused kernels; and a mask that
    differs between images is kept once per head, as floats, by every layer.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        **kwargs,
    ) -> Tuple[Tensor, None]:
        """Attention of T queries to S keys.

        Args:
            query: (T, B, D), or (B, T, D) where ``batch_first``; key and value likewise, with S in place of T.
            attn_mask: (T, S), or (B * heads, T, S) with the same for all heads; bool, where True forbids, or added.
            key_padding_mask: (B, S) bool, True for keys that nobody sees.

        Returns:
            The output, of the shape of ``query``, and None in place of attention weights. A query that sees no key gets
            zeros, where torch gives NaN.
        """
        if key_padding_mask is not None:
            masks = dict(attn_mask=attn_mask, key_padding_mask=key_padding_mask)
            return super().forward(query, key, value, **{**kwargs, **masks, 'need_weights': False})
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        query, key, value = (self._heads_apart(linear(*part)) for part in zip((query, key, value), weights, biases))
        if attn_mask is not None:
            if attn_mask.dim() == 3:
                attn_mask = attn_mask.unflatten(0, (-1, self.num_heads))[:, :1]
            if attn_mask.dtype == torch.bool:
                attn_mask = ~attn_mask
        dropout = self.dropout if self.training else 0.0
        output = scaled_dot_product_attention(query, key, value, attn_mask, dropout)
        output = output.transpose(1, 2) if self.batch_first else output.permute(2, 0, 1, 3)
        return self.out_proj(output.flatten(2)), None

    def _heads_apart(self, tokens: Tensor) -> Tensor:
        """(B, heads, T, D / heads)."""
        tokens = tokens.unflatten(2, (self.num_heads, -1))
        return tokens.transpose(1, 2) if self.batch_first else tokens.permute(1, 2, 0, 3)


def use_fused_self_attention(module: nn.Module) -> None:
    """Turn every ``nn.MultiheadAttention`` in a module into :class:`SelfAttention`, in place.

    Those with options of torch that no DETR uses stay as they are.
    """
    for part in module.modules():
        if type(part) is nn.MultiheadAttention and _has_usual_options(part):
            part.__class__ = SelfAttention


def _has_usual_options(attention: nn.MultiheadAttention) -> bool:
    return attention.in_proj_weight is not None and attention.bias_k is None and not attention.add_zero_attn
