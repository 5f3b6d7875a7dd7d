"""The plain form of a graph that everything else here starts from."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cvgl.errors import ModelError

from .edit import copy_model, copy_tensor, name_uniquely, set_nodes
from .floats import HALF_TYPES
from .operators import QUANTISERS
from .read import Graph, array_of, attribute, inferred, without_weights

__all__ = ["plain_graph"]

_BF16_OPSET = 22
"""The first in which convolutions and pooling are defined for bfloat16."""


def plain_graph(model: ModelProto, kind: str = "fp16") -> ModelProto:
    """A copy in which constants are initialisers, casts of weights and casts to the same type are gone, and types and
    names are there; what the other functions start from. For "bf16" the opset is raised to 22, for quantisers to 19.

    Raises:
        ModelError: no such precision, or types that do not fit.
    """
    if kind not in HALF_TYPES:
        raise ModelError("no such precision", field="kind", found=kind, expected=" or ".join(HALF_TYPES))
    model = onnx.inliner.inline_local_functions(model) if model.functions else copy_model(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    wanted = _BF16_OPSET if kind == "bf16" else 0
    if any(node.op_type in QUANTISERS for node in model.graph.node):
        # Before, the scales of quantisers were FP32 alone.
        wanted = max(wanted, 19)
    if opset < wanted:
        model = _at_opset(model, wanted)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Constant" and any(a.name.startswith("value") for a in node.attribute):
            constants[node.output[0]] = _constant(node)
        elif node.op_type == "Cast" and node.input[0] in constants:
            to = attribute(node, "to", TensorProto.FLOAT)
            array = array_of(constants[node.input[0]]).astype(helper.tensor_dtype_to_np_dtype(to))
            constants[node.output[0]] = numpy_helper.from_array(array, node.output[0])
        else:
            nodes.append(node)
    used = {value for node in nodes for value in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used]
    copies = [copy_tensor(tensor) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    set_nodes(model.graph, nodes)
    name_uniquely(model.graph)
    model = inferred(model)
    _bypass_idle_casts(model)
    return model


def _at_opset(model: ModelProto, opset: int) -> ModelProto:
    """Raised by ONNX's own converter, on a copy without the weights: it takes no graph of more than 2 GB."""
    names = [node.name for node in model.graph.node]
    raised = onnx.version_converter.convert_version(without_weights(model), opset)
    if [node.op_type for node in raised.graph.node] == [node.op_type for node in model.graph.node]:
        for node, name in zip(raised.graph.node, names, strict=True):
            node.name = name
    set_nodes(model.graph, list(raised.graph.node))
    known = {tensor.name for tensor in model.graph.initializer}
    model.graph.initializer.extend(tensor for tensor in raised.graph.initializer if tensor.name not in known)
    del model.opset_import[:]
    model.opset_import.extend(raised.opset_import)
    return model


def _constant(node: NodeProto) -> TensorProto:
    """The tensor of a Constant node, under its output's name."""
    attribute = next(a for a in node.attribute if a.name.startswith("value"))
    value = helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        tensor = copy_tensor(value)
        tensor.name = node.output[0]
        return tensor
    dtype = np.int64 if "int" in attribute.name else np.float32
    return numpy_helper.from_array(np.asarray(value, dtype), node.output[0])


def _bypass_idle_casts(model: ModelProto) -> None:
    """Leave out casts of a value to the type it has."""
    types = Graph(model).types
    given = {output.name for output in model.graph.output}
    instead: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        for place, value in enumerate(node.input):
            node.input[place] = instead.get(value, value)
        idle = node.op_type == "Cast" and types.get(node.input[0]) == attribute(node, "to", 0)
        if idle and node.output[0] not in given:
            instead[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    set_nodes(model.graph, nodes)
