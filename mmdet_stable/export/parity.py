"""Does an exported file compute what the detector computes?

Both see the same pixels. Two rankings lie between input and detections, and near ties in them may turn out either way:
which tokens of the encoder become queries, and which detections are the best. So each ranking is checked for being a
right one up to ties, and everything else is compared behind it: the detector decodes the tokens that the file chose,
in MaskDINO from the boxes that it found around their masks, and each detection is compared with what the detector says
about the same query and class.
"""

from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor
from torch.nn.functional import pad

from .distinct import DistinctQueries, shortfall
from .errors import ExportError
from .flow import LastLayer, of_detecting
from .graph import ExportableDetector, masks_of
from .recorders import StartingBoxes, TokenSelection, choices


class Tolerance(NamedTuple):
    """What a file may differ by.

    Attributes:
        boxes: of any edge, as a share of the longer side of the input.
        scores: from 0 to 1.
        ties: of the largest encoder logit, by how much a chosen token may be worse than one that was not.
        masks: share of the pixels of all masks that lie on the other side.
        ap: of 1.
    """

    boxes: float
    scores: float
    ties: float
    masks: float
    ap: float


FP32 = Tolerance(boxes=1e-4, scores=1e-3, ties=1e-4, masks=1e-3, ap=1e-3)
FP16 = Tolerance(boxes=3e-3, scores=1e-2, ties=1e-2, masks=1e-2, ap=2e-3)


class Difference(NamedTuple):
    """The largest differences of one batch, in the units of :class:`Tolerance`."""

    batch: int
    height: int
    width: int
    boxes: float
    scores: float
    ties: float
    masks: float

    def line(self) -> str:
        masks = f', masks {self.masks:.1e}' if self.masks else ''
        return (
            f'{self.batch} x {self.width} x {self.height}: boxes {self.boxes:.1e} of the longer side, '
            f'scores {self.scores:.1e}, ties {self.ties:.1e}{masks}'
        )

    def problems(self, allowed: Tolerance) -> List[str]:
        """What lies above the tolerance."""
        kinds = ('boxes', 'scores', 'ties', 'masks')
        return [
            f'{kind} {getattr(self, kind):.2e}, allowed are {getattr(allowed, kind):.0e}'
            for kind in kinds
            if not getattr(self, kind) <= getattr(allowed, kind)
        ]


def reference(
    detector: Any,
    images: Tensor,
    sizes: Tensor,
    selection: TokenSelection,
    starts: StartingBoxes,
    distinct: DistinctQueries,
) -> LastLayer:
    """What a detector says by mmdet's own flow, as in ``predict``.

    Args:
        images: (B, 3, H, W) uint8 RGB.
        sizes: (B, 2) height and width of the pictures in them.
        selection, starts, distinct: given what the file has chosen, where it chooses; they remember whether that is
            right.
    """
    preprocessor = detector.data_preprocessor
    order = slice(None) if preprocessor._channel_conversion else slice(None, None, -1)
    samples, pixels = [], []
    frame = (images.shape[2], images.shape[3])
    for image, (height, width) in zip(images, sizes.tolist()):
        part = image[:, :height, :width].float()
        part = (part[list(range(3))[order]] - preprocessor.mean) / preprocessor.std
        pixels.append(pad(part, (0, frame[1] - width, 0, frame[0] - height), value=preprocessor.pad_value))
        samples.append(DetDataSample(metainfo=dict(img_shape=(height, width), batch_input_shape=frame)))
    with torch.no_grad(), choices(detector, selection, starts, distinct):
        outputs = detector.forward_transformer(detector.extract_feat(torch.stack(pixels)), samples)
        found = detector.bbox_head(**outputs)
    masks = (found[2][-1], outputs['mask_features']) if len(found) == 3 else ()
    return LastLayer(of_detecting(detector, found[0][-1]), found[1][-1], *masks)


def compare(
    module: ExportableDetector,
    detector: Any,
    images: Tensor,
    sizes: Tensor,
    found: Dict[str, np.ndarray],
    allowed: Tolerance = FP32,
) -> Difference:
    """The outputs of a file, those for checks included, beside those of the detector.

    Args:
        module: what was exported; says how detections are made of predictions.
        detector: the same detector, which samples in its own way.
        images, sizes: see :func:`reference`.
        found: outputs of the file by name.
        allowed: says what is a near tie.

    Raises:
        ExportError: for detections that cannot be compared, e.g. the same one twice, or a wrong NMS.
    """
    outputs = {name: torch.from_numpy(values) for name, values in found.items()}
    if not all(value.isfinite().all() for value in outputs.values() if value.is_floating_point()):
        raise ExportError('the file computes numbers that are not finite')
    selection, starts = TokenSelection(outputs.get('tokens')), StartingBoxes(outputs.get('starts'), allowed.ties)
    distinct = DistinctQueries(given=outputs.get('distinct'), boxes=outputs.get('proposals'))
    wanted = reference(detector, images, sizes, selection, starts, distinct)
    moved_inside, short_inside = distinct.differences()
    scores = module.class_scores(wanted.logits)
    queries, labels = outputs['queries'], outputs['labels']
    pairs = queries * scores.shape[-1] + labels
    if any(len(set(row)) < len(row) for row in pairs.tolist()):
        raise ExportError('the file detects a query and class twice')
    expected = scores.flatten(1).gather(1, pairs)
    whwh = module.whwh_of(images, sizes)
    boxes = bbox_cxcywh_to_xyxy(wanted.boxes_cxcywh) * whwh
    if not module.has_masks:
        boxes = boxes.clamp(min=0).minimum(whwh)
    boxes = boxes.gather(1, queries[..., None].expand(-1, -1, 4))
    kept = torch.ones_like(queries, dtype=torch.bool)
    if module.nms is not None and not module.has_masks:
        kept = outputs['scores'] > 0
        for image in range(len(images)):
            short = classwise_shortfall(
                outputs['boxes'][image], expected[image], labels[image], kept[image], module.nms['iou_threshold']
            )
            if not short <= allowed.scores:
                raise ExportError(
                    f'NMS of the file keeps other boxes than greedy NMS does, unless scores differ by {short:.2e}'
                )
    best = scores.flatten(1).topk(expected.shape[1], 1).values
    missed = (best[:, -1] - expected.amin(1)).clamp(min=0).max().item()
    score = (outputs['scores'] - expected)[kept].abs().max().item()
    if module.has_maps:
        of_queries = module.class_scores(outputs['query_logits'])
        score = max(score, (of_queries - scores).abs().max().item())
    moved = (outputs['boxes'] - boxes).abs().max().item() / max(images.shape[2:])
    masks = _mask_difference(wanted, queries, outputs) if module.has_masks else 0.0
    batch, _, height, width = images.shape
    moved, ties = max(moved, starts.excess, moved_inside), max(selection.shortfall(), short_inside)
    return Difference(batch, height, width, moved, max(score, missed), ties, masks)


def classwise_shortfall(boxes: Tensor, scores: Tensor, labels: Tensor, kept: Tensor, threshold: float) -> float:
    """The :func:`shortfall` of a file's NMS, which keeps all boxes that no better one of the same class overlaps.

    Args:
        boxes: (N, 4), labels: (N,), and kept: (N,) bool of the file.
        scores: (N,) of the detector; 0 for what is no detection.
        threshold: IoU from which boxes of a class overlap.
    """
    apart = boxes.double() + (labels * (boxes.max() - boxes.min() + 1).double())[:, None]
    best_first = scores.argsort(descending=True)
    chosen = pad(best_first[kept[best_first]], (0, 1), value=-1)  # fewer than asked for: nobody asks for a number
    return shortfall(apart, scores.double(), scores > 0, chosen, threshold)


def _mask_difference(wanted: LastLayer, queries: Tensor, outputs: Dict[str, Tensor]) -> float:
    """The share of pixels that are inside of the one mask and outside of the other."""
    assert wanted.mask_embeddings is not None and wanted.mask_features is not None
    is_inside = masks_of(wanted.mask_embeddings, wanted.mask_features) > 0
    of_detections = is_inside[torch.arange(len(queries))[:, None], queries]
    difference = (of_detections != (outputs['masks'] > 0)).float().mean().item()
    if 'query_masks' in outputs:
        difference = max(difference, (is_inside != (outputs['query_masks'] > 0)).float().mean().item())
    return difference


def synthetic_pictures() -> List[np.ndarray]:
    """Pictures (height, width, 3) uint8 of smooth colours with rectangles on them: always the same ones."""
    rng = np.random.default_rng(0)
    pictures = []
    for height, width in ((96, 128), (150, 90), (96, 128)):
        ramps = np.linspace(0, 1, height)[:, None, None] * rng.uniform(0, 120, 3)
        picture = ramps + np.linspace(0, 1, width)[None, :, None] * rng.uniform(0, 120, 3) + rng.uniform(0, 15, 3)
        for _ in range(6):
            top, left = (rng.uniform(0, 0.8, 2) * (height, width)).astype(int)
            high, wide = (rng.uniform(0.1, 0.4, 2) * (height, width)).astype(int)
            picture[top : top + high, left : left + wide] = rng.uniform(0, 255, 3)
        pictures.append((picture + rng.normal(0, 4, picture.shape)).clip(0, 255).astype(np.uint8))
    return pictures


def batches(sizes: Sequence[Tuple[int, int]], padded: bool) -> List[List[int]]:
    """Numbers of pictures to run together: each alone, and those that may be together, up to three."""
    alone = [[index] for index in range(len(sizes))]
    groups: Dict[Any, List[int]] = {}
    for index, size in enumerate(sizes):
        groups.setdefault(None if padded else size, []).append(index)
    together = [group[:3] for group in groups.values() if len(group) > 1]
    used = {index for group in together for index in group[1:]}
    return [group for group in alone if group[0] not in used] + together
