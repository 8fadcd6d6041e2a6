"""DDQ-DETR with memory fusion."""

from typing import Any, Dict, Optional, Tuple

import torch
from mmdet.models.detectors import DDQDETR
from mmdet.models.layers import MLP, SinePositionalEncoding
from mmdet.models.layers.transformer.ddq_detr_layers import DDQTransformerDecoder
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from mmdet.utils import ConfigType
from mmengine.model import ModuleList
from torch import Tensor, nn

from mmdet_stable.models.dense_heads import SetLossHead
from mmdet_stable.models.layers import (
    DeformableDecoderLayer,
    LevelSizes,
    MemoryFusionEncoder,
    sizes_on_host,
    with_enough_tokens,
)
from mmdet_stable.models.losses import PositionSupervisedLoss

from .base import StableDetector


class DDQDecoder(DDQTransformerDecoder):
    """Decoder of DDQ-DETR: mmdet's, with the attention of this package."""

    def _init_layers(self) -> None:
        self.layers = ModuleList([DeformableDecoderLayer(**self.layer_cfg) for _ in range(self.num_layers)])
        self.embed_dims = self.layers[0].embed_dims
        self.ref_point_head = MLP(self.embed_dims * 2, self.embed_dims, self.embed_dims, 2)
        self.norm = nn.LayerNorm(self.embed_dims)


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

    def gen_encoder_output_proposals(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Tensor, Tensor]:
        """Tokens and anchors for proposals. Waits for the device once, not at every size as mmdet; DDQ-DETR fills up
        missing queries itself."""
        if memory_mask is None:
            memory_mask = torch.zeros(memory.shape[:2], dtype=torch.bool, device=memory.device)
        return super().gen_encoder_output_proposals(
            *with_enough_tokens(memory, memory_mask, sizes_on_host(spatial_shapes), num_queries=0)
        )
