"""Static quantisation to 8 bits by ONNX Runtime, calibrated on pictures.

The rule: what is seen has 8 bits, where it is has 32. Convolutions and matrix products by constant weights are
quantised: weights channel by channel, what they are applied to by the range that it had on the pictures. Left out are
the first convolution, which sees the pixels, all that boxes, positions and sampling points are computed by, and class
scores, by which detections are ranked. The rest of the graph, layer norm, softmax, sampling and the choice of the best
among it, stays in float32 anyway.
"""

import tempfile
from pathlib import Path
from typing import Dict, Iterable, List, Sequence, Set

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnxruntime import ExecutionOrder, InferenceSession, SessionOptions
from onnxruntime.quantization import (
    CalibrationMethod,
    QuantFormat,
    QuantType,
    TensorsData,
    quantize_static,
    save_tensors_data,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from mmdet_stable.datasets.folder.records import images_in

from .errors import ExportError
from .onnx_file import PRODUCTS

MOST_PICTURES = 100
# Parts of the names of weights: boxes, class scores, positions of queries, sampling points and their weights.
IN_FLOAT = (
    *('reg_branches', 'predictor.reg', 'fc_reg', 'reg_ffn', 'cls_branches', 'predictor.cls', 'fc_cls'),
    *('ref_point_head', 'reference_points_fc', 'ref_anchor_head', 'query_scale', 'pos_trans_fc', 'pos_proj'),
    *('pos_sine_proj', 'sampling_offsets', 'attention_weights'),
)


def quantised(model: onnx.ModelProto, inputs: Iterable[Dict[str, np.ndarray]]) -> onnx.ModelProto:
    """The model with 8-bit weights, in QDQ format.

    Weights have 7 of the 8 bits: products of 8 bits overflow on x86 processors without VNNI, so that a file would give
    other results there than where it was checked.

    Args:
        model: in float32.
        inputs: of the model, one for each picture of the calibration.
    """
    with tempfile.TemporaryDirectory() as folder:
        prepared, cache, out = (Path(folder) / name for name in ('prepared.onnx', 'ranges.json', 'quantised.onnx'))
        quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
        nodes = quantised_nodes(model)
        save_tensors_data(ranges(model, nodes, inputs), cache)
        quantize_static(
            with_own_biases(onnx.load(prepared), nodes),
            out,
            calibration_cache_path=cache,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(PRODUCTS),
            nodes_to_quantize=nodes,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            reduce_range=True,
            # What a convolution returns mostly goes to the next one; what a matrix product returns is added up.
            extra_options=dict(OpTypesToExcludeOutputQuantization=['MatMul', 'Gemm']),
        )
        return onnx.load(out)


def quantised_nodes(model: onnx.ModelProto) -> List[str]:
    """Names of the nodes that are quantised, as :func:`mmdet_stable.export.onnx_file.onnx_model` gives them."""
    constant = {weight.name for weight in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in PRODUCTS and constant & set(node.input)]
    first = next((node.name for node in nodes if node.op_type == 'Conv'), '')
    names = [node.name for node in nodes if node.name != first]
    return [name for name in names if not any(part in name for part in IN_FLOAT)]


def ranges(model: onnx.ModelProto, nodes: Sequence[str], inputs: Iterable[Dict[str, np.ndarray]]) -> TensorsData:
    """Least and largest value of all that these nodes are applied to, and of what convolutions among them return.

    ONNX Runtime's own calibration keeps whatever it looks at until a picture is done, and looks at every product: more
    than 16 GiB of a R50 at 800 x 1216. Here, only what is needed is looked at, and reduced as soon as it is there.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    constant = {weight.name for weight in model.graph.initializer}
    tensors: List[str] = []
    for node in model.graph.node:
        if node.name in nodes:
            tensors += [name for name in node.input if name not in constant]
            tensors += node.output if node.op_type == 'Conv' else ()
    tensors = list(dict.fromkeys(tensors))
    del model.graph.output[:]
    for name in tensors:
        for kind in ('ReduceMin', 'ReduceMax'):
            model.graph.node.append(helper.make_node(kind, [name], [f'{name}/{kind}'], keepdims=0))
            model.graph.output.append(helper.make_tensor_value_info(f'{name}/{kind}', TensorProto.FLOAT, []))
    options = SessionOptions()
    options.execution_order = ExecutionOrder.PRIORITY_BASED  # reduces a tensor before it goes on
    session = InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    found = np.array([session.run(None, one) for one in inputs]).reshape(-1, len(tensors), 2)
    least, largest = found[..., 0].min(0), found[..., 1].max(0)
    return TensorsData(CalibrationMethod.MinMax, dict(zip(tensors, zip(least, largest))))


def with_own_biases(model: onnx.ModelProto, nodes: Sequence[str]) -> onnx.ModelProto:
    """The model with a bias of its own for each of these nodes, on which the scale of a bias in 8 bits depends.

    ONNX Runtime copies those that are shared under names that other values may have.
    """
    biases = {weight.name: weight for weight in model.graph.initializer}
    seen: Set[str] = set()
    for node in model.graph.node:
        if node.name not in nodes or len(node.input) < 3:
            continue
        bias = node.input[2]
        if bias in seen:
            node.input[2] = f'{node.name}.bias'
            model.graph.initializer.add().CopyFrom(biases[bias])
            model.graph.initializer[-1].name = node.input[2]
        seen.add(bias)
    return model


def calibration_pictures(folder: Path) -> List[Path]:
    """Pictures of a folder and below, at most :data:`MOST_PICTURES` of them.

    Raises:
        ExportError: if there are none.
    """
    paths = images_in(folder)
    if not paths:
        raise ExportError(f'--int8 {folder}: no pictures there; give a folder with about {MOST_PICTURES} of them')
    return evenly(paths, MOST_PICTURES)


def evenly(paths: Sequence[Path], most: int) -> List[Path]:
    """At most so many of them, from the first to the last."""
    number = min(len(paths), most)
    return [paths[index * len(paths) // number] for index in range(number)]
