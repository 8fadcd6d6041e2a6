"""A detector as a module of tensors: pictures in, detections out."""

from typing import Any, Dict, NamedTuple, Optional

import torch
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from mmdet_stable.models.detectors import MaskDINO
from mmdet_stable.models.layers import DeformableAttention

from .distinct import DistinctQueries
from .flow import LastLayer, check_exportable, last_layer
from .nms import distinct_survivors, survivors
from .recorders import StartingBoxes, TokenSelection, choices
from .sampling import SAMPLINGS


class Detections(NamedTuple):
    """What an exported detector returns for B pictures, N detections each, by descending score.

    Attributes:
        boxes: (B, N, 4) float32 xyxy, in pixels of the input.
        scores: (B, N) float32 in [0, 1]; 0 for those that NMS has removed, which stand last.
        labels: (B, N) int64.
        masks: (B, N, h, w) float32 logits at the stride of the mask features, above 0 inside; MaskDINO's alone.
        query_logits: (B, Q, C) raw class scores, of C + 1 classes with a softmax; for panoptic and semantic maps alone.
        query_masks: (B, Q, h, w) as ``masks``; for panoptic and semantic maps alone.
        queries: (B, N) int64, which query each detection is of. For the check of the file.
        tokens: (B, Q) int64, from which token of the encoder each query starts. For the check; two-stage detectors'
            alone.
        starts: (B, Q, 4) boxes before the sigmoid, at which the decoder starts. For the check; MaskDINO's alone.
        distinct, proposals: which queries NMS chose among which boxes; see :class:`DistinctQueries`. For the check;
            DDQ-DETR's alone.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Optional[Tensor]
    query_logits: Optional[Tensor]
    query_masks: Optional[Tensor]
    queries: Tensor
    tokens: Optional[Tensor]
    starts: Optional[Tensor]
    distinct: Optional[Tensor] = None
    proposals: Optional[Tensor] = None

    def named(self) -> Dict[str, Tensor]:
        """Those that there are."""
        return {name: value for name, value in self._asdict().items() if value is not None}


INSTANCES = ('boxes', 'scores', 'labels', 'masks')
FOR_CHECKS = ('queries', 'tokens', 'starts', 'distinct', 'proposals')


class ExportableDetector(nn.Module):
    """A detector that takes pictures as bytes, and returns its best detections.

    Args:
        detector: a detector of this package, in evaluation mode. Its deformable attention is told to sample by
            ``sampling`` from now on, so that it should not be used for anything else.
        padded: whether pictures of a batch may differ in size: then ``sizes`` are needed, and what lies outside of them
            is ignored, as mmdet ignores the padding of a batch.
        sampling: ``'gather'`` or ``'grid_sample'``; see :mod:`mmdet_stable.export.sampling`.

    Raises:
        ExportError: see :func:`check_exportable`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, detector: Any, padded: bool = False, sampling: str = 'gather') -> None:
        super().__init__()
        check_exportable(detector)
        self.detector = detector.eval()
        self.padded = padded
        self.has_masks = isinstance(detector, MaskDINO)
        wanted = detector.bbox_head.inference if self.has_masks else None
        self.has_maps = wanted is not None and (wanted.panoptic_on or wanted.semantic_on)
        self.unwanted = FOR_CHECKS if wanted is None or wanted.instance_on else (*INSTANCES, *FOR_CHECKS)
        for part in detector.modules():
            if isinstance(part, DeformableAttention):
                part.sampling = SAMPLINGS[sampling]
        preprocessor = detector.data_preprocessor
        self.pad_value = preprocessor.pad_value
        self.flips_channels = not preprocessor._channel_conversion  # the model was trained on BGR
        self.register_buffer('mean', preprocessor.mean.detach().clone(), persistent=False)
        self.register_buffer('std', preprocessor.std.detach().clone(), persistent=False)
        test_cfg = detector.bbox_head.test_cfg or {}
        default = detector.bbox_head.inference.max_per_img if self.has_masks else detector.num_one_to_one
        self.max_per_img: int = test_cfg.get('max_per_img', default)
        self.nms: Optional[Dict[str, Any]] = test_cfg.get('nms')

    def forward(self, images: Tensor, sizes: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Detections of B pictures.

        Args:
            images: (B, 3, H, W) uint8 RGB.
            sizes: (B, 2) int64 height and width of the picture in the upper left corner of each input; with ``padded``.

        Returns:
            see :class:`Detections`.
        """
        selection, starts, distinct = TokenSelection(), StartingBoxes(), DistinctQueries(distinct_survivors)
        assert (sizes is not None) == self.padded
        outside = None if sizes is None else outside_of(sizes, images.shape[-2], images.shape[-1])
        features = self.detector.extract_feat(self.normalised(images, outside))
        with choices(self.detector, selection, starts, distinct):
            found = last_layer(self.detector, features, outside)
        best = self.best(found, self.whwh_of(images, sizes))
        return best._replace(tokens=selection.chosen, starts=starts.found, **distinct.for_checks()).named()

    def whwh_of(self, images: Tensor, sizes: Optional[Tensor]) -> Tensor:
        """(B, 1, 4) twice the width and height in pixels by which boxes are normalised: of the pictures, or of the
        input in MaskDINO and where pictures fill it."""
        if sizes is None or self.has_masks:
            ones = torch.ones(images.shape[0], device=images.device)
            heights, widths = ones * images.shape[-2], ones * images.shape[-1]
        else:
            heights, widths = sizes.float().unbind(1)
        return torch.stack([widths, heights, widths, heights], 1)[:, None]

    def normalised(self, images: Tensor, outside: Optional[Tensor]) -> Tensor:
        """The network's input, (B, 3, H, W) float32."""
        images = images.flip(1) if self.flips_channels else images
        images = (images.float() - self.mean) / self.std
        return images if outside is None else images.masked_fill(outside[:, None], self.pad_value)

    def best(self, found: LastLayer, whwh: Tensor) -> Detections:
        """The best (query, class) pairs; ``whwh`` (B, 1, 4) is the size in pixels by which boxes are normalised."""
        scores = self.class_scores(found.logits)
        num_classes = scores.shape[-1]
        number = min(self.max_per_img, scores.shape[1] * num_classes)
        scores, pairs = scores.flatten(1).topk(number, 1)
        queries, labels = pairs // num_classes, pairs % num_classes
        boxes = bbox_cxcywh_to_xyxy(_taken(found.boxes_cxcywh, queries)) * whwh
        masks = query_logits = query_masks = None
        if self.has_masks:
            assert found.mask_embeddings is not None and found.mask_features is not None
            masks = masks_of(_taken(found.mask_embeddings, queries), found.mask_features)
            if self.has_maps:
                query_logits = found.logits.float()
                query_masks = masks_of(found.mask_embeddings, found.mask_features)
        else:
            boxes = boxes.maximum(boxes.new_zeros(())).minimum(whwh)
            if self.nms is not None:
                kept = survivors(boxes, labels, self.nms)
                scores, order = (scores * kept).topk(number, 1)
                boxes, labels, queries = _taken(boxes, order), labels.gather(1, order), queries.gather(1, order)
        return Detections(boxes, scores, labels, masks, query_logits, query_masks, queries, None, None)

    def class_scores(self, logits: Tensor) -> Tensor:
        """(B, Q, C) in [0, 1]."""
        if self.has_masks and self.detector.bbox_head.softmax:
            return logits.float().softmax(-1)[..., :-1]
        return logits.float().sigmoid()


def outside_of(sizes: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) bool, True outside of the pictures of ``sizes`` (B, 2)."""
    below = torch.arange(height, device=sizes.device) >= sizes[:, :1]
    beside = torch.arange(width, device=sizes.device) >= sizes[:, 1:]
    return below[:, :, None] | beside[:, None]


def masks_of(embeddings: Tensor, features: Tensor) -> Tensor:
    """(B, N, h, w) logits of mask embeddings (B, N, E) and mask features (B, E, h, w)."""
    return (embeddings @ features.flatten(2)).unflatten(2, features.shape[2:])


def _taken(values: Tensor, inds: Tensor) -> Tensor:
    """Of values (B, Q, X) those at ``inds`` (B, N)."""
    return values.gather(1, inds[..., None].expand(-1, -1, values.shape[-1]))
