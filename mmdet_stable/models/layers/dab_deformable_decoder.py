"""Decoder of DAB-Deformable-DETR."""

from typing import Tuple

from mmdet.models.layers import MLP
from torch import Tensor, nn

from .any_width_dino_decoder import AnyWidthDinoDecoder


class DABDeformableDecoder(AnyWidthDinoDecoder):
    """DINO's decoder but for three things: from the second layer on, the content of a query scales its position; states
    are not normalised; and a layer's boxes get no gradient from the layer behind it.

    Source: arXiv:2201.12329 (DAB-DETR), on deformable attention.
    """

    def _init_layers(self) -> None:
        super()._init_layers()
        self.norm = nn.Identity()
        self.query_scale = MLP(self.embed_dims, self.embed_dims, self.embed_dims, 2)

    def forward(self, *args, **kwargs) -> Tuple[Tensor, Tensor]:
        """As :meth:`AnyWidthDinoDecoder.forward`; only the initial reference boxes keep their gradient."""
        states, references = super().forward(*args, **kwargs)
        initial, refined = references[:1], references[1:]
        return states, [*initial, *refined.detach()]

    def query_position(self, index: int, query: Tensor, encoding: Tensor) -> Tensor:
        position = super().query_position(index, query, encoding)
        return position if index == 0 else position * self.query_scale(query)
