"""Calibration and the LRP error, by hand."""

import math

import numpy as np
import pytest
from pycocotools.coco import COCO

from mmdet_stable.evaluation.calibration import (
    Judged,
    judge,
    laace,
    laece,
    lrp,
    rank_correlation,
    reliability,
)
from mmdet_stable.evaluation.coco_scores import score


def judged(scores, ious, num_gts):
    return Judged(np.array(scores, float), np.array(ious, float), num_gts)


def coco(images, boxes, scores=False):
    """Boxes: (image, category, x, y, w, h[, score or crowd])."""
    dataset = COCO()
    dataset.dataset = dict(
        images=[dict(id=image, width=100, height=100) for image in images],
        categories=[dict(id=1, name='car'), dict(id=2, name='bus')],
        annotations=[
            dict(
                id=number,
                image_id=image,
                category_id=category,
                bbox=[x, y, w, h],
                area=w * h,
                iscrowd=0 if scores or not extra else 1,
                score=extra,
            )
            for number, (image, category, x, y, w, h, extra) in enumerate(boxes, 1)
        ],
    )
    dataset.createIndex()
    return dataset


def test_lrp_by_hand():
    """Four ground truths; a true one of IoU 0.9, a false one, a true one of IoU 0.55, or of 0.8."""
    found = lrp(judged([0.9, 0.8, 0.7], [0.9, 0, 0.55], 4), 0.5)
    # (0.1 / 0.5 + 0 + 3) / 4 = 0.8; then (0.2 + 1 + 3) / 5 = 0.84; then (0.2 + 0.9 + 1 + 2) / 5 = 0.82
    assert found == pytest.approx((0.8, 0.1, 0.0, 0.75, 0.9))
    better = lrp(judged([0.9, 0.8, 0.7], [0.9, 0, 0.8], 4), 0.5)
    # (0.1 / 0.5 + 0.2 / 0.5 + 1 + 2) / 5
    assert better == pytest.approx((0.72, 0.15, 1 / 3, 0.5, 0.7))


@pytest.mark.parametrize(
    'scores,ious,expected',
    [([1.0, 0.5], [1.0, 1.0], 0.0), ([], [], 1.0), ([0.9], [0.0], 1.0)],
    ids=['perfect', 'nothing', 'false'],
)
def test_lrp_at_its_limits(scores, ious, expected):
    found = lrp(judged(scores, ious, 2), 0.5)
    assert found.error == expected and found.false_negatives == expected
    assert math.isnan(found.threshold) == (expected == 1)


@pytest.mark.parametrize('ious', [[0.9, 0.0], [0.0, 0.9]])
def test_lrp_of_equal_scores_is_that_of_all(ious):
    """Of a true one with IoU 0.9 and a false one: (0.2 + 1) / 2, in whatever order they come."""
    assert lrp(judged([0.5, 0.5], ious, 1), 0.5).error == pytest.approx(0.6)


def test_laece_by_hand():
    """Four detections, of which one is false, in two bins and in ten."""
    found = judged([0.97, 0.93, 0.52, 0.48], [0.6, 0.4, 0.8, 0.0], 9)
    assert laece(found, num_bins=2) == pytest.approx(abs((0.97 + 0.93 + 0.52) / 3 - 0.6) * 3 / 4 + 0.48 / 4)
    assert laece(found, num_bins=10) == pytest.approx(0.45 * 0.5 + abs(0.52 - 0.8) * 0.25 + 0.48 * 0.25)
    assert laace(found) == pytest.approx((0.37 + 0.53 + 0.28 + 0.48) / 4)
    # As published: precision of a bin times the mean IoU of its true detections.
    assert reliability(found, 1)[0].iou == pytest.approx(3 / 4 * np.mean([0.6, 0.4, 0.8]))


def test_bins_include_their_upper_edge():
    bins = reliability(judged([1.0, 0.5, 0.04, 0.0], [1, 0.5, 0, 0], 4), 25)
    assert [(part.score, part.share) for part in bins] == [(0.02, 0.5), (0.5, 0.25), (1.0, 0.25)]


@pytest.mark.parametrize('error', [0.0, 0.2])
def test_scores_that_are_the_ious_are_calibrated(error):
    ious = np.random.default_rng(0).uniform(0, 0.8, 1000)
    found = Judged(ious + error, ious, 1000)
    assert laece(found) == pytest.approx(error) and laace(found) == pytest.approx(error)
    assert rank_correlation([found]) == pytest.approx(1)


def test_without_detections():
    nothing = judged([], [], 3)
    assert math.isnan(laece(nothing)) and math.isnan(laace(nothing)) and reliability(nothing) == []
    assert math.isnan(rank_correlation([nothing])) and math.isnan(rank_correlation([judged([1], [1], 1)]))


def test_matching():
    """The better score takes the ground truth; another class, another image, a crowd and no overlap do not count."""
    truth = coco(
        [1, 2],
        [(1, 1, 0, 0, 10, 10, 0), (1, 1, 50, 50, 20, 20, 1), (2, 2, 0, 0, 10, 10, 0), (2, 1, 40, 0, 10, 10, 0)],
    )
    found = coco(
        [1, 2],
        [
            (1, 1, 80, 80, 5, 5, 0.95),  # on nothing, which takes no ground truth
            (1, 1, 0, 0, 10, 5, 0.9),  # IoU 0.5
            (1, 1, 0, 0, 10, 10, 0.8),  # on the same one, too late
            (1, 1, 50, 50, 10, 10, 0.7),  # in the crowd
            (2, 2, 5, 0, 10, 10, 0.6),  # IoU 1/3
            (2, 1, 0, 0, 10, 10, 0.5),  # of the other class
        ],
        scores=True,
    )
    cars, buses = judge(truth, found, 0.0).values()
    assert cars.scores.tolist() == [0.95, 0.9, 0.8, 0.5] and cars.ious.tolist() == [0, 0.5, 0, 0] and cars.num_gts == 2
    assert buses.ious.tolist() == pytest.approx([1 / 3]) and buses.num_gts == 1
    assert judge(truth, found, 0.5)[1].ious.tolist() == [0, 0.5, 0, 0]
    assert judge(truth, found, 0.5)[2].ious.tolist() == [0]


def test_scores_of_a_data_set():
    truth = coco([1, 2], [(1, 1, 0, 0, 10, 10, 0), (2, 1, 0, 0, 10, 10, 0)])
    found = [
        dict(image_id=1, category_id=1, bbox=[0, 0, 10, 10], score=0.9),
        dict(image_id=2, category_id=1, bbox=[0, 0, 10, 8], score=0.6),
        dict(image_id=2, category_id=2, bbox=[0, 0, 10, 8], score=0.99),
    ]
    scores = score(truth, found)
    # Both true up to IoU 0.8, one of two above: (7 * 1 + 3 * 51 / 101) / 10
    assert scores.metrics['AP'] == pytest.approx(100 * (7 + 3 * 51 / 101) / 10)
    car, bus = scores.classes['car'], scores.classes['bus']
    assert scores.metrics['AP'] == pytest.approx(car.AP) and car.num_gts == 2 and math.isnan(bus.AP)
    assert car.lrp == pytest.approx((0.2, 0.1, 0, 0, 0.6))  # (0 / 0.5 + 0.2 / 0.5) / 2
    assert car.laece == pytest.approx(100 * (0.1 / 2 + 0.2 / 2)) and car.laace == pytest.approx(15)
    assert scores.mean('lrp') == pytest.approx(20) and scores.mean('laece') == pytest.approx(15)
    assert scores.rank_correlation == pytest.approx(1) and len(scores.reliability) == 2
    numbers = scores.as_dict()
    assert numbers['classes']['bus']['AP'] is None and numbers['oLRP'] == pytest.approx(20)


def test_a_data_set_in_which_nothing_is_found():
    scores = score(coco([1], [(1, 1, 0, 0, 10, 10, 0)]), [])
    assert scores.metrics['AP'] == 0 and scores.mean('lrp') == 100 and math.isnan(scores.mean('laece'))
    assert scores.as_dict()['LaECE0'] is None and scores.reliability == []
