"""DDQ-DETR with memory fusion."""

from typing import Any, Dict, Optional, Tuple

import torch
from mmdet.models.detectors import DDQDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.models.layers.transformer.ddq_detr_layers import DDQTransformerDecoder
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import ConfigType
from torch import Tensor, nn

from mmdet_stable.models.dense_heads import SetLossHead
from mmdet_stable.models.layers import (
    DinoDecoder,
    DistinctSelection,
    LevelSizes,
    MemoryFusionEncoder,
    anchors_unact,
    distinct_boxes,
    sizes_on_host,
)
from mmdet_stable.models.losses import PositionSupervisedLoss

from .base import StableDetector


class DDQDecoder(DinoDecoder, DDQTransformerDecoder):
    """Decoder of DDQ-DETR of any width: in training mmdet's, otherwise that of DINO, between whose layers distinct
    queries are selected.

    Attributes:
        distinct: chooses distinct queries, before each further layer among the queries, and before the first among the
            encoder's proposals; an export records it.
    """

    distinct: DistinctSelection = staticmethod(distinct_boxes)
    cache_dict: Dict[str, Any]  # mmdet's, shared by all modules of the detector

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """See :class:`DeformableDecoder`; in training, ``self_attn_mask`` is (T, T) bool for all T queries."""
        if self.training:
            return DDQTransformerDecoder.forward(self, *args, **kwargs)
        return super().forward(*args, **kwargs)

    def attention_mask(self, index: int, query: Tensor, boxes: Tensor, self_attn_mask: Optional[Tensor]) -> Tensor:
        if index > 0:
            assert self_attn_mask is not None
            return self.select_distinct_queries(boxes, query, self_attn_mask, index - 1)
        assert self_attn_mask is None
        self.cache_dict['distinct_query_mask'] = []
        batch, number, _ = query.shape
        return query.new_zeros(batch * self.cache_dict['num_heads'], number, number, dtype=torch.bool)

    def select_distinct_queries(
        self, reference_points: Tensor, query: Tensor, self_attn_mask: Tensor, layer_index: int
    ) -> Tensor:
        """Let queries that are not distinct see distinct ones alone, and be seen by those alone.

        As in mmdet, NMS chooses among the queries that the first query saw: among all of them if it was distinct
        itself, and otherwise among those that were.

        Args:
            reference_points: (B, T, 4) normalised boxes of all queries, Q matching ones among them.
            query: (B, T, D) their states after a layer.
            self_attn_mask: (B * heads, T, T) bool of that layer, True forbids.
            layer_index: the number of that layer.

        Returns:
            ``self_attn_mask`` for the next layer.
        """
        start, number = self.cache_dict['dis_query_info']
        heads = self.cache_dict['num_heads']
        part = slice(start, start + number)
        logits = self.cache_dict['cls_branches'][layer_index](query[:, part])
        chosen = self.distinct(
            bbox_cxcywh_to_xyxy(reference_points[:, part]),
            logits.amax(-1),
            ~self_attn_mask[::heads, start, part],
            number,
            self.cache_dict['dqs_cfg'],
        )
        is_distinct = (chosen[:, None] == torch.arange(number, device=chosen.device)[:, None]).any(-1)
        sees = (is_distinct[:, :, None] | is_distinct[:, None]).repeat_interleave(heads, 0)
        self.cache_dict['distinct_query_mask'].append(sees)  # for loss and predictions of mmdet's head
        self_attn_mask = self_attn_mask.clone()
        self_attn_mask[:, part, part] = ~sees
        return self_attn_mask


@MODELS.register_module()
class StableDDQDETR(StableDetector, DDQDETR):
    """DDQ-DETR, whose encoder may carry a memory fusion.

    Its flow and its head stay mmdet's, as its dense queries are known to them alone; the head takes our cost and
    assigner.

    Args:
        encoder: as in mmdet, plus ``fusion`` and ``num_cp`` of :class:`MemoryFusionEncoder`.
        Others: as in mmdet's ``DDQDETR`` and in :class:`StableDetector`.

    Raises:
        ValueError: for a head, loss or denoising generator of this package.

    Source: arXiv:2303.12776.
    """

    def __init__(self, *args: Any, dn_cfg: ConfigType, **kwargs: Any) -> None:
        if 'type' in dn_cfg:
            raise ValueError(
                f"dn_cfg.type={dn_cfg['type']!r}: DDQ-DETR denoises by mmdet's own generator, whose layout its head "
                'knows; leave dn_cfg as in mmdet'
            )
        super().__init__(*args, dn_cfg=dn_cfg, **kwargs)
        if isinstance(self.bbox_head, SetLossHead):
            raise ValueError(
                f'bbox_head.type={type(self.bbox_head).__name__!r}: DDQ-DETR needs its own DDQDETRHead for its dense '
                'queries; give that PositionModulatedFocalCost and StableHungarianAssigner instead'
            )
        if isinstance(self.bbox_head.loss_cls, PositionSupervisedLoss):
            raise ValueError(
                "bbox_head.loss_cls.type='PositionSupervisedLoss': DDQDETRHead does not hand the IoU of matched boxes "
                'to its loss; keep its FocalLoss, and take PositionModulatedFocalCost for the matching'
            )

    def _init_layers(self) -> None:
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = MemoryFusionEncoder(**self.encoder)
        self.decoder = DDQDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        self.query_embedding = None  # queries are made of the memory
        self.level_embed = nn.Parameter(torch.empty(self.num_feature_levels, self.embed_dims))
        self.memory_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
        self.memory_trans_norm = nn.LayerNorm(self.embed_dims)
        self.query_map = nn.Linear(self.embed_dims, self.embed_dims)

    def forward_transformer(
        self, img_feats: Tuple[Tensor, ...], batch_data_samples: OptSampleList = None
    ) -> Dict[str, Any]:
        """Run mmdet's flow, in which ``pre_decoder`` adds dense and denoising queries."""
        return DDQDETR.forward_transformer(self, img_feats, batch_data_samples)

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Optional[Tensor],
        spatial_shapes: LevelSizes,
        batch_data_samples: OptSampleList = None,
    ) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """What the decoder starts from; in training mmdet's. Where NMS keeps too few of the proposals, queries without
        content start in the middle of the image."""
        if self.training:
            return super().pre_decoder(memory, memory_mask, spatial_shapes, batch_data_samples)
        tokens, anchors = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        branch = self.decoder.num_layers
        boxes_unact = self.bbox_head.reg_branches[branch](tokens) + anchors
        logits = self.bbox_head.cls_branches[branch](tokens).amax(-1)
        chosen = self.decoder.distinct(
            bbox_cxcywh_to_xyxy(boxes_unact.sigmoid()),
            logits,
            torch.ones_like(logits, dtype=torch.bool),
            self.num_queries,
            self.dqs_cfg,
        )[..., None]
        query, boxes_unact = (
            values.gather(1, chosen.clamp(min=0).expand(-1, -1, values.shape[-1])).masked_fill(chosen < 0, 0.0)
            for values in (self.query_map(memory), boxes_unact)
        )
        self.decoder.cache_dict['dis_query_info'] = [0, self.num_queries]
        return dict(query=query, memory=memory, reference_points=boxes_unact.sigmoid(), dn_mask=None), {}

    def forward_decoder(
        self,
        query: Tensor,
        *,
        memory: Tensor,
        memory_mask: Optional[Tensor],
        dn_mask: Optional[Tensor] = None,
        **inputs: Any,
    ) -> Dict[str, Any]:
        """As :meth:`DeformableDetector.forward_decoder`; in training mmdet's."""
        if self.training:
            return super().forward_decoder(query, memory=memory, memory_mask=memory_mask, dn_mask=dn_mask, **inputs)
        states, references = self.decoder(
            query,
            value=memory,
            key_padding_mask=memory_mask,
            self_attn_mask=dn_mask,
            reg_branches=self.bbox_head.reg_branches,
            **inputs,
        )
        return dict(hidden_states=states, references=references)

    @property
    def distinct(self) -> DistinctSelection:
        """See :class:`DDQDecoder`."""
        return self.decoder.distinct

    @distinct.setter
    def distinct(self, choose: DistinctSelection) -> None:
        self.decoder.distinct = choose

    def detecting_queries(self) -> Tensor:
        """See :class:`StableDetector`: those that the first query sees in the last layer."""
        cache = self.decoder.cache_dict  # not its own: torch.export leaves each module a dictionary of its own
        sees: Tensor = cache['distinct_query_mask'][-1]
        return sees[:: cache['num_heads'], 0]

    def gen_encoder_output_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Tensor, Tensor]:
        """Tokens and anchors for proposals. Waits for the device once, not at every size as mmdet."""
        anchors, valid = anchors_unact(sizes_on_host(spatial_shapes), memory_mask, memory.device)
        tokens = self.memory_trans_norm(self.memory_trans_fc(memory.masked_fill(~valid, 0.0)))
        return tokens, anchors.expand(memory.shape[0], -1, -1)
