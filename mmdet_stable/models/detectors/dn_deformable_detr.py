"""DN-Deformable-DETR: DAB-Deformable-DETR with query denoising."""

from typing import Dict

from mmdet.registry import MODELS
from torch import Tensor, nn

from .dab_deformable_detr import DABDeformableDETR
from .denoising import DenoisingDetector


@MODELS.register_module()
class DNDeformableDETR(DenoisingDetector, DABDeformableDETR):
    """``DABDeformableDETR``, trained with denoising queries; see :class:`DenoisingDetector`.

    With the generator's indicator, the learned content of matching queries has one channel less, whose place the
    indicator 0 takes.

    Source: arXiv:2203.01305.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.dn_query_generator.indicator:
            self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims - 1)

    def marked_content(self, query: Tensor) -> Tensor:
        return nn.functional.pad(query, (0, 1))

    def denoising_positions(self, boxes: Tensor) -> Dict[str, Tensor]:
        return dict(reference_points=boxes.sigmoid())
