"""From the last layer's predictions to instances, panoptic segments and semantic maps, with few masks at a time."""

import inspect
from typing import Dict, FrozenSet, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import ConfigType
from mmengine.structures import InstanceData, PixelData
from torch import Tensor
from torch.nn.functional import interpolate

from mmdet_stable.models.layers.mask_boxes import masks_to_xyxy

from .nms import nms_results

MASKS_AT_A_TIME = 16
Size = Tuple[int, int]


class ImageSizes(NamedTuple):
    """(height, width) in pixels of the padded input, of the image in it, and of the result."""

    padded: Size
    image: Size
    result: Size


class PanopticSegment(NamedTuple):
    """One segment of a panoptic result, by its number in the map."""

    number: int
    label: int
    is_thing: bool


class ImagePredictions(NamedTuple):
    """The last layer's predictions for one image.

    Attributes:
        logits: (Q, C) raw class scores; of C + 1 classes with a softmax, background last.
        boxes_cxcywh: (Q, 4), normalised by the padded input.
        mask_embeddings: (Q, E).
        mask_features: (E, h, w).
        sizes: of the image.
    """

    logits: Tensor
    boxes_cxcywh: Tensor
    mask_embeddings: Tensor
    mask_features: Tensor
    sizes: ImageSizes

    def boxes_xyxy(self, query_inds: Tensor) -> Tensor:
        """(M, 4) in pixels of the result, not clipped."""
        (padded_h, padded_w), (image_h, image_w), (height, width) = self.sizes
        scale = padded_w / image_w * width, padded_h / image_h * height
        return bbox_cxcywh_to_xyxy(self.boxes_cxcywh[query_inds].float()) * self.boxes_cxcywh.new_tensor(scale * 2)

    def masks(self, query_inds: Tensor, full: bool = True) -> Iterator[Tuple[slice, Tensor]]:
        """Mask logits of some queries, part by part: which of them, and (m, height, width) in pixels of the result,
        or of the padded input without ``full``."""
        features = self.mask_features.float().flatten(1)
        for start in range(0, len(query_inds), MASKS_AT_A_TIME):
            part = slice(start, start + MASKS_AT_A_TIME)
            logits = self.mask_embeddings[query_inds[part]].float() @ features
            logits = _resized(logits.unflatten(1, self.mask_features.shape[1:]), self.sizes.padded)
            yield part, self.fitted(logits) if full else logits

    def fitted(self, maps: Tensor) -> Tensor:
        """Maps (M, H, W) of the padded input without padding, in pixels of the result."""
        height, width = self.sizes.image
        return _resized(maps[:, :height, :width], self.sizes.result)


def _resized(maps: Tensor, size: Size) -> Tensor:
    """(M, h, w) -> (M, height, width)."""
    return interpolate(maps[:, None], size, mode='bilinear', align_corners=False)[:, 0]


class MaskInference:
    """MaskDINO at test time. Masks of the result's size exist for a few queries at a time only.

    Args:
        num_things: classes 0 to ``num_things - 1`` are things, the others stuff.
        num_classes: C.
        softmax: whether classes are scored by a softmax, with background as one more class.
        instance_on, panoptic_on, semantic_on: which results are wanted.
        max_per_img: instances; with ``panoptic_on``, stuff among these many best is left out.
        focus_on_box: score instances by their class alone; otherwise it is multiplied by the mean score in the mask.
        boxes_from_masks: boxes around the masks in place of the predicted ones.
        nms: config of a class-wise NMS on the instances' boxes, e.g. ``dict(type='nms', iou_threshold=0.8)``; None for
            none.
        object_mask_thr: smallest class score of a query that takes part in the panoptic result.
        iou_thr: smallest share of a query's own pixels that it must win.
        sharpen: temperature of a softmax over the sigmoid scores, by which panoptic segments compete and semantic maps
            are weighted (``transform_eval``); None for the scores themselves.
        resize_first: whether masks are brought to the result's size before semantic maps are made of them, or the maps
            after; None for the former only together with instances or panoptic segments, as released.

    Raises:
        ValueError: if nothing is wanted, or ``sharpen`` is not above 0.

    Source: arXiv:2206.02777, and its released code.
    """

    def __init__(
        self,
        num_things: int,
        num_classes: int,
        softmax: bool = False,
        instance_on: bool = True,
        panoptic_on: bool = False,
        semantic_on: bool = False,
        max_per_img: int = 100,
        focus_on_box: bool = False,
        boxes_from_masks: bool = False,
        nms: Optional[ConfigType] = None,
        object_mask_thr: float = 0.25,
        iou_thr: float = 0.8,
        sharpen: Optional[float] = 0.06,
        resize_first: Optional[bool] = None,
    ) -> None:
        if not (instance_on or panoptic_on or semantic_on):
            raise ValueError('test_cfg: set at least one of instance_on, panoptic_on and semantic_on')
        if sharpen is not None and not sharpen > 0:
            raise ValueError(f'test_cfg.sharpen={sharpen}: a temperature above 0, or None for none')
        self.num_things = num_things
        self.num_classes = num_classes
        self.softmax = softmax
        self.instance_on, self.panoptic_on, self.semantic_on = instance_on, panoptic_on, semantic_on
        self.max_per_img = max_per_img
        self.focus_on_box = focus_on_box
        self.boxes_from_masks = boxes_from_masks
        self.nms = nms
        self.object_mask_thr = object_mask_thr
        self.iou_thr = iou_thr
        self.sharpen = sharpen
        self.resize_first = (instance_on or panoptic_on) if resize_first is None else resize_first

    @classmethod
    def settings(cls) -> FrozenSet[str]:
        """Names of the arguments that a config gives as ``test_cfg``; the others are the head's."""
        return frozenset(inspect.signature(cls).parameters) - {'num_things', 'num_classes', 'softmax'}

    @torch.no_grad()
    def __call__(self, predictions: ImagePredictions) -> dict:
        """What is wanted, by mmdet's names in ``DetDataSample``: ``pred_instances``, with ``scores``, ``labels``,
        ``bboxes`` and bool ``masks``; ``pred_panoptic_seg`` and ``pred_sem_seg``, with ``sem_seg`` (1, H, W)."""
        results = {}
        if self.instance_on:
            results['pred_instances'] = self.instances(predictions)
        if self.panoptic_on:
            numbers, segments = self.panoptic(predictions)
            results['pred_panoptic_seg'] = PixelData(sem_seg=self.as_mmdet(numbers, segments)[None])
        if self.semantic_on:
            results['pred_sem_seg'] = PixelData(sem_seg=self.semantic(predictions).argmax(0, keepdim=True))
        return results

    def scores(self, logits: Tensor) -> Tensor:
        """(Q, C) class scores in [0, 1]."""
        logits = logits.float()
        return logits.softmax(1)[:, :-1] if self.softmax else logits.sigmoid()

    def sharpened(self, scores: Tensor) -> Tensor:
        """Class scores (Q, C) as panoptic and semantic results use them."""
        if self.softmax or self.sharpen is None:
            return scores
        return (scores / self.sharpen).softmax(1)

    def instances(self, predictions: ImagePredictions) -> InstanceData:
        """The best (query, class) pairs, by descending score."""
        scores = self.scores(predictions.logits).flatten()
        scores, inds = scores.topk(min(self.max_per_img, len(scores)))
        if self.panoptic_on:
            is_thing = inds % self.num_classes < self.num_things
            scores, inds = scores[is_thing], inds[is_thing]
        queries = inds // self.num_classes
        masks = torch.zeros(len(inds), *predictions.sizes.result, dtype=torch.bool, device=inds.device)
        boxes = predictions.boxes_xyxy(queries)
        for part, logits in predictions.masks(queries):
            masks[part] = logits > 0
            if self.boxes_from_masks:
                boxes[part] = masks_to_xyxy(logits, 'bitmask')
            if not self.focus_on_box:
                inside = (logits.sigmoid_() * masks[part]).sum((1, 2))
                scores[part] *= inside / (masks[part].sum((1, 2)) + 1e-6)
        found = InstanceData(scores=scores, labels=inds % self.num_classes, bboxes=boxes, masks=masks)
        if self.nms is not None:
            return nms_results(found, self.nms)
        return found[scores.argsort(descending=True)]

    def panoptic(self, predictions: ImagePredictions) -> Tuple[Tensor, List[PanopticSegment]]:
        """A map (H, W) int32 of segment numbers, 0 for none, and the segments, numbered from 1."""
        all_scores = self.scores(predictions.logits)
        best = all_scores.amax(1)
        if self.softmax:  # background may be the best
            best = best.masked_fill(predictions.logits.argmax(1) == self.num_classes, 0)
        queries = (best > self.object_mask_thr).nonzero()[:, 0]
        scores, labels = self.sharpened(all_scores[queries]).max(1)
        winner = torch.full(predictions.sizes.result, -1, device=queries.device)
        highest = torch.full(predictions.sizes.result, -1.0, device=queries.device)
        is_own = torch.zeros(predictions.sizes.result, dtype=torch.bool, device=queries.device)
        own_areas = []
        for part, logits in predictions.masks(queries):
            masks = logits.sigmoid_()
            own_areas.append((masks >= 0.5).sum((1, 2)))
            values, index = (masks * scores[part, None, None]).max(0)
            wins = values > highest
            highest = torch.where(wins, values, highest)
            winner = torch.where(wins, index + part.start, winner)
            is_own = torch.where(wins, masks.gather(0, index[None])[0] >= 0.5, is_own)
        if len(queries) == 0:
            return torch.zeros_like(winner, dtype=torch.int32), []
        won = torch.bincount(winner.flatten(), minlength=len(queries))
        both = torch.bincount(winner[is_own], minlength=len(queries))
        numbers, segments = self._numbered(labels.tolist(), won.tolist(), torch.cat(own_areas).tolist(), both.tolist())
        return (winner.new_tensor(numbers)[winner] * is_own).int(), segments

    def _numbered(
        self, labels: Sequence[int], won: Sequence[int], own: Sequence[int], both: Sequence[int]
    ) -> Tuple[List[int], List[PanopticSegment]]:
        """The segment number of each query, 0 for none, and the segments.

        Args:
            labels: of the queries.
            won: pixels that a query wins; own: pixels of its mask; both: pixels that are both.
        """
        numbers: List[int] = []
        segments: List[PanopticSegment] = []
        stuff: Dict[int, int] = {}
        for label, *areas in zip(labels, won, own, both):
            number = 0
            if min(areas) > 0 and areas[0] / areas[1] >= self.iou_thr:
                number = stuff.get(label, len(segments) + 1)
                if number > len(segments):
                    segments.append(PanopticSegment(number, label, label < self.num_things))
                    if not segments[-1].is_thing:
                        stuff[label] = number  # all regions of one kind of stuff are one segment
            numbers.append(number)
        return numbers, segments

    def as_mmdet(self, numbers: Tensor, segments: Sequence[PanopticSegment]) -> Tensor:
        """The panoptic map (H, W) int32 in mmdet's code: the label, plus 1000 times a number of its own for each
        thing; C for pixels of no segment."""
        codes = [self.num_classes]
        codes += [segment.label + INSTANCE_OFFSET * segment.is_thing * segment.number for segment in segments]
        return numbers.new_tensor(codes)[numbers.long()]

    def semantic(self, predictions: ImagePredictions) -> Tensor:
        """(C, H, W) weight of each class at each pixel."""
        weights = self.sharpened(self.scores(predictions.logits))
        size = predictions.sizes.result if self.resize_first else predictions.sizes.padded
        total = weights.new_zeros(self.num_classes, size[0] * size[1])
        every = torch.arange(len(weights), device=weights.device)
        for part, logits in predictions.masks(every, full=self.resize_first):
            total.addmm_(weights[part].T, logits.sigmoid_().flatten(1))
        total = total.unflatten(1, size)
        return total if self.resize_first else predictions.fitted(total)
