"""DN-DETR: DAB-DETR with query denoising, and the same for Conditional DETR."""

from typing import Dict

from mmdet.models.detectors import DABDETR, ConditionalDETR
from mmdet.models.layers import MLP, coordinate_to_encoding
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


@MODELS.register_module()
class DNConditionalDETR(DenoisingDetector, ConditionalDETR):
    """mmdet's ``ConditionalDETR``, trained with denoising queries; see :class:`DenoisingDetector`.

    Its queries are no boxes: an MLP on the sine encoding of the noised box gives the position of a denoising query, and
    the decoder derives the reference point from that, as for its own queries.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.box_position = MLP(2 * self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def denoising_positions(self, boxes: Tensor) -> Dict[str, Tensor]:
        encoding = coordinate_to_encoding(boxes.sigmoid(), num_feats=self.embed_dims // 2)
        return dict(query_pos=self.box_position(encoding))
