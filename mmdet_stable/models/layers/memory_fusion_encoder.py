"""Deformable encoder that carries a memory fusion."""

from typing import Union

import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder, DeformableDetrTransformerEncoderLayer
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType
from torch import Tensor
from torch.utils.checkpoint import checkpoint


class CheckpointedEncoderLayer(DeformableDetrTransformerEncoderLayer):
    """mmdet's layer, which keeps only its inputs for the backward pass, and computes itself again there."""

    def forward(self, *args, **kwargs) -> Tensor:
        if not self.training:
            return super().forward(*args, **kwargs)
        return checkpoint(super().forward, *args, use_reentrant=False, **kwargs)


class MemoryFusionEncoder(DeformableDetrTransformerEncoder):
    """mmdet's deformable encoder of any width and depth, with a memory fusion chosen by config.

    Args:
        fusion: config of a memory fusion, e.g. ``dict(type='DenseMemoryFusion')``; width and depth are filled in here.
            None leaves mmdet's encoder.
        num_cp: how many layers, from the first on, trade time for memory by activation checkpointing. It is torch's
            own, which needs no fairscale and works under DistributedDataParallel.
        Others: as in mmdet.

    Raises:
        ValueError: if ``num_cp`` exceeds the number of layers.
    """

    def __init__(self, *args, fusion: OptConfigType = None, num_cp: int = 0, **kwargs) -> None:
        self.fusion_cfg = fusion
        self.num_checkpointed = num_cp
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.num_checkpointed > self.num_layers:
            raise ValueError(f'encoder.num_cp={self.num_checkpointed}: there are only {self.num_layers} layers')
        for index in range(self.num_checkpointed):
            self.layers[index] = CheckpointedEncoderLayer(**self.layer_cfg)
        self.fusion = None
        if self.fusion_cfg is not None:
            self.fusion = MODELS.build(dict(self.fusion_cfg, embed_dims=self.embed_dims, num_layers=self.num_layers))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        **kwargs,
    ) -> Tensor:
        """As mmdet's encoder; ``query`` (B, N, D) holds the neck's features, and is m_0 of the fusion.

        Returns:
            (B, N, D) memory, fused where a fusion is configured.
        """
        if self.fusion is None:
            return super().forward(
                query, query_pos, key_padding_mask, spatial_shapes, level_start_index, valid_ratios, **kwargs
            )
        reference_points = self.get_encoder_reference_points(spatial_shapes, valid_ratios, device=query.device)
        memories = [query]
        for layer in self.layers:
            memories.append(
                layer(
                    query=self.fusion.layer_input(memories),
                    query_pos=query_pos,
                    key_padding_mask=key_padding_mask,
                    spatial_shapes=spatial_shapes,
                    level_start_index=level_start_index,
                    valid_ratios=valid_ratios,
                    reference_points=reference_points,
                    **kwargs,
                )
            )
        return self.fusion(memories)

    @staticmethod
    def get_encoder_reference_points(
        spatial_shapes: Tensor, valid_ratios: Tensor, device: Union[torch.device, str]
    ) -> Tensor:
        """mmdet's; waits for the device once, instead of at every size."""
        return DeformableDetrTransformerEncoder.get_encoder_reference_points(
            spatial_shapes.tolist(), valid_ratios, device
        )
