"""A detector from its features to the predictions of the last layer, in steps that torch can export.

The steps are the detector's own, by mmdet's names. Only what stands between its neck and its encoder is ours: mmdet
reads sizes of maps from tensors and sizes of images from data samples, which an exported program cannot.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import torch
from mmdet.models.dense_heads import DeformableDETRHead
from mmdet.models.detectors import DeformableDETR
from torch import Tensor
from torch.nn.functional import interpolate

from mmdet_stable.models.dense_heads.mask_dino_head import MaskDINOHead
from mmdet_stable.models.dense_heads.stable_heads import SharedLayersHead
from mmdet_stable.models.detectors import MaskDINO
from mmdet_stable.models.detectors.base import StableDetector
from mmdet_stable.models.layers import PixelDecoderOutputs, level_sizes, level_starts, refined_boxes

from .errors import ExportError


class LastLayer(NamedTuple):
    """What a detector says about Q queries of B images.

    Attributes:
        logits: (B, Q, C) raw class scores; -inf of queries that detect nothing, see :func:`of_detecting`.
        boxes_cxcywh: (B, Q, 4), normalised by the image, or by the padded input in MaskDINO.
        mask_embeddings, mask_features: (B, Q, E) and (B, E, h, w) of MaskDINO, None elsewhere.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    mask_embeddings: Optional[Tensor] = None
    mask_features: Optional[Tensor] = None


def check_exportable(detector: Any) -> None:
    """Raise ``ExportError`` for a model that is no detector of this package, or whose results cannot be exported."""
    name = type(detector).__name__
    if not isinstance(detector, StableDetector):
        raise ExportError(
            f"model.type={name!r}: exported are the detectors of this package; mmdet's DINO, Deformable-DETR and "
            'DDQ-DETR are, too, by model.type="StableDINO", "StableDeformableDETR" and "StableDDQDETR", which load '
            'their checkpoints'
        )
    head = detector.bbox_head
    if not isinstance(head, (DeformableDETRHead, SharedLayersHead, MaskDINOHead)):
        raise ExportError(
            f'bbox_head.type={type(head).__name__!r}: exported are the heads of this package, and those of mmdet that '
            'are derived from DeformableDETRHead'
        )
    if not (isinstance(head, MaskDINOHead) or head.loss_cls.use_sigmoid):
        raise ExportError('bbox_head.loss_cls.use_sigmoid=False: exported are heads that score each class by a sigmoid')
    preprocessor = detector.data_preprocessor
    if not getattr(preprocessor, '_enable_normalize', False):
        raise ExportError('model.data_preprocessor: give it mean and std, [0, 0, 0] and [1, 1, 1] for none')


def last_layer(detector: Any, features: Any, outside: Optional[Tensor]) -> LastLayer:
    """Predictions of the last decoder layer.

    Args:
        features: what ``extract_feat`` returns.
        outside: (B, H, W) bool, True for the padding of the input; None where images fill it.
    """
    encoder_inputs, decoder_inputs = inputs_of_coders(detector, features, outside)
    encoded = detector.forward_encoder(**encoder_inputs)
    queries, head_inputs = detector.pre_decoder(**encoded)
    outputs = {**head_inputs, **detector.forward_decoder(**{**decoder_inputs, **queries})}
    head = detector.bbox_head
    states: Tensor = outputs['hidden_states']
    references: Any = outputs['references']
    if isinstance(head, MaskDINOHead):
        logits, boxes, embeddings = head(states[-1:], references[-2:], outputs['norm'], outputs['mask_features'])
        return LastLayer(logits[-1], boxes[-1], embeddings[-1], outputs['mask_features'])
    if isinstance(head, DeformableDETRHead):
        last = states.shape[0] - 1
        eps = getattr(head, 'sigmoid_eps', 1e-5)  # mmdet's
        boxes = refined_boxes(head.reg_branches[last], states[last], references[last], eps)
        return LastLayer(of_detecting(detector, head.cls_branches[last](states[last])), boxes)
    of_last = references if references.dim() == 3 else references[-1:]
    logits, boxes = head(states[-1:], of_last)
    return LastLayer(logits[-1], boxes[-1])


def of_detecting(detector: Any, logits: Tensor) -> Tensor:
    """The logits (B, Q, C) of a detector that has just run, -inf of queries that its head leaves out: DDQ-DETR's may
    detect only if they are distinct."""
    detecting = detector.detecting_queries()
    return logits if detecting is None else logits.masked_fill(~detecting[..., None], float('-inf'))


def inputs_of_coders(detector: Any, features: Any, outside: Optional[Tensor]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """What ``forward_encoder`` takes, and what ``forward_decoder`` takes beside the queries."""
    if isinstance(detector, MaskDINO):
        assert isinstance(features, PixelDecoderOutputs)
        return detector.pre_transformer(features)
    has_levels = isinstance(detector, DeformableDETR)
    if not has_levels:
        features = features[-1:]
    maps: List[Tensor] = list(features)
    masks: List[Any] = [None if outside is None else at_size_of(outside, level) for level in maps]
    positions = [tokens_of(detector.positional_encoding(mask, input=level)) for mask, level in zip(masks, maps)]
    if not has_levels:
        mask = None if masks[0] is None else masks[0].flatten(1)
        tokens = dict(feat=tokens_of(maps[0]), feat_mask=mask, feat_pos=positions[0])
        return tokens, dict(memory_mask=mask, memory_pos=positions[0])
    device = maps[0].device
    sizes = [level.shape[-2:] for level in maps]
    mask = None if outside is None else torch.cat([mask.flatten(1) for mask in masks], 1)
    if outside is None:
        ratios = maps[0].new_ones(maps[0].shape[0], len(maps), 2)
    else:
        ratios = torch.stack([detector.get_valid_ratio(mask) for mask in masks], 1)
    levels = dict(
        spatial_shapes=level_sizes(sizes, device), level_start_index=level_starts(sizes, device), valid_ratios=ratios
    )
    encoder_inputs = dict(
        levels,
        feat=torch.cat([tokens_of(level) for level in maps], 1),
        feat_mask=mask,
        feat_pos=torch.cat([position + embed for position, embed in zip(positions, detector.level_embed)], 1),
    )
    return encoder_inputs, dict(levels, memory_mask=mask)


def tokens_of(level: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, h * w, D)."""
    return level.flatten(2).transpose(1, 2)


def at_size_of(outside: Tensor, level: Tensor) -> Tensor:
    """The mask of padding (B, H, W) at the size of a map (B, D, h, w)."""
    return interpolate(outside[None].float(), size=level.shape[-2:])[0].bool()
