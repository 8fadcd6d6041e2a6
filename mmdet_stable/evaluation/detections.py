"""Boxes in images: detected, and to be detected."""

from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures.bbox import bbox_overlaps, get_box_tensor
from mmengine.structures import InstanceData


class Boxes(NamedTuple):
    """Boxes in one image: (N, 4) absolute xyxy, (N,) labels, and (N,) scores, which ground truth has not."""

    boxes_xyxy: np.ndarray
    labels: np.ndarray
    scores: Optional[np.ndarray] = None

    def above(self, threshold: float) -> 'Boxes':
        """The boxes whose score reaches a threshold; all where there are no scores."""
        if self.scores is None:
            return self
        keep = self.scores >= threshold
        return Boxes(self.boxes_xyxy[keep], self.labels[keep], self.scores[keep])


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
    )


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
