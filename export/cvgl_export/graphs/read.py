"""A graph as it is read: its values' types, and who makes and who reads them."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cvgl.errors import ModelError

from .floats import FLOATS
from .operators import MOVES

__all__ = ["SMALL", "Graph", "array_of", "attribute", "inferred", "without_weights"]

SMALL = 1024
"""Values of a tensor above which it counts as a large weight."""


class Graph:
    """A graph with what is looked up in it; made from a model whose types were inferred."""

    def __init__(self, model: ModelProto) -> None:
        self.model = model
        self.nodes = list(model.graph.node)
        self.opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types = {name: tensor.data_type for name, tensor in self.constants.items()}
        self.ranks = {name: len(tensor.dims) for name, tensor in self.constants.items()}
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
            self.types[value.name] = value.type.tensor_type.elem_type
            if value.type.tensor_type.HasField("shape"):
                self.ranks[value.name] = len(value.type.tensor_type.shape.dim)
        self.outputs = {value.name for value in model.graph.output}
        self.producers = {output: node for node in self.nodes for output in node.output if output}
        self.consumers: dict[str, list[NodeProto]] = {}
        for node in self.nodes:
            for value in node.input:
                self.consumers.setdefault(value, []).append(node)

    def is_float(self, value: str) -> bool:
        """Whether a value is of a floating-point type."""
        return self.types.get(value) in FLOATS

    def is_constant(self, value: str) -> bool:
        """Whether a value is a weight, or one that was only moved."""
        node = self.producers.get(value)
        if node is None:
            return value in self.constants
        return node.op_type in MOVES | {"DequantizeLinear"} and node.input[0] in self.constants

    def float_inputs(self, node: NodeProto) -> list[str]:
        """Floating-point inputs that are computed."""
        return [value for value in node.input if value not in self.constants and self.is_float(value)]

    def float_outputs(self, node: NodeProto) -> list[str]:
        """Floating-point outputs."""
        return [value for value in node.output if self.is_float(value)]


def attribute(node: NodeProto, name: str, default: Any) -> Any:
    """The value of a node's attribute; the default where it states none."""
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """The values of a tensor, in its own type."""
    return numpy_helper.to_array(tensor)


def inferred(model: ModelProto) -> ModelProto:
    """The model itself, with the type of every value written into it.

    Raises:
        ModelError: types that do not fit.
    """
    try:
        known = onnx.shape_inference.infer_shapes(
            without_weights(model), check_type=True, strict_mode=True, data_prop=True
        ).graph.value_info
    except onnx.shape_inference.InferenceError as reason:
        raise ModelError(f"types that do not fit: {reason}") from reason
    inputs = {tensor.name for tensor in model.graph.initializer}
    del model.graph.value_info[:]
    model.graph.value_info.extend(value for value in known if value.name not in inputs)
    return model


def without_weights(model: ModelProto) -> ModelProto:
    """A copy without the values of large weights, which become inputs: ONNX's own passes copy a model several times,
    and take none of more than 2 GB."""
    skeleton = ModelProto(ir_version=max(model.ir_version, 4))
    skeleton.opset_import.extend(model.opset_import)
    skeleton.functions.extend(model.functions)
    graph = skeleton.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    taken = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in taken:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return skeleton
