"""Deformable-DETR with memory fusion and the refinements that came after it, and H-DETR on top."""

from typing import Dict, Tuple

from mmdet.models.detectors import DeformableDETR
from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from torch import Tensor, nn

from mmdet_stable.models.layers import LookForwardTwiceDecoder

from .memory_fusion import MemoryFusionDetector
from .one_to_many import OneToManyDetector


@MODELS.register_module()
class StableDeformableDETR(OneToManyDetector, MemoryFusionDetector, DeformableDETR):
    """mmdet's ``DeformableDETR`` of any width; stable matching lives in its head.

    A checkpoint of mmdet's ``DeformableDETR`` loads into it, where none of the additions is on.

    Args:
        encoder: as in mmdet, plus ``fusion``, see :class:`MemoryFusionDetector`.
        one_to_many: see :class:`OneToManyDetector`.
        mixed_selection: for two-stage detectors: the content of queries is learned, only their position comes from
            the encoder's proposals (arXiv:2203.03605).
        look_forward_twice: for detectors that refine boxes: the gradient of a layer's boxes reaches the layer before
            (arXiv:2203.03605).
        Others: as in mmdet.

    Raises:
        ValueError: for ``mixed_selection`` without ``as_two_stage``, or ``look_forward_twice`` without
            ``with_box_refine``.

    Source: arXiv:2010.04159; arXiv:2304.04742 Table 5.
    """

    def __init__(self, *args, mixed_selection: bool = False, look_forward_twice: bool = False, **kwargs) -> None:
        if mixed_selection and not kwargs.get('as_two_stage'):
            raise ValueError('mixed_selection=True selects positions among encoder proposals: set as_two_stage=True')
        if look_forward_twice and not kwargs.get('with_box_refine'):
            raise ValueError('look_forward_twice=True looks at refined boxes: set with_box_refine=True')
        self.mixed_selection = mixed_selection
        self.look_forward_twice = look_forward_twice
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        decoder = self.decoder
        super()._init_layers()
        if self.look_forward_twice:
            self.decoder = LookForwardTwiceDecoder(**decoder)
        if self.mixed_selection:
            self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)

    def pre_decoder(self, memory: Tensor, memory_mask: Tensor, spatial_shapes: Tensor) -> Tuple[Dict, Dict]:
        """mmdet's, with the learned content where configured."""
        queries, head_inputs = super().pre_decoder(memory, memory_mask, spatial_shapes)
        if self.mixed_selection:
            queries['query'] = self.query_embedding.weight.expand(len(memory), -1, -1)
        return queries, head_inputs

    def get_proposal_pos_embed(self, proposals: Tensor) -> Tensor:
        """(B, Q, 2 * D) sine encoding of boxes (B, Q, 4) before the sigmoid, at this detector's width."""
        return super().get_proposal_pos_embed(proposals, num_pos_feats=self.embed_dims // 2)


@MODELS.register_module()
class HDeformableDETR(StableDeformableDETR):
    """H-Deformable-DETR: :class:`StableDeformableDETR` with one-to-many queries and the settings it is published with.

    Args:
        one_to_many: as in :class:`OneToManyDetector`, but needed.
        Others: as in :class:`StableDeformableDETR`; mixed selection and looking forward twice are on by default.

    Source: arXiv:2207.13080.
    """

    def __init__(
        self,
        *args,
        one_to_many: ConfigType,
        as_two_stage: bool = True,
        with_box_refine: bool = True,
        mixed_selection: bool = True,
        look_forward_twice: bool = True,
        **kwargs,
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
