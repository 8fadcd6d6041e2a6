"""Boxes in images: detected, and to be detected."""

from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmdet.structures.mask import BaseInstanceMasks, encode_mask_results
from mmengine.structures import InstanceData


class Boxes(NamedTuple):
    """Boxes in one image, and masks where there are some.

    Attributes:
        boxes_xyxy: (N, 4) in pixels.
        labels: (N,).
        scores: (N,), which ground truth has not.
        masks: N run-lengths as pycocotools makes them, because masks of a whole test set would not fit into memory.
    """

    boxes_xyxy: np.ndarray
    labels: np.ndarray
    scores: Optional[np.ndarray] = None
    masks: Optional[Sequence[dict]] = None

    def where(self, keep: np.ndarray) -> 'Boxes':
        """Those for which ``keep``, (N,) bool, is true."""
        return Boxes(
            self.boxes_xyxy[keep],
            self.labels[keep],
            None if self.scores is None else self.scores[keep],
            None if self.masks is None else [self.masks[index] for index in np.flatnonzero(keep).tolist()],
        )

    def above(self, threshold: float) -> 'Boxes':
        """The boxes whose score reaches a threshold; all where there are no scores."""
        return self if self.scores is None else self.where(self.scores >= threshold)


@torch.no_grad()
def detect(model: DetectionTransformer, data_batch: Dict[str, list]) -> List[Boxes]:
    """What a model finds in B images, in pixels of the original images, best first."""
    return [boxes_of(sample.pred_instances) for sample in model.test_step(data_batch)]


def boxes_of(instances: InstanceData) -> Boxes:
    """Predicted or annotated boxes of one image."""
    return Boxes(
        get_box_tensor(instances.bboxes).cpu().numpy(),
        instances.labels.cpu().numpy(),
        instances.scores.cpu().numpy() if 'scores' in instances else None,
        run_lengths(instances.masks) if 'masks' in instances else None,
    )


def run_lengths(masks: Union[torch.Tensor, BaseInstanceMasks]) -> List[dict]:
    """N predicted (N, H, W) or annotated masks, as pycocotools keeps them."""
    pixels = masks.to_ndarray() if isinstance(masks, BaseInstanceMasks) else masks.cpu().numpy()
    return encode_mask_results(pixels)


def right_and_found(truth: Boxes, detected: Boxes, min_iou: float = 0.5) -> Tuple[np.ndarray, np.ndarray]:
    """Match detections to ground truths of the same class, best scores first, as the metrics do.

    Args:
        truth: G boxes.
        detected: N boxes, with scores.
        min_iou: from which a detection counts.

    Returns:
        (N,) bool, whether a detection is right, and (G,) bool, whether a ground truth is found.
    """
    right, found = np.zeros(len(detected.labels), bool), np.zeros(len(truth.labels), bool)
    ious = bbox_overlaps(torch.from_numpy(detected.boxes_xyxy), torch.from_numpy(truth.boxes_xyxy)).numpy()
    ious = np.where(detected.labels[:, None] == truth.labels, ious, 0)
    assert detected.scores is not None
    for index in np.argsort(-detected.scores, kind='stable') if len(found) else ():
        free = np.where(found, 0, ious[index])
        if free.max() >= min_iou:
            right[index] = found[free.argmax()] = True
    return right, found
