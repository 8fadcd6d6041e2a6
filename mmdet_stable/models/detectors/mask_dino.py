"""MaskDINO: DINO that predicts masks, for instance, panoptic and semantic segmentation."""

from typing import Any, Dict, List, Tuple

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.registry import MODELS
from mmdet.structures import OptSampleList, SampleList
from mmdet.utils import ConfigType, OptConfigType
from torch import Tensor, nn

from mmdet_stable.models.dense_heads import MaskDINOHead
from mmdet_stable.models.layers import (
    DinoDecoder,
    FirstBoxes,
    LevelSizes,
    PixelDecoderOutputs,
    at_least_float32,
    initial_boxes,
    level_sizes,
    level_starts,
    select_tokens,
)
from mmdet_stable.models.layers.mask_boxes import BOX_TYPES
from mmdet_stable.models.layers.mask_dino_queries import LOGIT_EPS
from mmdet_stable.structures import BatchTargets

from .deformable import DeformableDetector
from .mask_ground_truth import targets_with_masks


@MODELS.register_module()
class MaskDINO(DeformableDetector):
    """DINO whose queries also embed masks; stable matching lives in its head.

    Unlike in the other detectors, boxes are normalised by the padded input, not by the image in it.

    Args:
        neck: config of :class:`MaskDINOPixelDecoder`, which contains the encoder.
        bbox_head: of :class:`MaskDINOHead`.
        dn_cfg: settings of :class:`DNQueryGenerator`, e.g. ``dict(num_queries=100)``; the others default to MaskDINO's.
            None for no denoising queries.
        initialize_box_type: where the decoder's boxes start: ``'no'`` at the encoder's boxes, ``'mask2box'`` or
            ``'bitmask'`` around its masks; see :func:`masks_to_xyxy`. Not used without two stages.
        initial_pred: whether the queries before the first decoder layer are supervised, too.
        as_two_stage: whether queries are the encoder's best tokens; otherwise content and boxes are learned (semantic
            segmentation).
        Others: as in :class:`StableDetector`.

    Raises:
        ValueError: for an ``encoder`` beside the neck's, an unknown ``initialize_box_type``, or widths that differ.

    Source: arXiv:2206.02777.
    """

    first_boxes: FirstBoxes = staticmethod(initial_boxes)  # where the decoder starts; an export records it
    neck: Any

    def __init__(
        self,
        *args: Any,
        dn_cfg: OptConfigType = None,
        initialize_box_type: str = 'mask2box',
        initial_pred: bool = True,
        as_two_stage: bool = True,
        **kwargs: Any,
    ) -> None:
        if initialize_box_type not in BOX_TYPES:
            raise ValueError(f'initialize_box_type={initialize_box_type!r}: known are {BOX_TYPES}')
        for name in ('encoder', 'positional_encoding'):
            if kwargs.get(name) is not None:
                raise ValueError(f"model.{name}: MaskDINO's encoder is part of its neck; set it in model.neck instead")
        self.initialize_box_type = initialize_box_type
        self.initial_pred = initial_pred
        super().__init__(*args, as_two_stage=as_two_stage, with_box_refine=True, **kwargs)
        if dn_cfg is not None:
            ours = dict(indicator=False, ignore_padding=False, sigmoid_eps=LOGIT_EPS)
            self.dn_query_generator = self.build_dn_query_generator({**ours, **dn_cfg})

    @classmethod
    def takes_head(cls, head: type) -> bool:
        return issubclass(head, MaskDINOHead)

    def build_decoder(self, cfg: ConfigType) -> DinoDecoder:
        return DinoDecoder(**{'sigmoid_eps': LOGIT_EPS, **cfg})

    def _init_layers(self) -> None:
        self.decoder = self.build_decoder(self.decoder)
        self.embed_dims = self.decoder.embed_dims
        self._check_widths()
        self.init_queries()

    def init_queries(self) -> None:
        self.init_proposals()
        if not self.as_two_stage:
            self.query_feat = nn.Embedding(self.num_queries, self.embed_dims)
            self.query_embed = nn.Embedding(self.num_queries, 4)

    @property
    def coders(self) -> Tuple[Any, Any]:
        return self.neck.encoder, self.decoder

    def _check_widths(self) -> None:
        widths = {
            'neck.feat_channels': self.neck.encoder.embed_dims,
            'decoder': self.embed_dims,
            'bbox_head.embed_dims': self.bbox_head.embed_dims,
        }
        mask_widths = {
            'neck.out_channels': self.neck.mask_feature.out_channels,
            'bbox_head.mask_dims': self.bbox_head.mask_dims,
        }
        for found in (widths, mask_widths):
            if len(set(found.values())) > 1:
                raise ValueError(f'widths of the model differ: {found}; set the same everywhere')

    def init_weights(self) -> None:
        """The released code's initialisation."""
        DetectionTransformer.init_weights(self)
        for parameter in self.decoder.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        for layer in self.decoder.layers:
            layer.cross_attn.init_weights()

    def ground_truth(self, batch_data_samples: SampleList) -> BatchTargets:
        return targets_with_masks(batch_data_samples, self.bbox_head.num_things, self.bbox_head.num_classes)

    def pre_transformer(
        self, img_feats: PixelDecoderOutputs, batch_data_samples: OptSampleList = None
    ) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """The pixel decoder has encoded already: its memory and mask features, and how the memory lies in levels."""
        memory, sizes = img_feats.memory()
        spatial_shapes = level_sizes(sizes, memory.device)
        levels = dict(
            memory_mask=None,
            spatial_shapes=spatial_shapes,
            level_start_index=level_starts(sizes, memory.device),
            valid_ratios=memory.new_ones(memory.shape[0], len(sizes), 2, dtype=torch.float32),
        )
        encoder_inputs = dict(memory=memory, spatial_shapes=spatial_shapes, mask_features=img_feats.mask_features)
        return encoder_inputs, levels

    def forward_encoder(self, **encoded: Tensor) -> Dict[str, Tensor]:
        """What the pixel decoder has encoded."""
        return encoded

    def pre_decoder(
        self, memory: Tensor, spatial_shapes: LevelSizes, mask_features: Tensor
    ) -> Tuple[Dict[str, Tensor], Dict[str, Any]]:
        """Queries at the encoder's best tokens, or learned ones, and what the head needs beside them."""
        head_inputs: Dict[str, Any] = dict(mask_features=mask_features, norm=self.decoder.norm)
        if self.as_two_stage:
            tokens, proposals = self.gen_encoder_output_proposals(memory, None, spatial_shapes)
            predictor = self.bbox_head.predictor
            selected = select_tokens(
                tokens, proposals, predictor.cls, predictor.reg, self.num_matching_queries, self.selection
            )
            encoder = predictor.predict_tokens(self.decoder.norm, selected)
            boxes_unact = self.first_boxes(
                selected.boxes_unact, encoder.mask_embeddings[0], mask_features, self.initialize_box_type
            )
            query = selected.content.detach()
            if self.training:
                head_inputs['encoder'] = encoder
        else:
            learned = self.query_feat.weight, self.query_embed.weight
            query, boxes_unact = (weight.expand(memory.shape[0], -1, -1) for weight in learned)
        return dict(query=query, reference_points=at_least_float32(boxes_unact).sigmoid(), memory=memory), head_inputs

    def forward_decoder(self, query: Tensor, **inputs: Any) -> Dict[str, Any]:
        """As in :class:`DeformableDetector`, and in training also the content of the queries before the decoder."""
        outputs = super().forward_decoder(query, **inputs)
        if self.training and self.initial_pred:
            outputs['content'] = query
        return outputs

    def add_pred_to_datasample(self, data_samples: SampleList, results_list: List[Dict[str, Any]]) -> SampleList:
        """Set the results that are wanted: ``pred_instances``, ``pred_panoptic_seg``, ``pred_sem_seg``."""
        for sample, results in zip(data_samples, results_list):
            for name, result in results.items():
                setattr(sample, name, result)
        return data_samples
