"""Deformable-DETR with memory fusion and the refinements that came after it, and H-DETR on top."""

from typing import Any, Dict, Optional, Tuple

from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from mmengine.model import xavier_init
from torch import Tensor, nn

from mmdet_stable.models.layers import DeformableDecoder, LevelSizes, at_least_float32

from .deformable import DeformableDetector


@MODELS.register_module()
class StableDeformableDETR(DeformableDetector):
    """Deformable-DETR of any width: plain, with refined boxes, or in two stages; stable matching lives in its head.

    A checkpoint of mmdet's ``DeformableDETR`` loads into it, where none of the additions is on.

    Args:
        encoder: see :class:`DeformableDetector`.
        one_to_many: settings of :class:`OneToMany`, e.g. ``dict(num_queries=1500, num_copies=6, loss_weight=1.0)``;
            None trains without.
        mixed_selection: for two-stage detectors: the content of queries is learned, only their position comes from
            the encoder's proposals (arXiv:2203.03605).
        look_forward_twice: for detectors that refine boxes: the gradient of a layer's boxes reaches the layer before
            (arXiv:2203.03605).
        Others: as in mmdet's ``DeformableDETR``.

    Raises:
        ValueError: for ``mixed_selection`` without ``as_two_stage``, or ``look_forward_twice`` without
            ``with_box_refine``; see also :class:`DeformableDetector`.

    Source: arXiv:2010.04159; arXiv:2304.04742 Table 5.
    """

    def __init__(
        self, *args: Any, mixed_selection: bool = False, look_forward_twice: bool = False, **kwargs: Any
    ) -> None:
        if mixed_selection and not kwargs.get('as_two_stage'):
            raise ValueError('mixed_selection=True selects positions among encoder proposals: set as_two_stage=True')
        if look_forward_twice and not kwargs.get('with_box_refine'):
            raise ValueError('look_forward_twice=True looks at refined boxes: set with_box_refine=True')
        self.mixed_selection = mixed_selection
        self.look_forward_twice = look_forward_twice
        super().__init__(*args, **kwargs)

    def build_decoder(self, cfg: ConfigType) -> DeformableDecoder:
        return DeformableDecoder(look_forward_twice=self.look_forward_twice, **cfg)

    def init_queries(self) -> None:
        if not self.as_two_stage:
            self.query_embedding = nn.Embedding(self.num_queries, 2 * self.embed_dims)  # position and content
            self.reference_points_fc = nn.Linear(self.embed_dims, 2)
            return
        self.init_proposals()
        self.pos_trans_fc = nn.Linear(2 * self.embed_dims, 2 * self.embed_dims)
        self.pos_trans_norm = nn.LayerNorm(2 * self.embed_dims)
        if self.mixed_selection:
            self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)

    def init_weights(self) -> None:
        super().init_weights()
        if self.as_two_stage:
            nn.init.xavier_uniform_(self.pos_trans_fc.weight)
        else:
            xavier_init(self.reference_points_fc, distribution='uniform', bias=0.0)

    def pre_decoder(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
        """Learned queries or, in two stages, those made of the encoder's best proposals, and proposals for the head."""
        if not self.as_two_stage:
            learned = self.query_embedding.weight[: self.num_matching_queries].expand(memory.shape[0], -1, -1)
            query_pos, query = learned.chunk(2, dim=-1)
            reference_points = at_least_float32(self.reference_points_fc(query_pos)).sigmoid()
            supervised = self.no_proposals()
        else:
            boxes_unact, supervised = self.select_proposals(memory, memory_mask, spatial_shapes)
            encoding = self.get_proposal_pos_embed(boxes_unact, num_pos_feats=self.embed_dims // 2)
            query_pos, query = self.pos_trans_norm(self.pos_trans_fc(encoding.to(memory.dtype))).chunk(2, dim=-1)
            reference_points = boxes_unact.sigmoid()
            if self.mixed_selection:
                query = self.query_embedding.weight[: self.num_matching_queries].expand(memory.shape[0], -1, -1)
        return dict(query=query, query_pos=query_pos, reference_points=reference_points, memory=memory), supervised


@MODELS.register_module()
class HDeformableDETR(StableDeformableDETR):
    """H-Deformable-DETR: Deformable-DETR with one-to-many queries and the settings it is published with.

    Args:
        one_to_many: as in :class:`StableDeformableDETR`, but needed.
        Others: as in :class:`StableDeformableDETR`; mixed selection and looking forward twice are on by default.

    Source: arXiv:2207.13080.
    """

    def __init__(
        self,
        *args: Any,
        one_to_many: ConfigType,
        as_two_stage: bool = True,
        with_box_refine: bool = True,
        mixed_selection: bool = True,
        look_forward_twice: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            *args,
            one_to_many=one_to_many,
            as_two_stage=as_two_stage,
            with_box_refine=with_box_refine,
            mixed_selection=mixed_selection,
            look_forward_twice=look_forward_twice,
            **kwargs,
        )
