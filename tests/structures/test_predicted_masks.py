"""Masks of all groups of queries share their features, in any precision."""

import torch

from mmdet_stable.structures import BatchTargets, Matched, PredictedMasks, QueryPlan, Segment
from tests.utils import samples


def test_features_of_half_precision_are_kept_once():
    segments = Segment('', 3, Matched()), Segment('o2m_', 4, Matched())
    plan = QueryPlan(segments, BatchTargets.from_samples(samples((1, 1))))
    features = torch.randn(2, 16, 4, 4, dtype=torch.bfloat16)
    masks = PredictedMasks(torch.randn(2, 2, 7, 16, dtype=torch.bfloat16), features)
    logits, boxes = torch.randn(2, 2, 7, 5, dtype=torch.bfloat16), torch.rand(2, 2, 7, 4)
    parts = [part.float() for part in plan.split(logits, boxes, masks)]
    assert {part.masks.features.data_ptr() for part in parts} == {features.data_ptr()}
    assert {part.masks.embeddings.dtype for part in parts} == {part.logits.dtype for part in parts} == {torch.float32}
