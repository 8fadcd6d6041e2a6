"""Sampling points are those that deformable attention uses."""

import numpy as np
import pytest
import torch

from mmdet_stable.evaluation.sampling_points import (
    best_query,
    deformable_attention,
    nearest_token,
    recorded,
    sampling_points,
)
from tests.evaluation.test_layer_predictions import DINO, SIZE, WIDE, batch_of, model_of
from tests.models.detectors.test_mask_dino import model_cfg as mask_dino_cfg
from tests.utils import build, tiny_model_cfg


def single(batch):
    return {name: values[:1] for name, values in batch.items()}


@pytest.fixture(scope='module')
def model():
    model = model_of('StableDINO')
    for attention in (deformable_attention(model, 'encoder', -1), deformable_attention(model, 'decoder', 0)):
        torch.nn.init.normal_(attention.sampling_offsets.weight)
        torch.nn.init.normal_(attention.attention_weights.weight)
    return model


@pytest.mark.parametrize('part,layer', [('encoder', -1), ('decoder', 0)])
@torch.no_grad()
def test_a_record_changes_nothing(model, part, layer):
    """Of its points and weights, the attention's output is computed; afterwards, it samples as before."""
    attention = deformable_attention(model, part, layer)
    data = model.data_preprocessor(batch_of(), False)
    expected = model(**data, mode='tensor')
    with recorded(attention) as record:
        found = model(**data, mode='tensor')
        record.weights = None
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other)
    model(**data, mode='tensor')
    assert attention.sampling is None and record.weights is None


@torch.no_grad()
def test_compiled_layers_are_seen_into():
    model = model_of('StableDINO')
    expected = sampling_points(model, single(batch_of()))
    for layer in model.encoder.layers:
        layer.compile(backend='eager')
    model(**model.data_preprocessor(batch_of(), False), mode='tensor')
    assert (sampling_points(model, single(batch_of())).points == expected.points).all()


@pytest.mark.parametrize('kind', ['StableDINO', 'DABDeformableDETR', 'MaskDINO'])
@pytest.mark.parametrize('part', ['encoder', 'decoder'])
def test_points_without_offsets_are_the_reference(kind, part):
    """Also where the batch is padded: points are relative to it, and boxes to the image, but for MaskDINO's."""
    model = mask_dino() if kind == 'MaskDINO' else model_of(kind)
    model.data_preprocessor.pad_size_divisor = 80
    attention = deformable_attention(model, part, 1)
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    samples = sampling_points(model, single(batch_of()), part, layer=1)
    assert np.abs(samples.points - samples.reference).max() < 1e-2


def mask_dino():
    model = build(mask_dino_cfg()).eval()
    model.data_preprocessor = model_of('StableDINO').data_preprocessor
    return model


def test_points_in_pixels_of_the_original_image(model):
    """Seen at 96 x 128 of 128 x 170 pixels; level 1 has tokens 16 pixels apart."""
    samples = sampling_points(model, single(batch_of()), 'encoder', point=(100.0, 60.0), level=1)
    assert samples.points.shape[:2] == samples.weights.shape[:2] == (4, 3) and samples.box_xyxy is None
    assert samples.weights.sum((1, 2)) == pytest.approx([1] * 4, abs=1e-5)
    scale = 170 / SIZE[1]
    assert abs(samples.reference[0] - 100) <= 8 * scale and abs(samples.reference[1] - 60) <= 8 / 0.75
    assert samples.reference[0] / scale % 16 == pytest.approx(8, abs=1e-2)  # the centre of a token
    first = (SIZE[0] // 8) * (SIZE[1] // 8)
    assert first <= samples.query < first + (SIZE[0] // 16) * (SIZE[1] // 16)


def test_the_decoders_query_holds_the_point(model):
    best = sampling_points(model, single(batch_of()), 'decoder')
    x1, y1, x2, y2 = best.box_xyxy
    again = sampling_points(model, single(batch_of()), 'decoder', point=((x1 + x2) / 2, (y1 + y2) / 2))
    assert again.query == best.query and 0 <= best.query < model.num_queries


def test_choosing_by_hand():
    scores, boxes = torch.tensor([0.9, 0.5, 0.7]), torch.tensor([[10.0, 10, 4, 4], [30, 30, 8, 8], [32, 32, 8, 8]])
    assert best_query(scores, boxes, None) == 0
    assert best_query(scores, boxes, (31, 31)) == 2 and best_query(scores, boxes, (27, 27)) == 1
    with pytest.raises(ValueError, match='no query has its box there'):
        best_query(scores, boxes, (0, 0))
    references = torch.tensor([[1.0, 1], [3, 1], [1, 3], [3, 3], [2, 2]])
    assert nearest_token(references, [(2, 2), (1, 1)], 0, (2.6, 1.9)) == 1
    assert nearest_token(references, [(2, 2), (1, 1)], 1, (0, 0)) == 4


def test_mistakes_are_explained(model):
    batch = single(batch_of())
    for wrong, message in (
        (dict(part='neck'), "part='neck': known are"),
        (dict(layer=2), 'layer=2: the encoder of StableDINO has layers 0 to 1'),
        (dict(level=3), 'level=3: the model has levels 0 to 2'),
    ):
        with pytest.raises(ValueError, match=message):
            sampling_points(model, batch, **wrong)
    with pytest.raises(ValueError, match='attends everywhere by FusedConditionalAttention'):
        sampling_points(model_of('DNDETR'), batch, 'decoder')
    with pytest.raises(ValueError, match=r'DINO: only detectors of this package .* with model\.type="StableDINO"'):
        sampling_points(build(tiny_model_cfg(DINO, **WIDE)).eval(), batch)
