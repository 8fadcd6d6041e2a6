"""One-to-many queries (H-DETR): several queries learn from each ground truth, and are gone at test time."""

from typing import Dict, Optional

import torch
from mmdet.utils import ConfigType
from torch import Tensor

from mmdet_stable.structures import OneToMany

from .self_attention_mask import self_attention_mask


class OneToManyDetector:
    """To be inherited from before one of mmdet's detectors with deformable decoder; needs a head of this package.

    ``num_queries`` one-to-one queries are followed by the one-to-many queries, which are selected, or learned, the same
    way: the encoder's best proposals become one-to-one queries, the next best one-to-many queries. Neither sees the
    other in self-attention.

    Args:
        one_to_many: settings of :class:`OneToMany`, e.g. ``dict(num_queries=1500, num_copies=6, loss_weight=1.0)``;
            None trains without.
        Others: as in mmdet.

    Source: arXiv:2207.13080 Sec. 3.2, hybrid branch scheme.
    """

    def __init__(
        self, *args, num_queries: int, bbox_head: ConfigType, one_to_many: Optional[ConfigType] = None, **kwargs
    ) -> None:
        self.num_one_to_one = num_queries
        if one_to_many:
            num_queries += OneToMany(**one_to_many).checked().num_queries
            bbox_head = dict(bbox_head, one_to_many=one_to_many)
        super().__init__(*args, num_queries=num_queries, bbox_head=bbox_head, **kwargs)

    def forward_decoder(self, **inputs) -> Dict:
        """mmdet's, with the two kinds of queries hidden from each other; at test time without one-to-many queries."""
        num_one_to_many = self.num_queries - self.num_one_to_one
        mask = None
        if self.training and num_one_to_many:
            query = inputs['query']
            mask = one_to_many_attention_mask(query.shape[1], self.num_one_to_one, num_one_to_many, query.device)
        elif num_one_to_many:
            for name in {'query', 'query_pos', 'reference_points'} & inputs.keys():
                inputs[name] = inputs[name][:, : self.num_one_to_one]
        with self_attention_mask(self.decoder.layers, 'self_attn_mask', mask):
            return super().forward_decoder(**inputs)


def one_to_many_attention_mask(
    num_queries: int, num_one_to_one: int, num_one_to_many: int, device: Optional[torch.device] = None
) -> Tensor:
    """Who must not see whom in the decoder's self-attention; one-to-many queries come last, one-to-one before them.

    Denoising queries, in front of both, are not restricted here.

    Returns:
        (num_queries, num_queries) bool; True forbids the query of the row to see that of the column.
    """
    index = torch.arange(num_queries, device=device)
    one_to_many = index >= num_queries - num_one_to_many
    one_to_one = ~one_to_many & (index >= num_queries - num_one_to_many - num_one_to_one)
    return (one_to_many[:, None] & one_to_one) | (one_to_one[:, None] & one_to_many)
