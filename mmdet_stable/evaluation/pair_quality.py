"""How good queries are for ground truths: where they are well placed, and where they are sure of it."""

from typing import Dict, Iterable, NamedTuple, Tuple

import numpy as np
import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor

from mmdet_stable.models.task_modules import Pairwise, of_gt_classes

from .layer_predictions import LayerPredictions, class_scores, predict_layers
from .matching_stability import match_layers


def pair_quality(model: DetectionTransformer, predictions: LayerPredictions) -> Tuple[Tensor, Tensor]:
    """IoU of every (ground truth, query) pair, and the score that the query gives to the ground truth's class.

    Returns:
        Two tensors (L, B, G, Q) in [0, 1]; meaningless in padded ground truths.
    """
    ious, scores = [], []
    for group in predictions.groups:
        targets = predictions.targets.class_agnostic() if group.class_agnostic else predictions.targets
        ious.append(Pairwise(group, targets).iou)
        scores.append(of_gt_classes(class_scores(model, group.logits.float()), targets.labels))
    return torch.cat(ious), torch.cat(scores)


def score_alignment(
    model: DetectionTransformer, data_batches: Iterable[Dict[str, list]], num_queries: int = 30
) -> np.ndarray:
    """IoU and score of the best-placed queries of every image, after the last layer.

    Args:
        data_batches: as for :func:`predict_layers`, one image each; images without ground truth give nothing.
        num_queries: how many queries of an image to take, those of the highest IoU with any of its ground truths.

    Returns:
        (N, 2) rows of the IoU with the closest ground truth and the score of that ground truth's class, in [0, 1].

    Raises:
        ValueError: if ``num_queries`` is below 1.

    Source: arXiv:2304.04742 Fig. 6.
    """
    if num_queries < 1:
        raise ValueError(f'num_queries={num_queries}: at least 1 is needed')
    points = [np.empty((0, 2))]
    for batch in data_batches:
        predictions = predict_layers(model, batch)
        if not predictions.targets.num_gts[0]:
            continue
        ious, scores = (values[-1, 0] for values in pair_quality(model, predictions))
        closest, gt_inds = ious.max(dim=0)
        best = closest.topk(min(num_queries, len(closest))).indices
        points.append(torch.stack([closest[best], scores[gt_inds[best], best]], dim=1).cpu().numpy())
    return np.concatenate(points)


def correlation(points: np.ndarray) -> float:
    """Pearson's correlation of the two columns; NaN for fewer than two points, or where a column is constant."""
    if len(points) < 2 or not points.std(axis=0).all():
        return float('nan')
    return float(np.corrcoef(points.T)[0, 1])


class MatchingTrace(NamedTuple):
    """The matched query of each of G ground truths of one image at each of L layers.

    Attributes:
        layers: L numbers; 0 is the encoder.
        query_inds: (L, G); -1 for none.
        boxes_xyxy: (L, G, 4) of the matched queries, in pixels of the original image.
        ious, scores: (L, G), see :func:`pair_quality`.
        gt_boxes_xyxy: (G, 4) in pixels of the original image.
        gt_labels: (G,).
    """

    layers: Tuple[int, ...]
    query_inds: np.ndarray
    boxes_xyxy: np.ndarray
    ious: np.ndarray
    scores: np.ndarray
    gt_boxes_xyxy: np.ndarray
    gt_labels: np.ndarray

    @property
    def changed(self) -> np.ndarray:
        """(L, G) bool, whether the query is another than in the layer before; False in the first."""
        return np.concatenate([np.zeros_like(self.query_inds[:1], bool), np.diff(self.query_inds, axis=0) != 0])


def matching_trace(model: DetectionTransformer, data_batch: Dict[str, list]) -> MatchingTrace:
    """The trace of one image.

    Raises:
        ValueError: if the image has no ground truth, or more than there are queries.
    """
    predictions = predict_layers(model, data_batch)
    targets = predictions.targets
    ((layers, query_inds),) = match_layers(model, predictions)
    num_gts = query_inds.shape[1]
    if not num_gts or (query_inds < 0).any():
        raise ValueError(f'the image has {num_gts} ground truths; a trace needs at least 1, and a query for each')
    boxes = torch.cat([group.boxes_cxcywh[:, 0] for group in predictions.groups])
    boxes = (bbox_cxcywh_to_xyxy(boxes) * targets.whwh[0]).cpu()
    of_matches = query_inds[..., None]
    ious, scores = (values[:, 0].cpu().gather(2, of_matches)[..., 0] for values in pair_quality(model, predictions))
    return MatchingTrace(
        layers=layers,
        query_inds=query_inds.numpy(),
        boxes_xyxy=boxes.gather(1, query_inds[..., None].expand(-1, -1, 4)).numpy(),
        ious=ious.numpy(),
        scores=scores.numpy(),
        gt_boxes_xyxy=targets.boxes_xyxy[0].cpu().numpy(),
        gt_labels=targets.labels[0].cpu().numpy(),
    )
