"""Query denoising for the detectors of the DETR family whose decoder layers take a self-attention mask."""

from typing import Dict, Tuple

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList
from mmdet.utils import ConfigType
from torch import Tensor

from mmdet_stable.models.dense_heads import SetLossHead
from mmdet_stable.models.layers import DNQueryGenerator
from mmdet_stable.models.settings import check_detector
from mmdet_stable.utils import CheckedLoading

from .self_attention_mask import self_attention_mask, self_attention_mask_name


class DenoisingDetector(CheckedLoading):
    """To be inherited from before one of mmdet's DETR detectors: trains with denoising queries, which are gone at test
    time.

    Args:
        dn_cfg: settings of ``DNQueryGenerator``, e.g. ``dict(num_groups=5)``.
        Others: as in mmdet.

    Raises:
        ValueError: if the decoder's layers take no self-attention mask, or the head is none of this package, and as
            ``check_detector``.

    Source: arXiv:2203.01305.
    """

    def __init__(self, *args, dn_cfg: ConfigType, **kwargs) -> None:
        check_detector(type(self).__name__, kwargs)
        super().__init__(*args, **kwargs)
        self.mask_name = self_attention_mask_name(self.decoder.layers[0])
        self.dn_query_generator = build_dn_query_generator(self, dict(type='DNQueryGenerator', **dn_cfg))

    def forward_transformer(self, img_feats: Tuple[Tensor], batch_data_samples: OptSampleList = None) -> Dict:
        """mmdet's flow, with denoising queries in front of the matching ones during training."""
        encoder_inputs, decoder_inputs = self.pre_transformer(img_feats, batch_data_samples)
        queries, head_inputs = self.pre_decoder(**self.forward_encoder(**encoder_inputs))
        mask = None
        if self.training:
            content, boxes, mask, head_inputs['dn_meta'] = self.dn_query_generator(batch_data_samples)
            for name, value in dict(self.denoising_positions(boxes), query=content).items():
                queries[name] = torch.cat([value, queries[name]], 1)
        with self_attention_mask(self.decoder.layers, self.mask_name, mask):
            head_inputs.update(self.forward_decoder(**{**decoder_inputs, **queries}))
        return head_inputs

    def pre_decoder(self, *args, **kwargs) -> Tuple[Dict, Dict]:
        """mmdet's, with the content of matching queries marked as such."""
        queries, head_inputs = super().pre_decoder(*args, **kwargs)
        if self.dn_query_generator.indicator:
            queries['query'] = self.marked_content(queries['query'])
        return queries, head_inputs

    def marked_content(self, query: Tensor) -> Tensor:
        """Content (B, Q, D) of the matching queries, with the indicator 0 in the last channel.

        Here for detectors that start from zeros: the label embedding of "unknown".
        """
        return self.dn_query_generator.matching_content().expand_as(query)

    def denoising_positions(self, boxes: Tensor) -> Dict[str, Tensor]:
        """What the decoder takes as the positions of queries, for boxes (B, T, 4) before the sigmoid.

        Here for detectors whose ``query_pos`` are such boxes themselves.
        """
        return dict(query_pos=boxes)


def build_dn_query_generator(detector: DetectionTransformer, dn_cfg: ConfigType) -> DNQueryGenerator:
    """A generator with the sizes of the detector it belongs to.

    Raises:
        ValueError: for a head that would not know which ground truths are shown, and where.
    """
    if not isinstance(detector.bbox_head, SetLossHead):
        raise ValueError(
            f'{type(detector.bbox_head).__name__} cannot supervise the queries of DNQueryGenerator; use a head of '
            f'mmdet_stable, e.g. bbox_head.type="StableDABDETRHead" or "StableDINOHead"'
        )
    return MODELS.build(
        dict(
            dn_cfg,
            num_classes=detector.bbox_head.num_classes,
            embed_dims=detector.embed_dims,
            num_matching_queries=detector.num_queries,
            num_heads=detector.decoder.layers[0].self_attn.num_heads,
        )
    )
