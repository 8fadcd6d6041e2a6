"""Decoders of Conditional DETR and DAB-DETR, of any embedding width, which hide queries from each other."""

from typing import Optional, Tuple

import torch
from mmcv.cnn import build_norm_layer
from mmdet.models.layers import MLP, coordinate_to_encoding
from mmdet.models.layers.transformer.conditional_detr_layers import ConditionalDetrTransformerDecoder
from mmdet.models.layers.transformer.dab_detr_layers import DABDetrTransformerDecoder, DABDetrTransformerEncoder
from mmdet.models.layers.transformer.detr_layers import DetrTransformerEncoder
from mmengine.model import ModuleList
from torch import Tensor, nn

from .box_refinement import at_least_float32, refined_boxes
from .deformable_decoders import require_all_layers
from .transformer_layers import ConditionalDecoderLayer, DABDecoderLayer, EncoderLayer


class ConditionalEncoder(DetrTransformerEncoder):
    """Encoder of DETR and Conditional DETR.

    Raises:
        ValueError: for ``num_cp``.
    """

    def _init_layers(self) -> None:
        refuse_checkpointing(self.num_cp)
        self.layers = ModuleList([EncoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims


class DABEncoder(DABDetrTransformerEncoder):
    """Encoder of DAB-DETR, where the content of a token scales its position.

    Raises:
        ValueError: for ``num_cp``.
    """

    def _init_layers(self) -> None:
        refuse_checkpointing(self.num_cp)
        self.layers = ModuleList([EncoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims
        self.query_scale = MLP(self.embed_dims, self.embed_dims, self.embed_dims, 2)


class ConditionalDecoder(ConditionalDetrTransformerDecoder):
    """Decoder of Conditional DETR: each query looks around a reference point that follows from its position.

    Source: arXiv:2108.06152.
    """

    def _init_layers(self) -> None:
        require_all_layers(self.return_intermediate)
        self.layers = ModuleList([ConditionalDecoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims
        self.post_norm = build_norm_layer(self.post_norm_cfg, self.embed_dims)[1]
        self.query_scale = MLP(self.embed_dims, self.embed_dims, self.embed_dims, 2)
        self.ref_point_head = MLP(self.embed_dims, self.embed_dims, 2, 2)
        leave_out_later_positions(self.layers)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        query_pos: Tensor,
        key_pos: Tensor,
        key_padding_mask: Optional[Tensor] = None,
        self_attn_mask: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor]:
        """Decode Q queries against N memory tokens.

        Args:
            query, query_pos: (B, Q, D) content and position.
            key, key_pos: (B, N, D) memory and its position.
            key_padding_mask: (B, N) bool, True for padding.
            self_attn_mask: see :meth:`QueryPlan.attention_mask`.

        Returns:
            States of K layers (K, B, Q, D), normalised, and the reference points (B, Q, 2) in [0, 1].
        """
        references = at_least_float32(self.ref_point_head(query_pos)).sigmoid()
        sine_embed = coordinate_to_encoding(references, num_feats=self.embed_dims // 2)
        states = []
        for index, layer in enumerate(self.layers):
            query = layer(
                query,
                key=key,
                query_pos=query_pos,
                key_pos=key_pos,
                self_attn_masks=self_attn_mask,
                key_padding_mask=key_padding_mask,
                ref_sine_embed=sine_embed if index == 0 else sine_embed * self.query_scale(query),
                is_first=index == 0,
            )
            states.append(self.post_norm(query))
        return torch.stack(states), references


class DABDecoder(DABDetrTransformerDecoder):
    """Decoder of DAB-DETR: queries are boxes, which every layer refines and looks around.

    Args:
        sigmoid_eps: see :func:`refined_boxes`.
        Others: as in mmdet.

    Source: arXiv:2201.12329.
    """

    embed_dims: int

    def __init__(self, *args, sigmoid_eps: float = 1e-5, **kwargs) -> None:
        self.sigmoid_eps = sigmoid_eps
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        scales = dict(
            cond_elewise=lambda: MLP(self.embed_dims, self.embed_dims, self.embed_dims, 2),
            cond_scalar=lambda: MLP(self.embed_dims, self.embed_dims, 1, 2),
            fix_elewise=lambda: nn.Embedding(self.num_layers, self.embed_dims),
        )
        if self.query_scale_type not in scales or self.query_dim not in (2, 4):
            raise ValueError(
                f'decoder.query_scale_type={self.query_scale_type!r}, decoder.query_dim={self.query_dim}: known are '
                f'{list(scales)}, and 2 or 4'
            )
        if self.with_modulated_hw_attn and self.query_dim != 4:
            raise ValueError('decoder.with_modulated_hw_attn=True modulates by the size of boxes: set query_dim=4')
        require_all_layers(self.return_intermediate)
        self.layers = ModuleList([DABDecoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims
        self.post_norm = build_norm_layer(self.post_norm_cfg, self.embed_dims)[1]
        self.query_scale = scales[self.query_scale_type]()
        self.ref_point_head = MLP(self.query_dim // 2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)
        if self.with_modulated_hw_attn:
            self.ref_anchor_head = MLP(self.embed_dims, self.embed_dims, 2, 2)
        self.keep_query_pos = self.layers[0].keep_query_pos
        if not self.keep_query_pos:
            leave_out_later_positions(self.layers)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        query_pos: Tensor,
        key_pos: Tensor,
        reg_branches: nn.Module,
        key_padding_mask: Optional[Tensor] = None,
        self_attn_mask: Optional[Tensor] = None,
    ) -> Tuple[Tensor, Tensor]:
        """Decode Q queries against N memory tokens.

        Args:
            query: (B, Q, D) content.
            query_pos: (B, Q, 2 or 4) centres or boxes before the sigmoid.
            reg_branches: the box branch, which all layers share.
            Others: as in :meth:`ConditionalDecoder.forward`.

        Returns:
            States of K layers (K, B, Q, D), normalised, and the references (K, B, Q, 2 or 4) that they start from.
        """
        boxes = at_least_float32(query_pos).sigmoid()
        states, references = [], [boxes]
        for index, layer in enumerate(self.layers):
            encoding = coordinate_to_encoding(boxes, num_feats=self.embed_dims // 2)
            query = layer(
                query,
                key=key,
                query_pos=self.ref_point_head(encoding.to(query.dtype)),
                key_pos=key_pos,
                ref_sine_embed=self.centre_encoding(index, query, boxes, encoding),
                self_attn_masks=self_attn_mask,
                key_padding_mask=key_padding_mask,
                is_first=index == 0,
            )
            refined = refined_boxes(reg_branches, query, boxes, self.sigmoid_eps)[..., : self.query_dim]
            states.append(self.post_norm(query))
            references.append(refined)
            boxes = refined.detach()
        return torch.stack(states), torch.stack(references[:-1])

    def centre_encoding(self, index: int, query: Tensor, boxes: Tensor, encoding: Tensor) -> Tensor:
        """(B, Q, D) encoding of the centres by which layer ``index`` looks at the memory: scaled by the content, and
        modulated by the boxes' size."""
        centre = encoding[..., : self.embed_dims]
        if self.query_scale_type == 'fix_elewise':
            centre = centre * self.query_scale.weight[index]
        elif index > 0:
            centre = centre * self.query_scale(query)
        if not self.with_modulated_hw_attn:
            return centre
        width, height = (self.ref_anchor_head(query).sigmoid() / boxes[..., 2:]).split(1, dim=-1)
        y, x = centre.chunk(2, dim=-1)
        return torch.cat([y * height, x * width], -1)


def refuse_checkpointing(num_cp: int) -> None:
    """Raise ``ValueError`` for an encoder of a single map, whose layers keep little."""
    if num_cp > 0:
        raise ValueError(f'encoder.num_cp={num_cp}: only deformable encoders checkpoint their layers, leave it out')


def leave_out_later_positions(layers: ModuleList) -> None:
    """Only the first layer's cross-attention projects the position of queries; later on, their content holds it."""
    for layer in layers[1:]:
        layer.cross_attn.qpos_proj = None
