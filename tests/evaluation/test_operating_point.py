"""The score threshold of the best F1, and the file that keeps it for one checkpoint."""

import numpy as np
import pytest

from mmdet_stable.evaluation.detections import Boxes
from mmdet_stable.evaluation.operating_point import (
    FILE,
    OperatingPoint,
    best_operating_point,
    keep_operating_point,
    kept_operating_point,
)


def boxes(*lefts, scores=None):
    """Boxes of 10 x 10 pixels of one class."""
    corners = np.array([[left, 0, left + 10, 10] for left in lefts], np.float32).reshape(-1, 4)
    return Boxes(corners, np.zeros(len(lefts), int), None if scores is None else np.array(scores, np.float32))


def test_the_best_f1():
    """By hand: of 4 objects, F1 is 2/5, 4/6, 4/7, 6/8, 6/9 from the best score down."""
    images = [
        (boxes(0, 50), boxes(0, 50, 90, scores=[0.5, 0.4, 0.3])),
        (boxes(0, 50), boxes(0, 20, scores=[0.2515, 0.1])),
        (boxes(), boxes(scores=[])),
    ]
    point = best_operating_point(images)
    assert point == OperatingPoint(0.251, 0.75, 0.75)  # rounded down, so that the box itself is shown
    assert best_operating_point(images[:1]) == OperatingPoint(pytest.approx(0.4, abs=1e-3), 1.0, 1.0)


def test_a_threshold_does_not_cut_between_equal_scores():
    """Of two at 0.5, of which one is right, both are shown, in whatever order they come; so are those of 0.5004."""
    for scores, lefts in (([0.5, 0.5], (0, 90)), ([0.5, 0.5], (90, 0)), ([0.5004, 0.5], (0, 90))):
        assert best_operating_point([(boxes(0), boxes(*lefts, scores=scores))]) == OperatingPoint(0.5, 0.5, 1.0)


def test_where_nothing_is_found():
    assert best_operating_point([(boxes(0), boxes(40, scores=[0.9]))]) is None
    assert best_operating_point([(boxes(), boxes(40, scores=[0.9]))]) is None
    assert best_operating_point([]) is None


def test_it_is_kept_for_one_checkpoint(tmp_path):
    point, checkpoint = OperatingPoint(0.2, 0.8, 0.7), tmp_path / 'best.pth'
    assert kept_operating_point(checkpoint) is None
    keep_operating_point(point, checkpoint)
    assert kept_operating_point(checkpoint) == point
    assert kept_operating_point(tmp_path / 'epoch_3.pth') is None
    (tmp_path / FILE).write_text('{"score_threshold": 0.2}')
    with pytest.raises(ValueError, match=r'score_threshold\.json is damaged'):
        kept_operating_point(checkpoint)
