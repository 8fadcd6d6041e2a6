"""Stable-DINO: DINO with memory fusion; stable matching lives in its head."""

from typing import Dict, Optional, Tuple

from mmdet.models.detectors import DINO
from mmdet.registry import MODELS
from mmdet.utils import ConfigType
from torch import Tensor

from mmdet_stable.models.layers import AnyWidthDinoDecoder, MemoryFusionEncoder, with_enough_tokens
from mmdet_stable.utils import CheckedLoading

from .denoising import build_dn_query_generator


@MODELS.register_module()
class StableDINO(CheckedLoading, DINO):
    """mmdet's ``DINO`` of any width, whose encoder may carry a memory fusion.

    A checkpoint of mmdet's DINO loads into it; only the weights of the fusion are missing then.

    Args:
        encoder: as in mmdet, plus ``fusion``: config of a memory fusion, e.g. ``dict(type='DenseMemoryFusion')``.
        dn_cfg: as in mmdet, or with ``type='DNQueryGenerator'`` the settings of that.
        Others: as in mmdet.

    Raises:
        ValueError: if the widths of encoder, decoder and head differ, and, while loading, if a checkpoint's shapes do
            not fit.

    Source: arXiv:2304.04742.
    """

    def __init__(self, *args, dn_cfg: ConfigType, **kwargs) -> None:
        own = 'type' in dn_cfg
        super().__init__(*args, dn_cfg=dict(group_cfg=dict(num_dn_queries=1)) if own else dn_cfg, **kwargs)
        if own:
            if dn_cfg.get('indicator'):
                raise ValueError('dn_cfg.indicator=True: matching queries of DINO are learned whole, leave it out')
            self.dn_query_generator = build_dn_query_generator(self, dict(dn_cfg, indicator=False))

    def _init_layers(self) -> None:
        encoder, decoder = self.encoder, self.decoder
        self.encoder = {key: value for key, value in encoder.items() if key != 'fusion'}
        super()._init_layers()
        self.encoder = MemoryFusionEncoder(**encoder)
        self.decoder = AnyWidthDinoDecoder(**decoder)
        widths = dict(
            encoder=self.encoder.embed_dims, decoder=self.decoder.embed_dims, bbox_head=self.bbox_head.embed_dims
        )
        if len(set(widths.values())) > 1:
            raise ValueError(
                f'embed_dims of the model differ: {widths}; set the same in encoder.layer_cfg, decoder.layer_cfg, '
                'bbox_head.embed_dims and neck.out_channels'
            )

    def pre_decoder(
        self, memory: Tensor, memory_mask: Optional[Tensor], spatial_shapes: Tensor, *args, **kwargs
    ) -> Tuple[Dict, Dict]:
        """mmdet's, also for images of fewer tokens than queries."""
        enough = with_enough_tokens(memory, memory_mask, spatial_shapes, self.num_queries)
        decoder_inputs, head_inputs = super().pre_decoder(*enough, *args, **kwargs)
        return dict(decoder_inputs, memory=memory), head_inputs
