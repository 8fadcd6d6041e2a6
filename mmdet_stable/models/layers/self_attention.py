"""Attention of the DETR family by torch's fused kernels, with one mask for all heads."""

from typing import Any, Optional, Tuple

import torch
from mmcv.cnn.bricks.transformer import MultiheadAttention
from mmdet.models.layers.transformer.utils import ConditionalAttention
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention


class SelfAttention(MultiheadAttention):
    """Multi-head self-attention with positions, dropout and residual connection.

    It has the arguments, parameters and results of mmcv's ``MultiheadAttention``, which asks torch for attention
    weights and throws them away: for these, torch leaves its fused kernels, and keeps a mask that differs between
    images once per head, as floats, in every layer.

    Raises:
        ValueError: for options of ``nn.MultiheadAttention`` that no DETR uses: other widths of keys and values, and
            keys that do not come from the input.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        attn = self.attn
        if attn.in_proj_weight is None or attn.bias_k is not None or attn.add_zero_attn:
            raise ValueError('SelfAttention: kdim, vdim, add_bias_kv and add_zero_attn are not for self-attention')

    def forward(
        self,
        query: Tensor,
        key: Optional[Tensor] = None,
        value: Optional[Tensor] = None,
        identity: Optional[Tensor] = None,
        query_pos: Optional[Tensor] = None,
        key_pos: Optional[Tensor] = None,
        attn_mask: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
        **kwargs: Any,
    ) -> Tensor:
        """Attention of Q queries to S keys, which are the queries where not given.

        Args:
            query: (B, Q, D), or (Q, B, D) without ``batch_first``; so all others. ``value`` is ``key`` where not
                given, ``key_pos`` is ``query_pos``, and ``identity``, of the residual connection, is ``query``.
            attn_mask: (Q, S), (B, 1, Q, S), or (B * heads, Q, S) with the same for all heads; bool, where True forbids,
                or added.
            key_padding_mask: (B, S) bool, True for keys that nobody sees.

        Returns:
            Of the shape of ``query``. Attention of a query that sees no key is zero, where torch gives NaN.
        """
        key = query if key is None else key
        value = key if value is None else value
        identity = query if identity is None else identity
        if key_pos is None and query_pos is not None and query_pos.shape == key.shape:
            key_pos = query_pos
        # Positions are float32, also in a model of half precision.
        query = query if query_pos is None else (query + query_pos).to(query.dtype)
        key = key if key_pos is None else (key + key_pos).to(key.dtype)
        weights = self.attn.in_proj_weight.chunk(3)
        bias = self.attn.in_proj_bias
        biases: Tuple[Optional[Tensor], ...] = (None, None, None) if bias is None else bias.chunk(3)
        projected = (linear(*inputs) for inputs in zip((query, key, value), weights, biases))
        query, key, value = (self._heads_apart(tokens) for tokens in projected)
        mask = attention_mask(attn_mask, key_padding_mask, self.num_heads)
        output = scaled_dot_product_attention(query, key, value, mask, self.attn.dropout if self.training else 0.0)
        output = output.transpose(1, 2) if self.batch_first else output.permute(2, 0, 1, 3)
        return identity + self.dropout_layer(self.proj_drop(self.attn.out_proj(output.flatten(2))))

    def _heads_apart(self, tokens: Tensor) -> Tensor:
        """(B, heads, Q, D / heads)."""
        tokens = tokens.unflatten(2, (self.num_heads, -1))
        return tokens.transpose(1, 2) if self.batch_first else tokens.permute(1, 2, 0, 3)


class FusedConditionalAttention(ConditionalAttention):
    """Attention of Conditional DETR and DAB-DETR, where content and position have projections of their own.

    It is mmdet's ``ConditionalAttention``, whose weights and results it has, but for how it attends.

    Source: arXiv:2108.06152.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        query_pos: Optional[Tensor] = None,
        ref_sine_embed: Optional[Tensor] = None,
        key_pos: Optional[Tensor] = None,
        **masks: Any,
    ) -> Tensor:
        """As in mmdet, with positions in the precision of the queries: those made of sines are float32, also in a model
        of half precision."""
        positions = dict(query_pos=query_pos, ref_sine_embed=ref_sine_embed, key_pos=key_pos)
        positions = {name: value if value is None else value.to(query.dtype) for name, value in positions.items()}
        return super().forward(query, key, **positions, **masks)

    def forward_attn(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Optional[Tensor] = None,
        key_padding_mask: Optional[Tensor] = None,
    ) -> Tuple[Tensor, None]:
        """Attention of (B, Q, E) to (B, S, E) with values (B, S, D), where E is D, or 2 * D in cross-attention; masks
        as in :class:`SelfAttention`. Returns (B, Q, D), and None in place of attention weights."""
        q, k, v = (tokens.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for tokens in (query, key, value))
        mask = attention_mask(attn_mask, key_padding_mask, self.num_heads)
        output = scaled_dot_product_attention(q, k, v, mask, self.attn_drop.p if self.training else 0.0)
        return self.out_proj(output.transpose(1, 2).flatten(2)), None


def attention_mask(attn_mask: Optional[Tensor], key_padding_mask: Optional[Tensor], num_heads: int) -> Optional[Tensor]:
    """One mask for torch's kernels, (Q, S) or (B, 1, Q or 1, S), from those of mmcv; see :class:`SelfAttention`.

    Returns:
        Bool, where True allows; or floats to be added.
    """
    if attn_mask is not None and attn_mask.dim() == 3:
        attn_mask = attn_mask.unflatten(0, (-1, num_heads))[:, :1]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = ~attn_mask
    if key_padding_mask is None:
        return attn_mask
    seen = ~key_padding_mask[:, None, None]
    if attn_mask is None:
        return seen
    return attn_mask & seen if attn_mask.dtype == torch.bool else attn_mask.masked_fill(~seen, float('-inf'))
