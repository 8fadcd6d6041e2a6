"""Where deformable attention looks."""

from contextlib import contextmanager
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from mmdet_stable.models.detectors import MaskDINO
from mmdet_stable.models.detectors.base import StableDetector
from mmdet_stable.models.layers import DeformableAttention, LevelSizes, sizes_on_device, sizes_on_host
from mmdet_stable.models.layers.deformable_attention import weighted_samples
from mmdet_stable.models.layers.level_sizes import Size
from mmdet_stable.models.layers.proposals import token_centres

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
    model: StableDetector,
    data_batch: Dict[str, list],
    part: str = 'encoder',
    layer: int = -1,
    point: Optional[Tuple[float, float]] = None,
    level: int = 0,
) -> SamplingPoints:
    """Sampling points of one query on one image.

    Args:
        model: a detector of this package, in evaluation mode.
        data_batch: one image; ground truth is not needed.
        part: ``'encoder'`` or ``'decoder'``.
        layer: which layer, as an index.
        point: (x, y) in pixels of the original image. In the encoder, the token of ``level`` that lies closest is
            looked at; in the decoder, the query of the highest score among those whose box holds the point. None for
            the query of the highest score, and for the centre of its box.
        level: level of the encoder's token, counted from the finest.

    Raises:
        ValueError: if the model is none of this package, has no deformable attention or no such layer or level, or no
            box holds the point.

    Source: arXiv:2304.04742 Fig. 9.
    """
    attention = deformable_attention(model, part, layer)
    data = model.data_preprocessor(data_batch, False)
    meta = data['data_samples'][0].metainfo
    with recorded(attention) as record:
        outputs = model.forward_transformer(model.extract_feat(data['inputs']), data['data_samples'])
    logits, boxes_cxcywh, *_ = model.bbox_head(**outputs)
    # Pixels of the original image in the width and height of the padded batch, and in those of the image.
    batch_size = torch.tensor(meta['batch_input_shape'][::-1]) / torch.tensor(meta['scale_factor'])
    image_size = batch_size if isinstance(model, MaskDINO) else torch.tensor(meta['ori_shape'][::-1])
    scores = class_scores(model, logits[-1, 0]).amax(-1).cpu()
    boxes = boxes_cxcywh[-1, 0].cpu() * image_size.repeat(2)
    if part == 'encoder':
        point = point or boxes[scores.argmax(), :2].tolist()
        references = torch.cat(relative_centres(record.sizes)) * batch_size
        index = nearest_token(references, record.sizes, level, point)
    else:
        references = outputs['references'][layer % model.decoder.num_layers][0, :, :2].cpu() * image_size
        index = best_query(scores, boxes, point)
    return SamplingPoints(
        points=(record.locations[0, index].cpu() * batch_size).numpy(),
        weights=record.weights[0, index].cpu().numpy(),
        reference=references[index].numpy(),
        box_xyxy=bbox_cxcywh_to_xyxy(boxes[index]).numpy() if part == 'decoder' else None,
        query=index,
    )


def deformable_attention(model: StableDetector, part: str, layer: int) -> DeformableAttention:
    """The deformable attention of a layer: in the encoder among tokens, in the decoder from queries to tokens."""
    name = type(model).__name__
    if not isinstance(model, StableDetector):
        raise ValueError(
            f"{name}: only detectors of this package say where they sample; mmdet's DINO and Deformable-DETR do with "
            'model.type="StableDINO" and "StableDeformableDETR", which load their checkpoints'
        )
    if part not in PARTS:
        raise ValueError(f'part={part!r}: known are {PARTS}')
    layers = dict(zip(PARTS, model.coders))[part].layers
    if not -len(layers) <= layer < len(layers):
        raise ValueError(f'layer={layer}: the {part} of {name} has layers 0 to {len(layers) - 1}')
    attention = layers[layer].self_attn if part == 'encoder' else layers[layer].cross_attn
    if not isinstance(attention, DeformableAttention):
        raise ValueError(
            f'the {part} of {name} attends everywhere by {type(attention).__name__}: only deformable attention has '
            'sampling points'
        )
    return attention


class SamplingRecord:
    """Samples as :func:`weighted_samples` does, and remembers where.

    Attributes:
        sizes: height and width of each level.
        locations: (B, Q, heads, levels, P, 2), relative to the padded batch.
        weights: (B, Q, heads, levels, P).
    """

    sizes: List[Size]
    locations: Tensor
    weights: Tensor

    def __call__(self, value: Tensor, spatial_shapes: LevelSizes, locations: Tensor, weights: Tensor) -> Tensor:
        self.sizes, self.locations, self.weights = sizes_on_host(spatial_shapes), locations, weights
        return weighted_samples(value, sizes_on_device(spatial_shapes, value.device), locations, weights)


@contextmanager
def recorded(attention: DeformableAttention) -> Iterator[SamplingRecord]:
    """Let the attention sample by a record for a while. Compiled layers run uncompiled meanwhile, as the record cannot
    be compiled."""
    record, before = SamplingRecord(), attention.sampling
    attention.sampling = record
    try:
        with torch.compiler.set_stance('force_eager'):
            yield record
    finally:
        attention.sampling = before


def relative_centres(sizes: Sequence[Size]) -> List[Tensor]:
    """The centres of all tokens of each level, (height * width, 2) x and y relative to the padded batch."""
    centres = token_centres(sizes, torch.device('cpu'))
    return [level / torch.tensor([width, height]) for level, (height, width) in zip(centres, sizes)]


def best_query(scores: Tensor, boxes_cxcywh: Tensor, point: Optional[Tuple[float, float]]) -> int:
    """The query of the highest score, among those whose box holds the point where one is given."""
    if point is not None:
        centre, size = boxes_cxcywh.split(2, dim=-1)
        holds = ((centre - centre.new_tensor(point)).abs() <= size / 2).all(-1)
        if not holds.any():
            raise ValueError(f'point={point}: no query has its box there; choose another, in pixels of the image')
        scores = scores.masked_fill(~holds, -1)
    return int(scores.argmax())


def nearest_token(references: Tensor, sizes: Sequence[Size], level: int, point: Sequence[float]) -> int:
    """Index of the token of a level whose reference point (N, 2) lies closest to a point."""
    if not 0 <= level < len(sizes):
        raise ValueError(f'level={level}: the model has levels 0 to {len(sizes) - 1}')
    numbers = [height * width for height, width in sizes]
    start = sum(numbers[:level])
    distance = (references[start : start + numbers[level]] - references.new_tensor(point)).norm(dim=-1)
    return start + int(distance.argmin())
