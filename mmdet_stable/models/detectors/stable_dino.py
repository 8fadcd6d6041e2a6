"""Stable-DINO: DINO with memory fusion; stable matching lives in its head."""

from mmdet.models.detectors import DINO
from mmdet.registry import MODELS
from mmdet.utils import ConfigType

from mmdet_stable.models.layers import AnyWidthDinoDecoder

from .denoising import build_dn_query_generator
from .memory_fusion import MemoryFusionDetector
from .one_to_many import OneToManyDetector


@MODELS.register_module()
class StableDINO(OneToManyDetector, MemoryFusionDetector, DINO):
    """mmdet's ``DINO`` of any width, whose encoder may carry a memory fusion.

    A checkpoint of mmdet's DINO loads into it without ``one_to_many``; only the weights of the fusion are missing then.

    Args:
        encoder: as in mmdet, plus ``fusion``, see :class:`MemoryFusionDetector`.
        dn_cfg: as in mmdet, or with ``type='DNQueryGenerator'`` the settings of that.
        one_to_many: see :class:`OneToManyDetector`; trains as H-DINO, on all selected proposals.
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
        decoder = self.decoder
        super()._init_layers()
        self.decoder = AnyWidthDinoDecoder(**decoder)
        widths = dict(
            encoder=self.encoder.embed_dims, decoder=self.decoder.embed_dims, bbox_head=self.bbox_head.embed_dims
        )
        if len(set(widths.values())) > 1:
            raise ValueError(
                f'embed_dims of the model differ: {widths}; set the same in encoder.layer_cfg, decoder.layer_cfg, '
                'bbox_head.embed_dims and neck.out_channels'
            )
