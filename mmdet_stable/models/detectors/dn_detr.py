"""DN-DETR: DAB-DETR with query denoising."""

from typing import Dict, Tuple

from mmdet.models.detectors import DABDETR
from mmdet.registry import MODELS
from torch import Tensor

from .denoising import DenoisingDetector


@MODELS.register_module()
class DNDETR(DenoisingDetector, DABDETR):
    """mmdet's ``DABDETR``, trained with denoising queries; see :class:`DenoisingDetector`.

    At test time it is a DAB-DETR with one learned pattern: the label embedding of "unknown", with the indicator 0, is
    the content of every query.

    Raises:
        ValueError: with ``num_patterns``, which the paper does not combine with denoising.

    Source: arXiv:2203.01305.
    """

    def __init__(self, *args, **kwargs) -> None:
        if kwargs.get('num_patterns'):
            raise ValueError(
                f'num_patterns={kwargs["num_patterns"]}: DNDETR gives queries their content itself, set it to 0'
            )
        super().__init__(*args, **kwargs)

    def pre_decoder(self, memory: Tensor) -> Tuple[Dict, Dict]:
        """mmdet's, with the content of "unknown" queries in place of zeros."""
        if not self.dn_query_generator.indicator:
            return super().pre_decoder(memory)
        batch_size = len(memory)
        anchors = self.query_embedding.weight.expand(batch_size, -1, -1)
        query = self.dn_query_generator.matching_content().expand(batch_size, self.num_queries, -1)
        return dict(query_pos=anchors, query=query, memory=memory), {}
