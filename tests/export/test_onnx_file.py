"""From a program to ONNX, and to half precision, on modules of a few layers."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, create_calibrator
from torch import nn

from mmdet_stable.export import Settings
from mmdet_stable.export.onnx_file import in_half_precision, onnx_model
from mmdet_stable.export.quantising import quantised, quantised_nodes, ranges, with_own_biases


class Small(nn.Module):
    """A module with what needs care: batch norm, a weight that is used twice, and one that is cut."""

    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.last = nn.Conv2d(8, 8, 1)
        self.ffn = nn.Linear(8, 8)
        self.sampling_offsets = nn.Linear(8, 4)
        for parameter in self.parameters():
            nn.init.normal_(parameter)

    def forward(self, images):
        tokens = self.last(self.convs(images)).flatten(2).transpose(1, 2)
        tokens = self.ffn(tokens) + self.ffn(tokens[:, :2]).mean(1, keepdim=True)
        return dict(boxes=self.sampling_offsets(tokens), scores=tokens @ self.ffn.weight[:4].T)


@pytest.fixture(scope='module')
def small():
    """The module, its input, and the file."""
    torch.manual_seed(0)
    module = Small().eval()
    images = torch.randn(2, 3, 6, 7)
    program = torch.export.export(module, (images,), strict=False)
    return module, images, onnx_model(program, Settings())


def run(model, images):
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(['boxes', 'scores'], dict(images=images.numpy()))


def copy(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


def test_the_file_computes_the_same(small):
    module, images, model = small
    for found, expected in zip(run(model, images), module(images).values()):
        np.testing.assert_allclose(found, expected.detach(), rtol=1e-4, atol=1e-4)


def test_what_is_known_is_computed(small):
    """No batch norm, and no weight that is transposed or cut when the file is run."""
    model = small[2]
    constant = {weight.name for weight in model.graph.initializer}
    assert not [node for node in model.graph.node if node.op_type == 'BatchNormalization']
    assert not [node for node in model.graph.node if set(node.input) and set(node.input) <= constant]


def test_products_are_named_by_their_weight(small):
    names = [node.name for node in small[2].graph.node if node.op_type in ('MatMul', 'Gemm')]
    for weight in ('ffn.weight', 'sampling_offsets.weight'):
        assert [name for name in names if name.startswith(f'{weight}/')], names
    assert len(set(names)) == len(names)


def test_half_precision(small):
    """Two convolutions in a row hand over half precision as it is."""
    _, images, model = small
    half = in_half_precision(copy(model))
    for found, expected in zip(run(half, images), run(model, images)):
        np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())
    kinds = {weight.name: weight.data_type for weight in half.graph.initializer}
    products = [node for node in half.graph.node if node.op_type in ('Conv', 'MatMul', 'Gemm')]
    assert all(kinds.get(name, TensorProto.FLOAT16) == TensorProto.FLOAT16 for node in products for name in node.input)


def test_half_precision_of_too_large_a_weight(small):
    model = copy(small[2])
    (weight,) = [one for one in model.graph.initializer if one.name == 'last.weight']
    weight.CopyFrom(numpy_helper.from_array(np.full(tuple(weight.dims), 1e5, np.float32), weight.name))
    with pytest.raises(OverflowError, match=r'last\.weight: too large for float16'):
        in_half_precision(model)


def test_eight_bits(small):
    _, images, model = small
    nodes = {node.name: node for node in model.graph.node}
    chosen = [nodes[name] for name in quantised_nodes(model)]
    assert {node.op_type for node in chosen} == {'Conv', 'MatMul'} and len(chosen) == 5
    assert not [node for node in chosen if 'sampling_offsets' in node.name or 'convs.0.weight' in node.input]
    for found, expected in zip(run(quantised(model, [dict(images=images.numpy())]), images), run(model, images)):
        assert 0 < np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_nodes_of_eight_bits_share_no_bias(small):
    """ONNX Runtime calls a copy of the bias ``zeros`` ``zeros0``, which may be the name of another value."""
    _, images, model = small
    model = copy(model)
    chosen = quantised_nodes(model)
    convs = [node for node in model.graph.node if node.name in chosen and node.op_type == 'Conv']
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), 'zeros'))
    for node in convs:
        node.input[2] = 'zeros'
    after = convs[-1].output[0]
    for node in model.graph.node:
        node.input[:] = ['zeros0' if name == after else name for name in node.input]
    convs[-1].output[0] = 'zeros0'
    expected = run(model, images)
    own = with_own_biases(copy(model), chosen)
    assert len({node.input[2] for node in own.graph.node if node.name in chosen and node.op_type == 'Conv'}) == 2
    for found, wanted in zip(run(own, images), expected):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(run(quantised(model, [dict(images=images.numpy())]), images), expected):
        assert np.abs(found - wanted).max() < 0.1 * np.abs(wanted).max()


def test_ranges_are_onnx_runtimes(small, tmp_path):
    """Over two pictures, of which each has some of the extremes."""
    _, images, model = small
    onnx.save(model, tmp_path / 'model.onnx')
    inputs = [dict(images=images.numpy()), dict(images=-2 * images.numpy())]
    found = ranges(model, quantised_nodes(model), iter(inputs)).data

    class Reader(CalibrationDataReader):
        rest = iter(inputs)

        def get_next(self):
            return next(self.rest, None)

    theirs = create_calibrator(tmp_path / 'model.onnx', ['Conv', 'MatMul'], str(tmp_path / 'augmented.onnx'))
    theirs.collect_data(Reader())
    expected = theirs.compute_data().data
    assert len(found) >= 6
    for name, value in found.items():
        np.testing.assert_allclose(value.range_value, np.ravel(expected[name].range_value), rtol=1e-6)
