"""Stable-DINO: DINO with memory fusion; stable matching lives in its head."""

import warnings
from typing import Any, Dict, Optional, Tuple

from mmdet.models.dense_heads import DINOHead
from mmdet.models.layers import CdnQueryGenerator
from mmdet.registry import MODELS
from mmdet.utils import ConfigType, OptConfigType
from torch import Tensor, nn

from mmdet_stable.models.dense_heads import MaskDINOHead, SetLossHead
from mmdet_stable.models.layers import DinoDecoder, LevelSizes
from mmdet_stable.structures import QueryPlan

from .deformable import DeformableDetector


@MODELS.register_module()
class StableDINO(DeformableDetector):
    """DINO of any width, whose encoder may carry a memory fusion: queries of learned content start from the encoder's
    best proposals, and denoising queries are trained beside them.

    A checkpoint of mmdet's ``DINO`` loads into it without ``one_to_many``; only the weights of the fusion are missing
    then.

    Args:
        encoder: see :class:`DeformableDetector`.
        dn_cfg: settings of mmdet's ``CdnQueryGenerator``, as in mmdet's DINO, or with ``type='DNQueryGenerator'`` of
            that.
        one_to_many: settings of :class:`OneToMany`, e.g. ``dict(num_queries=1500, num_copies=6)``. In three independent
            trials this lowered the AP of DINO.
        Others: as in mmdet's ``DINO``.

    Raises:
        ValueError: without two stages or box refinement, and for ``dn_cfg.indicator``; see also
            :class:`DeformableDetector`.

    Source: arXiv:2304.04742; arXiv:2203.03605.
    """

    def __init__(
        self,
        *args: Any,
        dn_cfg: ConfigType,
        one_to_many: OptConfigType = None,
        as_two_stage: bool = True,
        with_box_refine: bool = True,
        **kwargs: Any,
    ) -> None:
        if not (as_two_stage and with_box_refine):
            raise ValueError(
                f'as_two_stage={as_two_stage}, with_box_refine={with_box_refine}: DINO needs both, leave them out'
            )
        if one_to_many:
            warnings.warn(
                'one_to_many lowered the AP of DINO where it was tried: 48.7 to 46.5 and 49.0 to 48.0 on COCO; it is '
                'made for Deformable-DETR (HDeformableDETR)',
                stacklevel=2,
            )
        super().__init__(*args, one_to_many=one_to_many, as_two_stage=True, with_box_refine=True, **kwargs)
        if 'type' not in dn_cfg:
            self.dn_query_generator = CdnQueryGenerator(
                num_classes=self.bbox_head.num_classes,
                embed_dims=self.embed_dims,
                num_matching_queries=self.num_queries,
                **dn_cfg,
            )
            return
        if dn_cfg.get('indicator'):
            raise ValueError('dn_cfg.indicator=True: matching queries of DINO are learned whole, leave it out')
        self.dn_query_generator = self.build_dn_query_generator(dict(dn_cfg, indicator=False))

    @classmethod
    def takes_head(cls, head: type) -> bool:
        return issubclass(head, DINOHead) and not issubclass(head, MaskDINOHead)

    def build_decoder(self, cfg: ConfigType) -> DinoDecoder:
        return DinoDecoder(**cfg)

    def init_queries(self) -> None:
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)
        self.init_proposals()

    def init_weights(self) -> None:
        super().init_weights()
        nn.init.xavier_uniform_(self.query_embedding.weight)

    def pre_decoder(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
        """Queries of learned content at the encoder's best proposals, and these proposals for the head."""
        boxes_unact, supervised = self.select_proposals(memory, memory_mask, spatial_shapes)
        query = self.query_embedding.weight[: self.num_matching_queries].expand(memory.shape[0], -1, -1)
        return dict(query=query, reference_points=boxes_unact.sigmoid(), memory=memory), supervised

    def plan_for_head(self, plan: QueryPlan) -> Dict[str, Any]:
        """The plan, or for mmdet's ``DINOHead`` the numbers of denoising queries and groups."""
        return super().plan_for_head(plan) if isinstance(self.bbox_head, SetLossHead) else dict(dn_meta=plan.dn_meta)
