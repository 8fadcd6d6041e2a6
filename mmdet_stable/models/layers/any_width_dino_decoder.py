"""DINO decoder of any embedding width."""

from typing import Optional, Tuple

import torch
from mmdet.models.layers import DinoTransformerDecoder, coordinate_to_encoding, inverse_sigmoid
from torch import Tensor, nn


class AnyWidthDinoDecoder(DinoTransformerDecoder):
    """mmdet's DINO decoder, whose query positions are encoded with half the embedding width instead of a fixed 128.

    At width 256 it computes what mmdet's does. The width must be divisible by 4: half of it encodes each box
    coordinate, in pairs of sine and cosine. A subclass may set another ``logit_eps``, the epsilon of the inverse
    sigmoid of reference boxes.
    """

    logit_eps = 1e-3

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.embed_dims % 4:
            raise ValueError(
                f'decoder embed_dims={self.embed_dims}: the encoding of box coordinates needs a multiple of 4'
            )
        if not self.return_intermediate:
            raise ValueError('decoder.return_intermediate=False: DINO supervises every decoder layer, set it to True')

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor],
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        reg_branches: nn.ModuleList,
        self_attn_mask: Optional[Tensor] = None,
        **kwargs,
    ) -> Tuple[Tensor, Tensor]:
        """Decode Q queries against N memory tokens on L levels.

        Args:
            query: (B, Q, D).
            value: (B, N, D) memory.
            key_padding_mask: (B, N) bool, True for padding.
            reference_points: (B, Q, 4) initial boxes, normalised cxcywh.
            spatial_shapes: (L, 2) height and width of each level.
            level_start_index: (L,).
            valid_ratios: (B, L, 2) share of the padded width and height that the image covers.
            reg_branches: one box branch per layer; further ones are not used.
            self_attn_mask: (Q, Q) or (B * heads, Q, Q) bool, True where attention is forbidden; None allows all.

        Returns:
            Normalised states of K layers (K, B, Q, D), and K + 1 reference boxes (K + 1, B, Q, 4), the initial ones
            first. Each layer starts from detached boxes, while the returned ones keep their gradient ("look forward
            twice").
        """
        states, references = [], [reference_points]
        scale = torch.cat([valid_ratios, valid_ratios], -1)[:, None]
        for index, (layer, reg_branch) in enumerate(zip(self.layers, reg_branches)):
            scaled_points = reference_points[:, :, None] * scale
            encoding = coordinate_to_encoding(scaled_points[:, :, 0], num_feats=self.embed_dims // 2)
            query = layer(
                query,
                query_pos=self.query_position(index, query, encoding),
                value=value,
                key_padding_mask=key_padding_mask,
                self_attn_mask=self_attn_mask,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=scaled_points,
                **kwargs,
            )
            refined = (reg_branch(query) + inverse_sigmoid(reference_points, eps=self.logit_eps)).sigmoid()
            states.append(self.norm(query))
            references.append(refined)
            reference_points = refined.detach()
        return torch.stack(states), torch.stack(references)

    def query_position(self, index: int, query: Tensor, encoding: Tensor) -> Tensor:
        """(B, Q, D) position of layer ``index``'s queries, from the encoding (B, Q, 2 * D) of their boxes."""
        return self.ref_point_head(encoding)
