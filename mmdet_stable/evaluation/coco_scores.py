"""What a COCO file of detections is worth: AP, AP of each class, LRP and calibration."""

from typing import Any, Dict, List, NamedTuple

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmdet_stable.utils.quiet import quiet

from .calibration import Bin, Lrp, joined, judge, laace, laece, lrp, rank_correlation, reliability

LRP_IOU = 0.5
MAX_DETECTIONS = (100, 300, 1000)  # of an image, as mmdet counts


class ClassScores(NamedTuple):
    """One class: AP in points, LRP, and calibration errors in points above the class's best threshold; NaN where there
    is nothing to measure."""

    AP: float
    num_gts: int
    lrp: Lrp
    laece: float
    laace: float


class Scores(NamedTuple):
    """Results on a data set, in points.

    Attributes:
        metrics: AP, AP50, AP75, APs, APm, APl; -1 where there are no such objects.
        classes: name -> its scores.
        reliability: of all detections above the best threshold of their class.
        rank_correlation: of score and IoU over all true detections, in [-1, 1].
    """

    metrics: Dict[str, float]
    classes: Dict[str, ClassScores]
    reliability: List[Bin]
    rank_correlation: float

    def mean(self, name: str) -> float:
        """``'laece'``, ``'laace'`` or ``'lrp'`` averaged over the classes where it can be measured."""
        values = [getattr(scores, name) for scores in self.classes.values() if scores.num_gts]
        numbers = [100 * value.error if isinstance(value, Lrp) else value for value in values]
        return float(np.nanmean(numbers)) if np.isfinite(numbers).any() else float('nan')

    def as_dict(self) -> Dict[str, Any]:
        """All of it, for JSON; None where there is nothing to measure."""
        plain = {
            **self.metrics,
            'oLRP': self.mean('lrp'),
            'LaECE0': self.mean('laece'),
            'LaACE0': self.mean('laace'),
            'rank_correlation': self.rank_correlation,
            'classes': {
                name: {
                    'AP': scores.AP,
                    'ground_truths': scores.num_gts,
                    'oLRP': 100 * scores.lrp.error,
                    'oLRP_localisation': 100 * scores.lrp.localisation,
                    'oLRP_false_positives': 100 * scores.lrp.false_positives,
                    'oLRP_false_negatives': 100 * scores.lrp.false_negatives,
                    'oLRP_threshold': scores.lrp.threshold,
                    'LaECE0': scores.laece,
                    'LaACE0': scores.laace,
                }
                for name, scores in self.classes.items()
            },
            'reliability': [part._asdict() for part in self.reliability],
        }
        return _without_nan(plain)


def score(truth: COCO, annotations: List[Dict[str, Any]], kind: str = 'bbox') -> Scores:
    """Compare detections with a data set.

    Args:
        truth: all categories count.
        annotations: detections, as COCO's results, with the ids of ``truth``; masks for ``kind='segm'``.
        kind: ``'bbox'`` or ``'segm'``.
    """
    found = loaded(truth, annotations, kind)
    evaluation = COCOeval(truth, found, kind)
    evaluation.params.maxDets = list(MAX_DETECTIONS)
    with quiet():
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ('AP', 'AP50', 'AP75', 'APs', 'APm', 'APl')
    metrics = {name: 100 * float(value) if value >= 0 else -1.0 for name, value in zip(names, evaluation.stats)}
    judged, overlapping = judge(truth, found, LRP_IOU, kind), judge(truth, found, 0, kind)
    classes, kept = {}, []
    for index, category in enumerate(evaluation.params.catIds):
        precision = evaluation.eval['precision'][:, :, index, 0, -1]
        measured = bool(judged[category].num_gts)
        best = lrp(overlapping[category], 0).threshold if measured else float('nan')
        above = overlapping[category].above(best)
        kept.append(above)
        classes[truth.cats[category]['name']] = ClassScores(
            100 * float(precision[precision > -1].mean()) if measured else float('nan'),
            judged[category].num_gts,
            lrp(judged[category], LRP_IOU) if measured else Lrp(*[float('nan')] * 5),
            100 * laece(above),
            100 * laace(above),
        )
    return Scores(metrics, classes, reliability(joined(kept)), rank_correlation(judged.values()))


def loaded(truth: COCO, annotations: List[Dict[str, Any]], kind: str) -> COCO:
    """Detections as pycocotools has them; boxes of masks are those around them, as in mmdet's metric."""
    if not annotations:
        nothing = COCO()
        nothing.dataset = dict(images=truth.dataset['images'], categories=truth.dataset['categories'], annotations=[])
        nothing.createIndex()
        return nothing
    dropped = ('bbox', 'area') if kind == 'segm' else ('segmentation', 'area')
    results = [{key: value for key, value in entry.items() if key not in dropped} for entry in annotations]
    with quiet():
        return truth.loadRes(results)


def _without_nan(node: Any) -> Any:
    """NaN as None, since JSON knows no NaN."""
    if isinstance(node, dict):
        return {key: _without_nan(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_nan(value) for value in node]
    return None if isinstance(node, float) and np.isnan(node) else node
