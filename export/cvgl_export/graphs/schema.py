"""Which types ONNX defines an operator's inputs for."""

from __future__ import annotations

import onnx
from onnx import NodeProto

from .floats import TYPE_NAMES
from .read import Graph

__all__ = ["formal_input", "is_defined_for", "is_fixed_input", "schema_type"]


def formal_input(graph: Graph, node: NodeProto, place: int) -> tuple[str, frozenset[str]]:
    """The type variable of an input and the types that it may stand for."""
    schema = onnx.defs.get_schema(node.op_type, graph.opset, node.domain)
    formal = schema.inputs[min(place, len(schema.inputs) - 1)]
    allowed = {rule.type_param_str: rule.allowed_type_strs for rule in schema.type_constraints}
    return formal.type_str, frozenset(allowed.get(formal.type_str, [formal.type_str]))


def schema_type(kind: int) -> str:
    """A type as ONNX's schemas write it."""
    words = {"fp32": "float", "fp16": "float16", "bf16": "bfloat16", "fp64": "double"}
    return f"tensor({words[TYPE_NAMES[kind]]})"


def is_fixed_input(graph: Graph, node: NodeProto, place: int, half: int) -> bool:
    """Whether ONNX defines an input for FP32 alone whatever the node's type is: Resize's scales."""
    return schema_type(half) not in formal_input(graph, node, place)[1]


def is_defined_for(graph: Graph, node: NodeProto, half: int) -> bool:
    """Whether ONNX defines a node's operator in half precision."""
    floats = [place for place, value in enumerate(node.input) if graph.is_float(value)]
    return not floats or not is_fixed_input(graph, node, floats[0], half)
