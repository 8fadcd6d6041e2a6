"""What the detectors with deformable encoder and decoder have in common."""

from typing import Any, Dict, List, Optional, Tuple

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.dense_heads import DeformableDETRHead, DINOHead
from mmdet.models.detectors import DeformableDETR
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.models.layers import SinePositionalEncoding
from mmdet.utils import ConfigType, OptConfigType
from torch import Tensor, nn

from mmdet_stable.models.dense_heads import MaskDINOHead, SetLossHead
from mmdet_stable.models.layers import (
    DeformableDecoder,
    LevelSizes,
    MemoryFusionEncoder,
    Selection,
    anchors_unact,
    best_tokens,
    refined_proposals,
    sizes_on_host,
    with_enough_tokens,
)

from .base import StableDetector
from .one_to_many import OneToMany


class DeformableDetector(StableDetector, DeformableDETR):
    """A DETR of any width on several feature levels, whose encoder may carry a memory fusion.

    Args:
        encoder: as in mmdet, plus ``fusion`` and ``num_cp`` of :class:`MemoryFusionEncoder`, e.g.
            ``dict(fusion=dict(type='DenseMemoryFusion'), num_cp=6)``.
        Others: as in mmdet's ``DeformableDETR`` and in :class:`StableDetector`.

    Raises:
        ValueError: if the widths of encoder, decoder, head and positions differ.

    Source: arXiv:2010.04159.
    """

    head_type = DeformableDETRHead
    selection: Selection = staticmethod(best_tokens)  # which tokens queries start from; an export records it

    def __init__(self, *args: Any, one_to_many: OptConfigType = None, **kwargs: Any) -> None:
        self.one_to_many = OneToMany.from_cfg(one_to_many)
        super().__init__(*args, **kwargs)
        if self.one_to_many is not None:
            self.require_set_loss_head('one-to-many queries')

    @classmethod
    def takes_head(cls, head: type) -> bool:
        # mmdet's DINOHead takes numbers of denoising queries, and a MaskDINOHead takes mask features.
        others = issubclass(head, MaskDINOHead) or (issubclass(head, DINOHead) and not issubclass(head, SetLossHead))
        return super().takes_head(head) and not others

    def build_encoder(self, cfg: ConfigType) -> MemoryFusionEncoder:
        return MemoryFusionEncoder(**cfg)

    def build_decoder(self, cfg: ConfigType) -> DeformableDecoder:
        return DeformableDecoder(**cfg)

    def _init_layers(self) -> None:
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = self.build_encoder(self.encoder)
        self.decoder = self.build_decoder(self.decoder)
        self.embed_dims = self.encoder.embed_dims
        self._check_widths()
        self.level_embed = nn.Parameter(torch.empty(self.num_feature_levels, self.embed_dims))
        self.init_queries()

    def init_queries(self) -> None:
        """Create what content and positions of the queries come from, :meth:`init_proposals` among it.

        Optimisers number parameters in the order in which they are created, so that an interrupted training can only be
        resumed where that order stays.
        """
        raise NotImplementedError

    def init_proposals(self) -> None:
        """Create what two-stage detectors turn the memory into proposals by."""
        if self.as_two_stage:
            self.memory_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
            self.memory_trans_norm = nn.LayerNorm(self.embed_dims)

    def _check_widths(self) -> None:
        widths = dict(
            encoder=self.embed_dims,
            decoder=self.decoder.embed_dims,
            bbox_head=self.bbox_head.embed_dims,
            positional_encoding=2 * self.positional_encoding.num_feats,
        )
        if len(set(widths.values())) > 1:
            raise ValueError(
                f'embed_dims of the model differ: {widths}; set the same in encoder.layer_cfg, decoder.layer_cfg, '
                'bbox_head.embed_dims and neck.out_channels, and half of it in positional_encoding.num_feats'
            )

    def init_weights(self) -> None:
        # Not DeformableDETR's, which reaches for layers that not all of these detectors have.
        DetectionTransformer.init_weights(self)
        for parameter in [*self.encoder.parameters(), *self.decoder.parameters()]:
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        if self.as_two_stage:
            nn.init.xavier_uniform_(self.memory_trans_fc.weight)
        nn.init.normal_(self.level_embed)

    @property
    def class_agnostic_encoder(self) -> bool:
        """Whether proposals are ranked as objects of class 0: where the head supervises them as such."""
        is_agnostic: bool = getattr(self.bbox_head, 'class_agnostic_encoder', not isinstance(self.bbox_head, DINOHead))
        return is_agnostic

    def select_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Tensor, Dict[str, Optional[Tensor]]]:
        """The encoder's best proposals, one for each query.

        Args:
            memory: (B, N, D).
            memory_mask: (B, N) bool, True for padding.
            spatial_shapes: (L, 2) height and width of each level.

        Returns:
            (B, Q, 4) boxes before the sigmoid, detached; and, in training, what the head supervises:
            ``enc_outputs_class`` and ``enc_outputs_coord`` of all tokens where proposals are class-agnostic, otherwise
            of the best.
        """
        tokens, proposals = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        branch = self.decoder.num_layers  # the last; the branches before it belong to decoder layers
        logits = self.bbox_head.cls_branches[branch](tokens)
        boxes_unact = refined_proposals(self.bbox_head.reg_branches[branch], tokens, proposals)
        scores = logits[..., 0] if self.class_agnostic_encoder else logits.amax(-1)
        best = self.selection(scores, self.num_matching_queries)[..., None]
        best_boxes = boxes_unact.gather(1, best.expand(-1, -1, 4))
        if not self.training:
            return best_boxes, {}
        if not self.class_agnostic_encoder:
            logits, boxes_unact = logits.gather(1, best.expand(-1, -1, logits.shape[-1])), best_boxes
        return best_boxes.detach(), dict(enc_outputs_class=logits, enc_outputs_coord=boxes_unact.sigmoid())

    def no_proposals(self) -> Dict[str, Optional[Tensor]]:
        """What heads expect where queries are learned."""
        return dict(enc_outputs_class=None, enc_outputs_coord=None) if self.training else {}

    def gen_encoder_output_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Tensor, Tensor]:
        """Tokens (B, N, D) to predict from, and an anchor before the sigmoid (B, N, 4) for each, as in mmdet; also for
        images of fewer tokens than queries. Waits for the device once, not at every size."""
        memory, memory_mask, sizes = with_enough_tokens(
            memory, memory_mask, sizes_on_host(spatial_shapes), self.num_matching_queries
        )
        anchors, valid = anchors_unact(sizes, memory_mask, memory.device)
        tokens = self.memory_trans_norm(self.memory_trans_fc(memory.masked_fill(~valid, 0.0)))
        return tokens, anchors.expand(memory.shape[0], -1, -1)

    def denoising_positions(self, boxes_unact: Tensor) -> Dict[str, Tensor]:
        return dict(reference_points=boxes_unact.sigmoid())

    def forward_decoder(
        self,
        query: Tensor,
        *,
        memory: Tensor,
        memory_mask: Optional[Tensor],
        reference_points: Tensor,
        spatial_shapes: LevelSizes,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        query_pos: Optional[Tensor] = None,
        self_attn_mask: Optional[Tensor] = None,
    ) -> Dict[str, Any]:
        """``hidden_states`` (K, B, Q, D), and the K + 1 ``references`` (B, Q, 2 or 4) around them."""
        states: Tensor
        references: List[Tensor]
        states, references = self.decoder(
            query=query,
            query_pos=query_pos,
            value=memory,
            key_padding_mask=memory_mask,
            reference_points=reference_points,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
            reg_branches=self.bbox_head.reg_branches if self.with_box_refine else None,
            self_attn_mask=self_attn_mask,
        )
        return dict(hidden_states=states, references=references)
