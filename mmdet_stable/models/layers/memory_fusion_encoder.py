"""Deformable encoder that carries a memory fusion."""

from typing import Optional

import torch
from mmdet.models.layers import DeformableDetrTransformerEncoder
from mmdet.registry import MODELS
from mmdet.utils import OptConfigType
from mmengine.model import ModuleList
from torch import Tensor

from mmdet_stable.models.necks import MemoryFusion

from .level_sizes import LevelSizes, sizes_on_host
from .proposals import token_centres
from .transformer_layers import CheckpointedEncoderLayer, DeformableEncoderLayer


class MemoryFusionEncoder(DeformableDetrTransformerEncoder):
    """Deformable encoder of any width and depth, with a memory fusion chosen by config.

    Args:
        fusion: config of a memory fusion, e.g. ``dict(type='DenseMemoryFusion')``; width and depth are filled in here.
            None fuses nothing.
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
        if self.num_checkpointed > self.num_layers:
            raise ValueError(f'encoder.num_cp={self.num_checkpointed}: there are only {self.num_layers} layers')
        kinds = [CheckpointedEncoderLayer] * self.num_checkpointed
        kinds += [DeformableEncoderLayer] * (self.num_layers - self.num_checkpointed)
        self.layers = ModuleList([kind(**self.layer_cfg) for kind in kinds])
        self.embed_dims = self.layers[0].embed_dims
        self.fusion: Optional[MemoryFusion] = None
        if self.fusion_cfg is not None:
            self.fusion = MODELS.build(dict(self.fusion_cfg, embed_dims=self.embed_dims, num_layers=self.num_layers))

    def forward(
        self,
        query: Tensor,
        query_pos: Tensor,
        key_padding_mask: Tensor,
        spatial_shapes: LevelSizes,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        **kwargs,
    ) -> Tensor:
        """Encode N tokens of L levels.

        Args:
            query: (B, N, D) features from the neck, which are m_0 of the fusion.
            query_pos: (B, N, D) their positions.
            key_padding_mask: (B, N) bool, True for padding.
            spatial_shapes: (L, 2) height and width of each level.
            level_start_index: (L,).
            valid_ratios: (B, L, 2) share of the padded width and height that the image covers.

        Returns:
            (B, N, D) memory, fused where a fusion is configured.

        Raises:
            ValueError: if a fusion of one's own returns another shape.
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
        fused = self.fusion(memories)
        if fused.shape != query.shape:
            raise ValueError(
                f'{type(self.fusion).__name__} returned {tuple(fused.shape)}, but the memory is {tuple(query.shape)}: '
                '(images, tokens, channels)'
            )
        return fused

    @staticmethod
    def get_encoder_reference_points(spatial_shapes: LevelSizes, valid_ratios: Tensor, device: torch.device) -> Tensor:
        """(B, N, L, 2) reference points of all tokens, as mmdet's. Given sizes on the host, that waits for the device
        once, instead of at every size."""
        sizes = sizes_on_host(spatial_shapes)
        places = []
        for level, ((height, width), centres) in enumerate(zip(sizes, token_centres(sizes, device))):
            x, y = centres.unbind(1)
            wide, high = (valid_ratios[:, None, level] * edge for edge in (width, height))
            places.append(torch.stack([x / wide[..., 0], y / high[..., 1]], -1))
        return torch.cat(places, 1)[:, :, None] * valid_ratios[:, None]
