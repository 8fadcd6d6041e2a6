"""Decoders of any width with deformable cross-attention: of Deformable-DETR, DINO and DAB-Deformable-DETR."""

from typing import List, Optional, Tuple

import torch
from mmdet.models.layers import MLP, DeformableDetrTransformerDecoder, coordinate_to_encoding
from mmengine.model import ModuleList
from torch import Tensor, nn

from .box_refinement import refined_boxes
from .level_sizes import LevelSizes
from .transformer_layers import DeformableDecoderLayer


class DeformableDecoder(DeformableDetrTransformerDecoder):
    """Decoder of Deformable-DETR, which may refine boxes from layer to layer.

    Args:
        look_forward_twice: whether the gradient of a layer's boxes reaches the layer before; each layer starts from
            detached boxes in any case (arXiv:2203.03605 Sec. 3.5).
        sigmoid_eps: see :func:`refined_boxes`.
        Others: as in mmdet.

    Raises:
        ValueError: for ``return_intermediate=False``.

    Source: arXiv:2010.04159.
    """

    def __init__(self, *args, look_forward_twice: bool = False, sigmoid_eps: float = 1e-5, **kwargs) -> None:
        self.look_forward_twice = look_forward_twice
        self.sigmoid_eps = sigmoid_eps
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        require_all_layers(self.return_intermediate)
        if self.post_norm_cfg is not None:
            raise ValueError(f'decoder.post_norm_cfg={self.post_norm_cfg}: this decoder has none, set it to None')
        self.layers = ModuleList([DeformableDecoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims

    def forward(
        self,
        query: Tensor,
        value: Tensor,
        key_padding_mask: Optional[Tensor],
        reference_points: Tensor,
        spatial_shapes: LevelSizes,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        reg_branches: Optional[nn.ModuleList] = None,
        query_pos: Optional[Tensor] = None,
        self_attn_mask: Optional[Tensor] = None,
    ) -> Tuple[Tensor, List[Tensor]]:
        """Decode Q queries against N memory tokens on L levels.

        Args:
            query: (B, Q, D).
            value: (B, N, D) memory.
            key_padding_mask: (B, N) bool, True for padding.
            reference_points: (B, Q, 4) initial boxes, or (B, Q, 2) centres, normalised.
            spatial_shapes: (L, 2) height and width of each level.
            level_start_index: (L,).
            valid_ratios: (B, L, 2) share of the padded width and height that the image covers.
            reg_branches: at least one box branch per layer; None refines nothing.
            query_pos: (B, Q, D) position of the queries, where it does not follow from their boxes.
            self_attn_mask: see :meth:`QueryPlan.attention_mask`.

        Returns:
            States of K layers (K, B, Q, D), and K + 1 references (B, Q, 2 or 4): the initial ones, and what each layer
            makes of them.
        """
        states, references = [], [reference_points]
        for index, layer in enumerate(self.layers):
            self_attn_mask = self.attention_mask(index, query, reference_points, self_attn_mask)
            scale = valid_ratios.repeat(1, 1, reference_points.shape[-1] // 2)[:, None]
            scaled_points = reference_points[:, :, None] * scale
            query = layer(
                query,
                query_pos=self.query_position(index, query, scaled_points[:, :, 0], query_pos),
                value=value,
                key_padding_mask=key_padding_mask,
                self_attn_mask=self_attn_mask,
                spatial_shapes=spatial_shapes,
                level_start_index=level_start_index,
                valid_ratios=valid_ratios,
                reference_points=scaled_points,
            )
            states.append(self.normalised(query))
            if reg_branches is not None:
                refined = refined_boxes(reg_branches[index], query, reference_points, self.sigmoid_eps)
                reference_points = refined.detach()
                references.append(refined if self.look_forward_twice else reference_points)
            else:
                references.append(reference_points)
        return torch.stack(states), references

    def attention_mask(
        self, index: int, query: Tensor, boxes: Tensor, self_attn_mask: Optional[Tensor]
    ) -> Optional[Tensor]:
        """The mask of layer ``index``, by that of the layer before and the states (B, Q, D) and boxes that it made."""
        return self_attn_mask

    def query_position(self, index: int, query: Tensor, boxes: Tensor, query_pos: Optional[Tensor]) -> Optional[Tensor]:
        """(B, Q, D) position of layer ``index``'s queries, which lie at ``boxes`` (B, Q, 2 or 4)."""
        return query_pos

    def normalised(self, query: Tensor) -> Tensor:
        """The state of a layer, (B, Q, D), as the head gets it."""
        return query


class DinoDecoder(DeformableDecoder):
    """Decoder of DINO: the position of a query is the encoding of its box.

    mmdet's has a fixed width of 256; this one takes any that is divisible by 4, as half of it encodes each box
    coordinate, in pairs of sine and cosine.

    Source: arXiv:2203.03605.
    """

    def __init__(self, *args, look_forward_twice: bool = True, sigmoid_eps: float = 1e-3, **kwargs) -> None:
        super().__init__(*args, look_forward_twice=look_forward_twice, sigmoid_eps=sigmoid_eps, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.embed_dims % 4:
            raise ValueError(
                f'decoder embed_dims={self.embed_dims}: the encoding of box coordinates needs a multiple of 4'
            )
        self.ref_point_head = MLP(self.embed_dims * 2, self.embed_dims, self.embed_dims, 2)
        self.norm: nn.Module = nn.LayerNorm(self.embed_dims)

    def query_position(self, index: int, query: Tensor, boxes: Tensor, query_pos: Optional[Tensor]) -> Tensor:
        encoding = coordinate_to_encoding(boxes, num_feats=self.embed_dims // 2)
        return self.ref_point_head(encoding.to(query.dtype))

    def normalised(self, query: Tensor) -> Tensor:
        return self.norm(query)


class DABDeformableDecoder(DinoDecoder):
    """Decoder of DAB-Deformable-DETR, where the content of a query scales its position from the second layer on.

    Unlike in DINO, states are not normalised, and a layer's boxes get no gradient from the layer behind it.

    Source: arXiv:2201.12329 (DAB-DETR), on deformable attention.
    """

    def __init__(self, *args, look_forward_twice: bool = False, **kwargs) -> None:
        super().__init__(*args, look_forward_twice=look_forward_twice, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.norm = nn.Identity()
        self.query_scale = MLP(self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def query_position(self, index: int, query: Tensor, boxes: Tensor, query_pos: Optional[Tensor]) -> Tensor:
        position = super().query_position(index, query, boxes, query_pos)
        return position if index == 0 else position * self.query_scale(query)


def require_all_layers(return_intermediate: bool) -> None:
    """Raise ``ValueError`` for a decoder that would return its last layer alone."""
    if not return_intermediate:
        raise ValueError('decoder.return_intermediate=False: every decoder layer is supervised, set it to True')
