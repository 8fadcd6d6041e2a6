"""Everything that is measured on one trained model: AP, AP of each class, unstable scores, alignment."""

from typing import Dict, List, NamedTuple, Tuple

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from mmdet_stable.utils.quiet import quiet

from .detections import Boxes, boxes_of
from .matching_stability import MatchingStability
from .pair_quality import score_alignment
from .run_log import METRICS
from .subject import Subject

BY_CLASS = 'by_class'  # what the metric that has the AP of each class is called


class Examination(NamedTuple):
    """Results of one model on its test set.

    Attributes:
        metrics: those of :data:`METRICS` that there are boxes for, in points.
        class_aps: AP of the boxes of each class in points, of its masks where only these are asked for; NaN for
            classes without ground truth.
        unstable_scores: decoder layer -> percent, on the first images.
        alignment: (N, 2) of IoU and score on the first images, see :func:`score_alignment`.
        images: path of every image -> its ground truth, and what was detected there.
    """

    metrics: Dict[str, float]
    class_aps: Dict[str, float]
    unstable_scores: Dict[int, float]
    alignment: np.ndarray
    images: Dict[str, Tuple[Boxes, Boxes]]


def examine(subject: Subject, num_images: int = 20, num_queries: int = 30) -> Examination:
    """Run a model over its test set.

    Args:
        num_images: how many images to look at for unstable scores and alignment, the first ones.
        num_queries: of each image, for the alignment.

    Raises:
        ValueError: if its config has no COCO metric in ``test_evaluator``.
    """
    stability = MatchingStability(num_images)
    stability.model = subject.model
    found, images = run_evaluation(subject, [*coco_metrics(subject), stability])
    prefix = f'{stability.default_prefix}/unstable_'
    layers = {key[len(prefix) :]: value for key, value in found.items() if key.startswith(prefix)}
    return Examination(
        metrics={name: 100 * found[key] for name, key in METRICS.items() if found.get(key, -1) >= 0},
        class_aps={
            name: 100 * found.get(f'{BY_CLASS}/{name}_precision', float('nan'))
            for name in subject.dataset.metainfo['classes']
        },
        unstable_scores={int(layer): score for layer, score in layers.items() if layer.isdigit()},
        alignment=score_alignment(subject.model, subject.batches(num_images), num_queries),
        images=images,
    )


def coco_metrics(subject: Subject) -> List[dict]:
    """The COCO metrics of a model's config, and one for the AP of each class: of boxes, if these are asked for.

    That one is apart, since mmdet's reports the AP of a class by the class alone, whatever it is of.
    """
    evaluator = subject.config.test_evaluator
    settings = evaluator if isinstance(evaluator, (list, tuple)) else [evaluator]
    coco = [metric for metric in settings if metric['type'] == 'CocoMetric']
    if not coco:
        raise ValueError(f'{subject.name}: no CocoMetric in test_evaluator, but its AP is asked for')
    kinds = coco[0].get('metric', 'bbox')
    kind = 'bbox' if 'bbox' in kinds else kinds
    return [*coco, dict(coco[0], metric=kind, classwise=True, prefix=BY_CLASS, outfile_prefix=None)]


@torch.no_grad()
def run_evaluation(subject: Subject, metrics: list) -> Tuple[Dict[str, float], Dict[str, Tuple[Boxes, Boxes]]]:
    """What the metrics say of a model's detections on its whole test set, and path -> ground truth and detections."""
    with quiet():
        loader = Runner.build_dataloader(subject.config.test_dataloader)
        evaluator = Evaluator(metrics)
    evaluator.dataset_meta = subject.dataset.metainfo
    images = {}
    for batch in loader:
        samples = subject.model.test_step(batch)
        evaluator.process(samples, batch)
        images.update(
            {sample.img_path: (boxes_of(sample.gt_instances), boxes_of(sample.pred_instances)) for sample in samples}
        )
    with quiet():
        metrics_found = evaluator.evaluate(len(loader.dataset))
    return metrics_found, images
