"""Quantised files: what is quantised, and when a file is refused."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from mmdet_stable.__main__ import main
from mmdet_stable.export import Evidence, ExportError, Settings, export, source_of
from mmdet_stable.export.agreement import INT8, Agreement, Pair, agreement
from mmdet_stable.export.exporting import batches_of, write_checked
from mmdet_stable.export.quantising import MOST_PICTURES, calibration_pictures, quantised
from mmdet_stable.runtime.detector import METADATA

from .models import in_precision

SETTINGS = Settings(int8=Path('pictures'))


@pytest.fixture(scope='module')
def model(dino):
    """The tiny Stable-DINO, quantised by the synthetic pictures."""
    inputs = (dict(images=images) for images, _ in batches_of(dino.source, ()))
    return quantised(onnx.ModelProto.FromString(dino.content), inputs)


@pytest.fixture(scope='module')
def source(dino):
    return in_precision(dino.source, SETTINGS)


def test_weights_have_eight_bits(model, dino):
    whole = onnx.ModelProto.FromString(dino.content)
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    dequantised = {
        node.output[0]: kinds.get(node.input[0]) for node in model.graph.node if node.op_type == 'DequantizeLinear'
    }
    first, *others = [node for node in model.graph.node if node.op_type == 'Conv']
    assert others and all(dequantised[node.input[1]] == TensorProto.INT8 for node in others)
    assert first.input[1] not in dequantised
    products = {node.name: set(node.input) & set(dequantised) for node in model.graph.node if node.op_type == 'MatMul'}
    for part in ('reg_branches', 'cls_branches', 'ref_point_head', 'sampling_offsets', 'attention_weights'):
        inputs = [found for name, found in products.items() if part in name]
        assert inputs and not any(inputs), part
    for part in ('ffn', 'value_proj', 'output_proj', 'memory_trans_fc'):
        inputs = [found for name, found in products.items() if part in name]
        assert inputs and all(len(found) == 2 for found in inputs), part
    for node in model.graph.node:
        if node.op_type in ('LayerNormalization', 'Softmax', 'TopK', 'Sigmoid', 'GatherElements'):
            assert not set(node.input) & set(dequantised), node.name
    assert model.ByteSize() < 0.8 * whole.ByteSize()
    assert {node.domain for node in model.graph.node} <= {'', 'ai.onnx'}


def test_weights_are_quantised_channel_by_channel_without_overflow(model):
    """A sum of two products of 8 bits fits into 16 bits with sign only if weights have 7: 2 * 255 * 64 < 2**15."""
    weights = {weight.name: onnx.numpy_helper.to_array(weight) for weight in model.graph.initializer}
    quantised_weights = [values for name, values in weights.items() if name.endswith('_quantized') and values.ndim > 1]
    assert quantised_weights and all(np.abs(values.astype(int)).max() <= 64 for values in quantised_weights)
    scales = [values for name, values in weights.items() if name.endswith('weight_scale') and values.size > 1]
    assert scales


def test_a_wrong_file_is_refused(source, dino, tmp_path):
    """A bias of the last layer of boxes is another."""
    model = onnx.ModelProto.FromString(dino.content)
    (bias,) = [weight for weight in model.graph.initializer if 'reg_branches.1.4.bias' in weight.name]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(1), bias.name))
    with pytest.raises(ExportError, match=r'the file does not see what the model does: .*\n.* is asked for'):
        write_checked(source, model, tmp_path / 'file')


BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [0, 40, 10, 50]], np.float32)
MODEL = dict(
    boxes=torch.tensor(BOXES),
    scores=torch.tensor([0.8, 0.6, 0.5, 0.1]),  # the last one is not confident
    labels=torch.tensor([0, 1, 1, 0]),
)


def first_box(*box):
    return np.array([box, *BOXES[1:]], np.float32)


def pair(**changes):
    """The model's detections of a picture, and the same with changes."""
    return Pair(MODEL, {**MODEL, **{key: torch.as_tensor(value) for key, value in changes.items()}})


def test_agreement():
    found, number = agreement([pair()])
    assert found == Agreement(1, 1, 0, 0) and number == 3 and not found.problems(INT8)
    found, _ = agreement([pair(scores=[0.7, 0.6, 0.5, 0.1])])
    assert found.common == 1 and found.scores == pytest.approx(0.1 / 3)
    found, _ = agreement([pair(boxes=first_box(0, 0, 10, 8))])
    assert found.common == 1 and found.iou == pytest.approx((0.8 + 2) / 3)


@pytest.mark.parametrize(
    'change',
    [
        dict(labels=[1, 1, 1, 0]),  # another class
        dict(boxes=first_box(60, 60, 70, 70)),  # another place
        dict(scores=[0.1, 0.6, 0.5, 0.1]),  # not confident at all
    ],
)
def test_missing_detections(change):
    found, _ = agreement([pair(**change)])
    assert found.common == pytest.approx(2 / 3) and 'common 0.667, at least' in found.problems(INT8)[0]


def test_invented_detections():
    found, _ = agreement([pair(scores=[0.8, 0.6, 0.5, 0.8])])
    assert found.common == pytest.approx(3 / 4)


def test_nothing_found_is_no_agreement():
    found, _ = agreement([pair(scores=[0.0] * 4)])
    assert found.common == 0 and found.problems(INT8)


def test_masks_count():
    masks, others = torch.ones(4, 2, 5), torch.ones(4, 2, 5)
    others[0, 0, 0] = -1
    found, _ = agreement([Pair(dict(MODEL, masks=masks), dict(MODEL, masks=others))])
    assert found.masks == pytest.approx(0.1 / 3) and found.problems(INT8) == ['masks 0.033, allowed are 0.02']


def test_pictures_of_the_calibration(tmp_path):
    with pytest.raises(ExportError, match=f'--int8 .*: no pictures there; give a folder with about {MOST_PICTURES}'):
        calibration_pictures(tmp_path)
    for number in range(2 * MOST_PICTURES):
        (tmp_path / f'{number:04}.png').touch()
    assert [path.name for path in calibration_pictures(tmp_path)] == [f'{n:04}.png' for n in range(0, 200, 2)]


def test_one_precision_at_a_time(dino, tmp_path):
    with pytest.raises(ExportError, match='--fp16 and --int8: a file has one precision'):
        source_of(dino.source.detector, dino.cfg, dino.source.metadata['classes'], SETTINGS._replace(fp16=True))
    with pytest.raises(ExportError, match='--fp16, --int8, --ann-file and --with-runtime are for --to onnx alone'):
        export(in_precision(dino.source, SETTINGS), 'torch', tmp_path / 'x', Evidence())
    assert not list(tmp_path.iterdir())


def test_command(trained, tmp_path, capsys):
    out = tmp_path / 'model.onnx'
    words = ['export', trained / 'config.py', trained / 'weights.pth', '-o', out, '--int8', trained / 'data']
    words += ['--size', 128, 192]
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert 'calibrated on 3 pictures of' in printed and 'in common, overlapping by' in printed
    model = onnx.load(out)
    assert 'QuantizeLinear' in {node.op_type for node in model.graph.node}
    (entry,) = model.metadata_props
    said = json.loads(entry.value)
    assert entry.key == METADATA and said['precision'] == 'int8' and said['calibrated_on'] == 3
    assert said['parity']['allowed'] == INT8._asdict() and not Agreement(**said['parity']['measured']).problems(INT8)
