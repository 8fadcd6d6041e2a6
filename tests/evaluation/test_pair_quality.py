"""Where queries are well placed and sure of it, by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmdet_stable.evaluation import LayerPredictions, match_layers, predict_layers
from mmdet_stable.evaluation.pair_quality import correlation, matching_trace, pair_quality, score_alignment
from mmdet_stable.structures import BatchTargets, Predictions
from tests.evaluation.test_layer_predictions import batch_of, model_of
from tests.evaluation.test_sampling_points import single
from tests.utils import data_sample


@pytest.mark.parametrize('use_sigmoid', [True, False])
def test_quality_by_hand(use_sigmoid):
    """One box of class 1; a query on it, one that covers it and as much again."""
    sample = data_sample(torch.tensor([[20.0, 20, 40, 40]]), torch.tensor([1]), (100, 100))
    targets = BatchTargets.from_instances([sample.gt_instances], [sample.metainfo])
    logits = torch.tensor([[0.0, 1.0, 3.0], [0.0, -1.0, 0.0]])
    boxes = torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.4, 0.3, 0.4, 0.2]])
    if use_sigmoid:
        logits = logits[:, :2]
    predictions = LayerPredictions(Predictions(logits[None, None], boxes[None, None], ('',)), None, targets)
    model = SimpleNamespace(bbox_head=SimpleNamespace(loss_cls=SimpleNamespace(use_sigmoid=use_sigmoid)))
    ious, scores = pair_quality(model, predictions)
    assert ious.flatten().tolist() == pytest.approx([1.0, 0.5], abs=1e-5)
    expected = logits.sigmoid() if use_sigmoid else logits.softmax(-1)
    assert scores.flatten().tolist() == pytest.approx(expected[:, 1].tolist())


def test_alignment_takes_the_best_placed_queries_of_each_image():
    model, batch = model_of('StableDINO'), single(batch_of())
    points = score_alignment(model, [batch, single(batch_of((0, 0))), batch], num_queries=3)
    ious, scores = pair_quality(model, predict_layers(model, batch))
    closest, gts = ious[-1, 0].max(0)
    pairs = torch.stack([closest, scores[-1, 0][gts, range(20)]], 1).numpy()
    best = sorted(pairs[:, 0], reverse=True)[:3]
    np.testing.assert_allclose(points[:, 0], [*best, *best], atol=1e-6)
    for point in points:  # where queries overlap equally well, any of them may be taken
        assert np.abs(pairs - point).max(1).min() < 1e-6
    assert len(score_alignment(model, [batch], num_queries=100)) == 20
    with pytest.raises(ValueError, match='num_queries=0'):
        score_alignment(model, [batch], 0)


def test_correlation():
    assert correlation(np.array([[0.1, 0.2], [0.2, 0.4], [0.3, 0.6]])) == pytest.approx(1)
    assert correlation(np.array([[0.1, 0.6], [0.2, 0.4], [0.3, 0.2]])) == pytest.approx(-1)
    assert math.isnan(correlation(np.empty((0, 2)))) and math.isnan(correlation(np.ones((3, 2))))


def test_trace_of_one_image():
    model, batch = model_of('StableDINO'), single(batch_of())
    trace = matching_trace(model, batch)
    predictions = predict_layers(model, batch)
    (matches,) = match_layers(model, predictions)
    assert trace.layers == (0, 1, 2) and trace.query_inds.tolist() == matches.query_inds.tolist()
    assert not trace.changed[0].any()
    assert trace.changed[1:].tolist() == (matches.query_inds[1:] != matches.query_inds[:-1]).tolist()
    ious, scores = pair_quality(model, predictions)
    query = matches.query_inds[2, 1]
    assert trace.ious[2, 1] == pytest.approx(ious[2, 0, 1, query].item())
    assert trace.scores[2, 1] == pytest.approx(scores[2, 0, 1, query].item())
    x, _, _, h = predictions.decoder.boxes_cxcywh[1, 0, query].tolist()
    left, top, right, bottom = trace.boxes_xyxy[2, 1]
    assert (left + right, bottom - top) == pytest.approx((2 * x * 170, h * 128), rel=1e-4)
    gts = batch['data_samples'][0].gt_instances
    np.testing.assert_allclose(trace.gt_boxes_xyxy, gts.bboxes, atol=1e-4)
    with pytest.raises(ValueError, match='0 ground truths'):
        matching_trace(model, single(batch_of((0, 0))))
