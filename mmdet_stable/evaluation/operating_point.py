"""From which score on detections are shown: the threshold that suits a trained model, kept beside its checkpoint.

Scores of detectors are not comparable. Position supervision lowers them, short trainings and many classes too, so that
one threshold for all, as 0.3, hides most of what some models find.
"""

import json
from pathlib import Path
from typing import Iterable, List, NamedTuple, Optional, Tuple

import numpy as np

from mmdet_stable.utils.files import write_whole

from .calibration import last_of_equals
from .detections import Boxes, right_and_found

FILE = 'score_threshold.json'


class OperatingPoint(NamedTuple):
    """A score from which on detections are shown, and what they are worth then, all in [0, 1].

    Attributes:
        precision: share of the detections from there on that are right.
        recall: share of the ground truths that are found.
    """

    score_threshold: float
    precision: float
    recall: float


def best_operating_point(images: Iterable[Tuple[Boxes, Boxes]], min_iou: float = 0.5) -> Optional[OperatingPoint]:
    """The score threshold with the largest F1 = 2 right / (detections + ground truths), of all classes together.

    Args:
        images: ground truth and detections, with scores, of each image.
        min_iou: from which a detection counts.

    Returns:
        None where nothing is found.
    """
    scores: List[np.ndarray] = [np.zeros(0)]
    right: List[np.ndarray] = [np.zeros(0, bool)]
    num_truths = 0
    for truth, detected in images:
        assert detected.scores is not None
        scores.append(detected.scores)
        right.append(right_and_found(truth, detected, min_iou)[0])  # the same whatever is left out of lower scores
        num_truths += len(truth.labels)
    all_scores, all_right = np.concatenate(scores), np.concatenate(right)
    if not all_right.any():
        return None
    thresholds = np.floor(1000 * all_scores) / 1000
    order = np.argsort(-thresholds, kind='stable')
    num_right, num_shown = np.cumsum(all_right[order]), np.arange(1, len(order) + 1)
    f1 = 2 * num_right / (num_shown + num_truths)
    best = int(np.argmax(np.where(last_of_equals(thresholds[order]), f1, -1)))
    threshold = float(thresholds[order[best]])
    return OperatingPoint(threshold, float(num_right[best] / num_shown[best]), float(num_right[best] / num_truths))


def keep_operating_point(point: OperatingPoint, checkpoint: Path) -> None:
    """Write ``score_threshold.json`` beside the checkpoint that it is for."""
    content = dict(point._asdict(), checkpoint=checkpoint.name)
    write_whole(checkpoint.with_name(FILE), json.dumps(content, indent=1))


def kept_operating_point(checkpoint: Path) -> Optional[OperatingPoint]:
    """What is kept for a checkpoint; None where there is nothing, or only for another one.

    Raises:
        ValueError: for a file that is damaged.
    """
    path = checkpoint.with_name(FILE)
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        point = OperatingPoint(*(float(content[name]) for name in OperatingPoint._fields))
        other = content['checkpoint'] != checkpoint.name
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is damaged ({error!r}); remove it, or train again') from error
    return None if other else point
