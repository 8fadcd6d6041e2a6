"""Encoder and decoder layers: those of mmdet, built of this package's attention."""

from mmcv.cnn import build_norm_layer
from mmcv.cnn.bricks.transformer import FFN
from mmdet.models.layers import (
    DeformableDetrTransformerDecoderLayer,
    DeformableDetrTransformerEncoderLayer,
    DetrTransformerDecoderLayer,
    DetrTransformerEncoderLayer,
)
from mmdet.models.layers.transformer.conditional_detr_layers import ConditionalDetrTransformerDecoderLayer
from mmdet.models.layers.transformer.dab_detr_layers import DABDetrTransformerDecoderLayer
from mmdet.utils import ConfigType
from mmengine.model import ModuleList
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .deformable_attention import DeformableAttention
from .self_attention import FusedConditionalAttention, SelfAttention


class EncoderLayer(DetrTransformerEncoderLayer):
    """Encoder layer of DETR, Conditional DETR and DAB-DETR: self-attention, then a feed-forward network."""

    def _init_layers(self) -> None:
        self.self_attn = SelfAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = norms(self.norm_cfg, self.embed_dims, 2)


class DeformableEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """Encoder layer of Deformable-DETR and DINO: deformable self-attention, then a feed-forward network."""

    def _init_layers(self) -> None:
        self.self_attn = DeformableAttention(**self.self_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = norms(self.norm_cfg, self.embed_dims, 2)


class CheckpointedEncoderLayer(DeformableEncoderLayer):
    """Encoder layer that keeps only its inputs for the backward pass, and computes itself again there."""

    def forward(self, *args, **kwargs) -> Tensor:
        if not self.training:
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)


class DeformableDecoderLayer(DeformableDetrTransformerDecoderLayer):
    """Decoder layer of Deformable-DETR and DINO: self-attention, deformable cross-attention, feed-forward network."""

    def _init_layers(self) -> None:
        self.self_attn = SelfAttention(**self.self_attn_cfg)
        self.cross_attn = DeformableAttention(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = norms(self.norm_cfg, self.embed_dims, 3)


class ConditionalAttentionLayer(DetrTransformerDecoderLayer):
    """What decoder layers of Conditional DETR and DAB-DETR consist of."""

    def _init_layers(self) -> None:
        self.self_attn = FusedConditionalAttention(**self.self_attn_cfg)
        self.cross_attn = FusedConditionalAttention(**self.cross_attn_cfg)
        self.embed_dims = self.self_attn.embed_dims
        self.ffn = FFN(**self.ffn_cfg)
        self.norms = norms(self.norm_cfg, self.embed_dims, 3)
        self.keep_query_pos = self.cross_attn.keep_query_pos


class ConditionalDecoderLayer(ConditionalAttentionLayer, ConditionalDetrTransformerDecoderLayer):
    """Decoder layer of Conditional DETR."""


class DABDecoderLayer(ConditionalAttentionLayer, DABDetrTransformerDecoderLayer):
    """Decoder layer of DAB-DETR."""


def norms(norm_cfg: ConfigType, embed_dims: int, number: int) -> ModuleList:
    """Normalisation layers of one transformer layer."""
    return ModuleList([build_norm_layer(norm_cfg, embed_dims)[1] for _ in range(number)])
