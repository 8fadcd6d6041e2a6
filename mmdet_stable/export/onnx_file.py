"""From the module to a file in ONNX, and from one precision to the other."""

import contextlib
import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants, inline
from onnxscript.rewriter import rewrite
from onnxscript.rewriter.rules.common import fuse_batchnorm_into_conv_rule
from torch import Tensor

from mmdet_stable.runtime.detector import METADATA

from .graph import ExportableDetector
from .spec import Settings

EXAMPLE = (128, 224)  # height and width at which a model of any size and few queries is traced
COARSEST = 32  # largest stride of the finest map that a detector of this package has
LARGEST_WEIGHT = 2**26  # numbers; larger ones stay transposed or cut when the file is run
TIDYING = onnx_ir.passes.Sequential(
    common.RemoveUnusedNodesPass(),
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    common.LiftSubgraphInitializersToMainGraphPass(),
    common.DeduplicateInitializersPass(),
    common.CommonSubexpressionEliminationPass(),
    common.OutputFixPass(),
    common.NameFixPass(),
)
PRODUCTS = ('Conv', 'MatMul', 'Gemm')
REARRANGING = ('Transpose', 'Reshape', 'Slice', 'Split', 'Gather')


def example(module: ExportableDetector, settings: Settings) -> Tuple[Tensor, ...]:
    """Inputs to trace with: two pictures."""
    height, width = settings.size or traced_size(module.detector.num_one_to_one)
    images = torch.zeros(2, 3, height, width, dtype=torch.uint8)
    return (images, torch.tensor([[height, width]] * 2)) if module.padded else (images,)


def traced_size(num_queries: int) -> Tuple[int, int]:
    """Height and width with at least as many positions as queries; otherwise, what a detector does for pictures that
    are too small would be recorded for all sizes. Tracing computes nothing, so that size costs nothing."""
    height, width = EXAMPLE
    factor = math.ceil(math.sqrt(num_queries * COARSEST**2 / (height * width)))
    return factor * height, factor * width


def dynamic_shapes(module: ExportableDetector, settings: Settings) -> Tuple[Dict[int, Any], ...]:
    """Which dimensions of the inputs may vary."""
    vary = torch.export.Dim.DYNAMIC
    images = {0: vary} if settings.size else {0: vary, 2: vary, 3: vary}
    return (images, {0: vary}) if module.padded else (images,)


def exported_program(module: ExportableDetector, settings: Settings) -> torch.export.ExportedProgram:
    """The module as torch's exported program, which runs without mmdet."""
    inputs = example(module, settings)
    with torch.no_grad(), quiet():
        return torch.export.export(module, inputs, dynamic_shapes=dynamic_shapes(module, settings), strict=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep to themselves what torch and onnxscript say about every node, and about torchvision, which is not needed."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def onnx_model(program: torch.export.ExportedProgram, settings: Settings) -> onnx.ModelProto:
    """The program in ONNX, outputs for the check included.

    It goes through the current exporter of torch, in float32; ``settings.fp16`` is applied here, too.
    """
    for node in program.graph.nodes:
        node.meta.pop('from_node', None)  # its history, which torch would copy again and again
    names = list(program.call_spec.out_spec.context)
    with torch.no_grad(), quiet():
        written = torch.onnx.export(
            program, dynamo=True, opset_version=settings.opset, output_names=names, verbose=False, optimize=False
        )
        assert written is not None
        model = onnx_ir.to_proto(simplified(written.model))
    for graph in _graphs(model.graph):
        del graph.value_info[:], graph.metadata_props[:]  # names of symbols, hundreds of them, that nobody reads
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ''
    return in_half_precision(model) if settings.fp16 else model


def simplified(model: onnx_ir.Model) -> onnx_ir.Model:
    """The model without what can be computed now, with batch norms in the convolutions before them.

    ONNX Runtime does more when it loads a file. ``onnxscript.optimizer.optimize`` does more, too, but one of its rules
    looks at all pairs of nodes, which took most of the time of an export.
    """
    inline(model)
    for node in model.graph:
        if node.op_type in PRODUCTS:
            node.name = f'{_weight_of(node)}/{node.name}'
    limit = LARGEST_WEIGHT
    fold_constants(model, onnx_shape_inference=True, input_size_limit=limit, output_size_limit=limit)
    rewrite(model, [fuse_batchnorm_into_conv_rule])
    return TIDYING(model).model


def _weight_of(node: onnx_ir.Node) -> str:
    """Name of the parameter that a matrix product is with, which folding will hide; empty for none."""
    for value in node.inputs:
        source = value.producer() if value is not None else None
        while source is not None and source.op_type in REARRANGING:
            value = source.inputs[0]
            source = value.producer() if value is not None else None
        if value is not None and value.is_initializer():
            return value.name or ''
    return ''


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with convolutions and matrix products by constant weights in float16, and all else in float32.

    So LayerNormalization and softmax stay whole, and positions, for which half precision is too coarse: 0.8 pixels in
    1600. Weights take half the space.
    """
    halves: Dict[str, str] = {}
    weights = {weight.name: weight for weight in model.graph.initializer if weight.data_type == TensorProto.FLOAT}
    nodes: List[onnx.NodeProto] = []
    for node in model.graph.node:
        constant = [name for name in node.input if name in weights]
        if node.op_type not in PRODUCTS or not constant:
            nodes.append(node)
            continue
        for index, name in enumerate(node.input):
            if not name:
                continue
            if name in weights:
                if name not in halves:
                    halves[name] = f'{name}.half'
                    array = numpy_helper.to_array(weights[name])
                    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
                        raise OverflowError(f'{name}: too large for float16')
                    model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), halves[name]))
            elif name not in halves:
                halves[name] = f'{name}.half'
                nodes.append(helper.make_node('Cast', [name], [halves[name]], to=TensorProto.FLOAT16))
            node.input[index] = halves[name]
        output = node.output[0]
        node.output[0] = halves[output] = f'{output}.half'
        nodes += [node, helper.make_node('Cast', [node.output[0]], [output], to=TensorProto.FLOAT)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input} | {output.name for output in model.graph.output}
    used |= {name for node in nodes for name in _of_subgraphs(node)}
    for weight in list(model.graph.initializer):
        if weight.name not in used:
            model.graph.initializer.remove(weight)
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph, and the bodies of its loops."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField('g'):
                yield from _graphs(attribute.g)


def _of_subgraphs(node: onnx.NodeProto) -> List[str]:
    """What the bodies of loops take from around them."""
    graphs = [attribute.g for attribute in node.attribute if attribute.HasField('g')]
    inner = [inside for graph in graphs for inside in graph.node]
    return [name for inside in inner for name in (*inside.input, *_of_subgraphs(inside))]


def without(outputs: Sequence[str], model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without some outputs."""
    for output in list(model.graph.output):
        if output.name in outputs:
            model.graph.output.remove(output)
    return model


def write(model: onnx.ModelProto, path: Path, metadata: Dict[str, Any]) -> None:
    """Write the model with what it says about itself."""
    del model.metadata_props[:]
    helper.set_model_props(model, {METADATA: json.dumps(metadata)})
    onnx.save(model, str(path))
