"""DN-DETR: DAB-DETR with query denoising, and the same for Conditional DETR."""

from typing import Any, Dict, Optional, Tuple

from mmdet.models.dense_heads import ConditionalDETRHead, DABDETRHead
from mmdet.models.detectors import DABDETR, ConditionalDETR
from mmdet.models.layers import MLP, SinePositionalEncoding, coordinate_to_encoding
from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from torch import Tensor, nn

from mmdet_stable.models.layers import (
    ConditionalDecoder,
    ConditionalEncoder,
    DABDecoder,
    DABEncoder,
    DNQueryGenerator,
)

from .base import StableDetector


@MODELS.register_module()
class DNDETR(StableDetector, DABDETR):
    """DAB-DETR, trained with denoising queries.

    At test time it is a DAB-DETR with one learned pattern: the label embedding of "unknown", with the indicator 0, is
    the content of every query. Where a checkpoint of DAB-DETR is loaded, that starts at zero, as DAB-DETR has it.

    Args:
        dn_cfg: settings of ``DNQueryGenerator``, e.g. ``dict(num_groups=5)``.
        num_patterns: P, as in mmdet's ``DABDETR``: each anchor has P queries, to whose content a learned pattern is
            added, as in the released code.
        Others: as in mmdet's ``DABDETR``.

    Source: arXiv:2203.01305.
    """

    head_type = DABDETRHead

    def __init__(self, *args: Any, dn_cfg: ConfigType, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.num_one_to_one *= max(self.num_patterns, 1)
        self.dn_query_generator: DNQueryGenerator = self.build_dn_query_generator(dn_cfg)

    def _init_layers(self) -> None:
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = DABEncoder(**self.encoder)
        self.decoder = DABDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        self.query_embedding = nn.Embedding(self.num_queries, self.decoder.query_dim)
        if self.num_patterns:
            self.patterns = nn.Embedding(self.num_patterns, self.embed_dims)

    def pre_decoder(self, memory: Tensor) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
        """Learned anchors, with the embedding of "unknown" as their content, or zeros without the indicator; all
        anchors once with each pattern."""
        anchors = self.query_embedding.weight
        content = self.dn_query_generator.unknown_content.expand(self.num_one_to_one, -1)
        if self.num_patterns:
            anchors = anchors.repeat(self.num_patterns, 1)
            content = content + self.patterns.weight.repeat_interleave(self.num_queries, 0)
        queries = dict(query=content, query_pos=anchors)
        return dict({name: value.expand(memory.shape[0], -1, -1) for name, value in queries.items()}, memory=memory), {}

    def denoising_positions(self, boxes_unact: Tensor) -> Dict[str, Tensor]:
        return dict(query_pos=boxes_unact)

    def forward_decoder(
        self,
        query: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        memory_mask: Optional[Tensor],
        memory_pos: Tensor,
        self_attn_mask: Optional[Tensor] = None,
    ) -> Dict[str, Any]:
        """``hidden_states`` (K, B, Q, D), and the ``references`` (K, B, Q, 4) that they start from."""
        states, references = self.decoder(
            query=query,
            key=memory,
            query_pos=query_pos,
            key_pos=memory_pos,
            reg_branches=self.bbox_head.box_branch,
            key_padding_mask=memory_mask,
            self_attn_mask=self_attn_mask,
        )
        return dict(hidden_states=states, references=references)


@MODELS.register_module()
class DNConditionalDETR(StableDetector, ConditionalDETR):
    """Conditional DETR, trained with denoising queries.

    Its queries are no boxes: an MLP on the sine encoding of the noised box gives the position of a denoising query, and
    the decoder derives the reference point from that, as for its own queries.

    Args:
        dn_cfg: settings of ``DNQueryGenerator``, e.g. ``dict(num_groups=5)``.
        Others: as in mmdet's ``ConditionalDETR``.

    Source: arXiv:2108.06152; arXiv:2203.01305.
    """

    head_type = ConditionalDETRHead

    def __init__(self, *args: Any, dn_cfg: ConfigType, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.dn_query_generator: DNQueryGenerator = self.build_dn_query_generator(dn_cfg)
        self.box_position = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def _init_layers(self) -> None:
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = ConditionalEncoder(**self.encoder)
        self.decoder = ConditionalDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)

    def pre_decoder(self, memory: Tensor) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
        """Learned positions, with the embedding of "unknown" as their content, or zeros without the indicator."""
        position = self.query_embedding.weight.expand(memory.shape[0], -1, -1)
        content = self.dn_query_generator.unknown_content.expand_as(position)
        return dict(query=content, query_pos=position, memory=memory), {}

    def denoising_positions(self, boxes_unact: Tensor) -> Dict[str, Tensor]:
        encoding = coordinate_to_encoding(boxes_unact.sigmoid(), num_feats=self.embed_dims // 2)
        return dict(query_pos=self.box_position(encoding))

    def forward_decoder(
        self,
        query: Tensor,
        query_pos: Tensor,
        memory: Tensor,
        memory_mask: Optional[Tensor],
        memory_pos: Tensor,
        self_attn_mask: Optional[Tensor] = None,
    ) -> Dict[str, Any]:
        """``hidden_states`` (K, B, Q, D), and the reference points (B, Q, 2) that all of them look around."""
        states, references = self.decoder(
            query=query,
            key=memory,
            query_pos=query_pos,
            key_pos=memory_pos,
            key_padding_mask=memory_mask,
            self_attn_mask=self_attn_mask,
        )
        return dict(hidden_states=states, references=references)
