"""Do scores tell how well objects are placed? Localisation-aware calibration, and the LRP error.

A detection is true if it is matched with a ground truth of its class; matching is that of COCO's evaluation, the best
scores first. Its target is the IoU with that ground truth; the target of a false one is 0. Scores are calibrated where
detections of score p have targets of p on average.
"""

from typing import Dict, Iterable, List, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.stats import spearmanr

from mmdet_stable.utils.quiet import quiet

NUM_BINS = 25  # of LaECE, as published
ANY_OVERLAP = 1e-9  # an IoU of 0 matches nothing


class Judged(NamedTuple):
    """The detections of one class in a whole data set, best scores first.

    Attributes:
        scores: (N,) in [0, 1], descending.
        ious: (N,) in [0, 1] with the matched ground truth; 0 for false ones.
        num_gts: how many ground truths there are to find.
    """

    scores: np.ndarray
    ious: np.ndarray
    num_gts: int

    def above(self, threshold: float) -> 'Judged':
        """Those whose score reaches a threshold; none for NaN."""
        keep = self.scores >= threshold
        return Judged(self.scores[keep], self.ious[keep], self.num_gts)


class Lrp(NamedTuple):
    """The LRP error of one class at the score threshold where it is smallest, all in [0, 1]; lower is better.

    Attributes:
        error: 1 where nothing is found.
        localisation: mean of 1 - IoU of true detections; NaN without them.
        false_positives: share of the detections; NaN without them.
        false_negatives: share of the ground truths.
        threshold: of the score; NaN where nothing is found.
    """

    error: float
    localisation: float
    false_positives: float
    false_negatives: float
    threshold: float


class Bin(NamedTuple):
    """Detections of similar scores: their means, and their share of all detections."""

    score: float
    iou: float
    share: float


def judge(truth: COCO, found: COCO, min_iou: float, kind: str = 'bbox') -> Dict[int, Judged]:
    """Match detections with ground truths.

    Args:
        truth, found: annotations of the same images, the latter with scores; of each image and class, the 100 best
            detections count. Detections on crowds are left out.
        min_iou: from which a detection is true; for 0, any overlap will do.
        kind: ``'bbox'`` or ``'segm'``.

    Returns:
        Category id -> its detections.
    """
    evaluation = COCOeval(truth, found, kind)
    evaluation.params.iouThrs = np.array([max(min_iou, ANY_OVERLAP)])
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ['all']
    evaluation.params.maxDets = [100]
    with quiet():
        evaluation.evaluate()
    parts: Dict[int, List[Judged]] = {category: [] for category in evaluation.params.catIds}
    for image in filter(None, evaluation.evalImgs):
        key = image['image_id'], image['category_id']
        columns = {gt['id']: column for column, gt in enumerate(evaluation._gts[key])}
        matches = image['dtMatches'][0].astype(int)
        ious = [
            evaluation.ious[key][row, columns[match]] if match else 0.0 for row, match in enumerate(matches.tolist())
        ]
        counted = ~image['dtIgnore'][0].astype(bool)
        num_gts = int(np.count_nonzero(np.asarray(image['gtIgnore']) == 0))
        scores = np.array(image['dtScores'], dtype=float)
        parts[image['category_id']].append(Judged(scores[counted], np.array(ious)[counted], num_gts))
    return {category: joined(images) for category, images in parts.items()}


def joined(parts: Iterable[Judged]) -> Judged:
    """Detections of several images, or of several classes as if they were of one."""
    parts = [Judged(np.zeros(0), np.zeros(0), 0), *parts]
    scores, ious = (np.concatenate(values) for values in list(zip(*parts))[:2])
    order = np.argsort(-scores, kind='stable')
    return Judged(scores[order], ious[order], sum(part.num_gts for part in parts))


def lrp(detections: Judged, min_iou: float) -> Lrp:
    """The optimal LRP error: (sum over true ones of (1 - IoU) / (1 - min_iou) + false + missed) / (true + false +
    missed), at the score threshold where it is smallest.

    Args:
        detections: matched from ``min_iou`` on; there is at least one ground truth.

    Source: Oksuz et al., One Metric to Measure them All, TPAMI 2021.
    """
    right = detections.ious > 0
    if not right.any():
        return Lrp(1.0, float('nan'), 1.0 if len(right) else float('nan'), 1.0, float('nan'))
    true, false = np.cumsum(right), np.cumsum(~right)
    missed = detections.num_gts - true
    distances = np.cumsum(np.where(right, 1 - detections.ious, 0))
    errors = (distances / (1 - min_iou) + false + missed) / (true + false + missed)
    best = int(np.argmin(np.where(last_of_equals(detections.scores), errors, np.inf)))
    if not true[best]:  # only false ones have scores as high; to find nothing is as good
        return Lrp(1.0, float('nan'), 1.0, 1.0, float('nan'))
    return Lrp(
        float(errors[best]),
        float(distances[best] / true[best]),
        float(false[best] / (true[best] + false[best])),
        float(missed[best] / detections.num_gts),
        float(detections.scores[best]),
    )


def last_of_equals(scores: np.ndarray) -> np.ndarray:
    """Where a threshold can cut detections that are sorted by score, (N,) bool: after the last of each score."""
    return np.append(scores[:-1] != scores[1:], [True] * (len(scores) > 0))


def reliability(detections: Judged, num_bins: int = NUM_BINS) -> List[Bin]:
    """Detections by bins of the score that are equally wide, of which an upper edge belongs to the bin below it."""
    inds = np.clip(np.ceil(detections.scores * num_bins).astype(int) - 1, 0, num_bins - 1)
    return [
        Bin(
            float(detections.scores[inds == index].mean()),
            float(detections.ious[inds == index].mean()),
            float((inds == index).mean()),
        )
        for index in np.unique(inds)
    ]


def laece(detections: Judged, num_bins: int = NUM_BINS) -> float:
    """Localisation-aware expected calibration error of one class, in [0, 1]: |mean score - mean IoU| of each bin,
    weighted by the bin's share of the detections, summed; NaN without detections.

    A bin's precision times the mean IoU of its true detections, as published, is the mean of all targets in it.

    Source: Oksuz et al., Towards Building Self-Aware Object Detectors, CVPR 2023; without a lowest IoU (LaECE_0) Kuzucu
    et al., On Calibration of Object Detectors, ECCV 2024. In their code, a detection that overlaps nothing may take a
    ground truth from a later one; here it does not.
    """
    if not len(detections.scores):
        return float('nan')
    return sum(part.share * abs(part.score - part.iou) for part in reliability(detections, num_bins))


def laace(detections: Judged) -> float:
    """The same with a bin for each detection, LaACE_0 of Kuzucu et al.: the mean of |score - IoU|."""
    return float(np.abs(detections.scores - detections.ious).mean()) if len(detections.scores) else float('nan')


def rank_correlation(classes: Iterable[Judged]) -> float:
    """Spearman's correlation of score and IoU over the true detections of all classes; NaN for fewer than two."""
    detections = joined(classes)
    right = detections.ious > 0
    scores, ious = detections.scores[right], detections.ious[right]
    if len(set(scores)) < 2 or len(set(ious)) < 2:
        return float('nan')
    return float(spearmanr(scores, ious).statistic)
