"""Where deformable attention looks."""

from contextlib import contextmanager
from typing import Dict, Iterator, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from .layer_predictions import class_scores

PARTS = ('encoder', 'decoder')


class SamplingPoints(NamedTuple):
    """What one query of one layer samples, in pixels of the original image.

    Attributes:
        points: (heads, levels, P, 2).
        weights: (heads, levels, P) of the attention; their sum is 1 in each head.
        reference: (2,) the reference point.
        box_xyxy: (4,) what the query detects after the last layer, in the decoder; in the encoder None.
        query: index of the query in the decoder, of the token in the encoder.
    """

    points: np.ndarray
    weights: np.ndarray
    reference: np.ndarray
    box_xyxy: Optional[np.ndarray]
    query: int


@torch.no_grad()
def sampling_points(
    model: DetectionTransformer,
    data_batch: Dict[str, list],
    part: str = 'encoder',
    layer: int = -1,
    point: Optional[Tuple[float, float]] = None,
    level: int = 0,
) -> SamplingPoints:
    """Sampling points of one query on one image.

    Args:
        data_batch: one image; ground truth is not needed.
        part: ``'encoder'`` or ``'decoder'``.
        layer: which layer, as an index.
        point: (x, y) in pixels of the original image. In the encoder, the token of ``level`` that lies closest is
            looked at; in the decoder, the query of the highest score among those whose box holds the point. None for
            the query of the highest score, and for the centre of its box.
        level: level of the encoder's token, counted from the finest.

    Raises:
        ValueError: if the model has no deformable attention or no such layer or level, or no box holds the point.

    Source: arXiv:2304.04742 Fig. 9.
    """
    attention = deformable_attention(model, part, layer)
    data = model.data_preprocessor(data_batch, False)
    meta = data['data_samples'][0].metainfo
    with recorded(attention) as record:
        logits, boxes_cxcywh = model(**data, mode='tensor')
    scores = class_scores(model, logits[-1, 0]).amax(-1).cpu()
    boxes = (boxes_cxcywh[-1, 0] * boxes_cxcywh.new_tensor(meta['ori_shape'][::-1]).repeat(2)).cpu()
    locations, references = sampling_locations(attention, **record)
    # Locations are relative to the batch with its padding, and so pixels of the network's input after this.
    to_pixels = locations.new_tensor(meta['batch_input_shape'][::-1]) / locations.new_tensor(meta['scale_factor'])
    locations, references = (locations[0] * to_pixels).cpu(), (references[0] * to_pixels).cpu()
    if part == 'encoder':
        point = point or boxes[scores.argmax(), :2].tolist()
        index = nearest_token(references, record['spatial_shapes'], level, point)
    else:
        index = best_query(scores, boxes, point)
    return SamplingPoints(
        points=locations[index].numpy(),
        weights=record['weights'][0, index].cpu().numpy(),
        reference=references[index].numpy(),
        box_xyxy=bbox_cxcywh_to_xyxy(boxes[index]).numpy() if part == 'decoder' else None,
        query=index,
    )


def deformable_attention(model: DetectionTransformer, part: str, layer: int) -> MultiScaleDeformableAttention:
    """The deformable attention of a layer: in the encoder among tokens, in the decoder from queries to tokens."""
    if part not in PARTS:
        raise ValueError(f'part={part!r}: known are {PARTS}')
    layers = getattr(model, part).layers
    if not -len(layers) <= layer < len(layers):
        raise ValueError(f'layer={layer}: the {part} of {type(model).__name__} has layers 0 to {len(layers) - 1}')
    attention = layers[layer].self_attn if part == 'encoder' else layers[layer].cross_attn
    if not isinstance(attention, MultiScaleDeformableAttention):
        raise ValueError(
            f'the {part} of {type(model).__name__} attends everywhere by {type(attention).__name__}: only deformable '
            'attention has sampling points'
        )
    return attention


@contextmanager
def recorded(attention: MultiScaleDeformableAttention) -> Iterator[Dict[str, Tensor]]:
    """Fills a dict with what the attention computes in a forward pass: arguments of :func:`sampling_locations`, and
    ``weights`` (B, Q, heads, levels, P). Compiled layers run uncompiled meanwhile, as they would pass hooks by."""
    record: Dict[str, Tensor] = {}
    shape = (attention.num_heads, attention.num_levels, attention.num_points)

    def keep_arguments(_: nn.Module, args: Tuple, kwargs: Dict[str, Tensor]) -> None:
        record.update({name: kwargs[name] for name in ('reference_points', 'spatial_shapes')})

    def keep_offsets(_: nn.Module, inputs: Tuple, output: Tensor) -> None:
        record['offsets'] = output.unflatten(-1, (*shape, 2))

    def keep_weights(_: nn.Module, inputs: Tuple, output: Tensor) -> None:
        record['weights'] = output.unflatten(-1, (shape[0], -1)).softmax(-1).unflatten(-1, shape[1:])

    handles = [
        attention.register_forward_pre_hook(keep_arguments, with_kwargs=True),
        attention.sampling_offsets.register_forward_hook(keep_offsets),
        attention.attention_weights.register_forward_hook(keep_weights),
    ]
    try:
        with torch.compiler.set_stance('force_eager'):
            yield record
    finally:
        for handle in handles:
            handle.remove()


def sampling_locations(
    attention: MultiScaleDeformableAttention,
    offsets: Tensor,
    reference_points: Tensor,
    spatial_shapes: Tensor,
    **_: Tensor,
) -> Tuple[Tensor, Tensor]:
    """Where the attention samples: mmcv keeps that to itself, so it is computed here once more.

    Args:
        offsets: (B, Q, heads, levels, P, 2).
        reference_points: (B, Q, levels, 2) points or (B, Q, levels, 4) boxes in cxcywh, relative to the padded batch.
        spatial_shapes: (levels, 2) height and width.

    Returns:
        Locations (B, Q, heads, levels, P, 2), and reference points (B, Q, 2), both relative to the padded batch.

    Source: arXiv:2010.04159 Eq. 3; for boxes its appendix A.4.
    """
    references = reference_points[:, :, None, :, None, :2]
    if reference_points.shape[-1] == 2:
        unit = 1 / spatial_shapes.flip(-1)[None, None, None, :, None]
    else:
        unit = reference_points[:, :, None, :, None, 2:] / (2 * attention.num_points)
    return references + offsets * unit, reference_points[:, :, 0, :2]


def best_query(scores: Tensor, boxes_cxcywh: Tensor, point: Optional[Tuple[float, float]]) -> int:
    """The query of the highest score, among those whose box holds the point where one is given."""
    if point is not None:
        centre, size = boxes_cxcywh.split(2, dim=-1)
        holds = ((centre - centre.new_tensor(point)).abs() <= size / 2).all(-1)
        if not holds.any():
            raise ValueError(f'point={point}: no query has its box there; choose another, in pixels of the image')
        scores = scores.masked_fill(~holds, -1)
    return int(scores.argmax())


def nearest_token(references: Tensor, spatial_shapes: Tensor, level: int, point: Sequence[float]) -> int:
    """Index of the token of a level whose reference point (N, 2) lies closest to a point."""
    sizes = spatial_shapes.prod(1).tolist()
    if not 0 <= level < len(sizes):
        raise ValueError(f'level={level}: the model has levels 0 to {len(sizes) - 1}')
    start = sum(sizes[:level])
    distance = (references[start : start + sizes[level]] - references.new_tensor(point)).norm(dim=-1)
    return start + distance.argmin().item()
