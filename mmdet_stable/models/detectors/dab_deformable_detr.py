"""DAB-Deformable-DETR, which mmdet does not have, and DN-Deformable-DETR on top."""

from typing import Any, Dict, Optional, Tuple

from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from torch import Tensor, nn

from mmdet_stable.models.layers import DABDeformableDecoder, LevelSizes, at_least_float32, marked

from .deformable import DeformableDetector


@MODELS.register_module()
class DABDeformableDETR(DeformableDetector):
    """Deformable-DETR of any width whose queries are boxes (4-D anchors), which every decoder layer refines.

    Args:
        encoder: see :class:`DeformableDetector`.
        as_two_stage: take the anchors from the encoder's best proposals instead of learning them. Content is learned
            per query in both cases.
        Others: as in mmdet's ``DeformableDETR``; ``with_box_refine`` is always on.

    Raises:
        ValueError: for ``with_box_refine=False``; see also :class:`DeformableDetector`.

    Source: arXiv:2201.12329, as combined with Deformable-DETR by its authors.
    """

    has_indicator = False  # whether the last channel of the content marks denoising queries

    def __init__(self, *args: Any, with_box_refine: bool = True, **kwargs: Any) -> None:
        if not with_box_refine:
            raise ValueError('with_box_refine=False: the anchors of DABDeformableDETR are refined by every layer')
        if 'one_to_many' in kwargs:
            raise TypeError(
                f"{type(self).__name__} got an unexpected keyword argument 'one_to_many': one-to-many queries are part "
                'of StableDeformableDETR and HDeformableDETR'
            )
        super().__init__(*args, with_box_refine=True, **kwargs)

    def build_decoder(self, cfg: ConfigType) -> DABDeformableDecoder:
        return DABDeformableDecoder(**cfg)

    def init_queries(self) -> None:
        self.init_proposals()
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims - self.has_indicator)
        if not self.as_two_stage:
            self.anchor_embedding = nn.Embedding(self.num_queries, 4)

    def pre_decoder(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: LevelSizes
    ) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
        """Content and anchors for the decoder, and encoder proposals for the head."""
        if self.as_two_stage:
            anchors, supervised = self.select_proposals(memory, memory_mask, spatial_shapes)
        else:
            anchors, supervised = self.anchor_embedding.weight.expand(memory.shape[0], -1, -1), self.no_proposals()
        query = self.query_embedding.weight.expand(memory.shape[0], -1, -1)
        if self.has_indicator:
            query = marked(query)
        return dict(query=query, reference_points=at_least_float32(anchors).sigmoid(), memory=memory), supervised


@MODELS.register_module()
class DNDeformableDETR(DABDeformableDETR):
    """DAB-Deformable-DETR, trained with denoising queries.

    With the generator's indicator, the learned content of matching queries has one channel less, whose place the
    indicator 0 takes.

    Args:
        dn_cfg: settings of ``DNQueryGenerator``, e.g. ``dict(num_groups=5)``.
        Others: as in :class:`DABDeformableDETR`.

    Source: arXiv:2203.01305.
    """

    def __init__(self, *args: Any, dn_cfg: ConfigType, **kwargs: Any) -> None:
        self.has_indicator = dn_cfg.get('indicator', True)
        super().__init__(*args, **kwargs)
        self.dn_query_generator = self.build_dn_query_generator(dn_cfg)
