"""In which types a graph computes, read back from it, and whether TensorRT would take it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import onnx
import onnx.shape_inference
from onnx import ModelProto, NodeProto, TensorProto

from cvgl.errors import ModelError

from .floats import TYPE_NAMES
from .operators import CONTRACTIONS, MOVES, QUANTISERS, UNTYPED
from .read import Graph, inferred, without_weights
from .reasons import KEPT, fp32_reasons
from .schema import formal_input, schema_type

__all__ = ["check_types", "describe_types", "fp32_nodes", "is_half"]


def describe_types(model: ModelProto) -> dict[str, Counter[str]]:
    """By operator, how many of its nodes compute in which type: "fp32", "fp16", "bf16", "fp64" or "int8".

    Read from the graph by type inference. Casts, data movement, quantisers and integer arithmetic are not counted. A
    layer is "int8" whose data and weights both come from a DequantizeLinear: TensorRT runs it on the integers.
    """
    graph = Graph(inferred(model))
    found: dict[str, Counter[str]] = {}
    for node, computed in _computing(graph):
        found.setdefault(node.op_type, Counter())[computed] += 1
    return found


def is_half(model: ModelProto) -> bool:
    """Whether a model computes anything in FP16 or BF16; weights that are cast before their use do not count."""
    return any(counts["fp16"] + counts["bf16"] for counts in describe_types(model).values())


def fp32_nodes(model: ModelProto) -> list[tuple[str, str, str]]:
    """(name, operator, why) of every node that computes in FP32, in the graph's order.

    That it does is read from the graph by type inference; why it should is what `half_graph` would say of it, or that
    it is kept by name where it would have made it half.
    """
    graph = Graph(inferred(model))
    reasons = fp32_reasons(graph, TensorProto.FLOAT16, frozenset())
    return [
        (node.name, node.op_type, reasons.get(id(node), KEPT))
        for node, computed in _computing(graph)
        if computed == "fp32"
    ]


def check_types(model: ModelProto) -> None:
    """Refuse a graph that TensorRT would refuse as a strongly typed network, or read differently.

    Beyond ONNX's own full check and strict inference: every node has a name of its own, all floating-point inputs of a
    node have one type (but for those that ONNX fixes, such as Resize's scales), of those its operator is defined for,
    and nothing is in double precision.

    Raises:
        ModelError: naming the node.
    """
    skeleton = without_weights(model)
    _check_inputs(Graph(inferred(skeleton)))
    try:
        onnx.checker.check_model(skeleton, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as reason:
        raise ModelError(f"not a valid graph: {reason}") from reason


def _computing(graph: Graph) -> Iterator[tuple[NodeProto, str]]:
    """Every node that computes on floating-point numbers, and in which type."""
    for node in graph.nodes:
        if node.op_type in MOVES | QUANTISERS | UNTYPED:
            continue
        inputs = [value for value in node.input if graph.is_float(value)]
        values = inputs or graph.float_outputs(node)
        if not values:
            continue
        sources = [graph.producers.get(value) for value in node.input[:2]]
        if node.op_type in CONTRACTIONS and all(s is not None and s.op_type == "DequantizeLinear" for s in sources):
            yield node, "int8"
        else:
            yield node, TYPE_NAMES[graph.types[values[0]]]


def _check_inputs(graph: Graph) -> None:
    seen: set[str] = set()
    for node in graph.nodes:
        if not node.name or node.name in seen:
            raise ModelError("a node without a name of its own", field=node.name or node.op_type)
        seen.add(node.name)
        first: int | None = None
        for place, value in enumerate(node.input):
            if not graph.is_float(value):
                continue
            kind = graph.types[value]
            if kind == TensorProto.DOUBLE:
                raise ModelError("TensorRT has no double precision", field=node.name, found=value)
            variable, allowed = formal_input(graph, node, place)
            if schema_type(kind) not in allowed:
                raise ModelError(
                    f"{node.op_type} is not defined for this type",
                    field=node.name,
                    found=f"{value}: {TYPE_NAMES[kind]}",
                )
            # An input of a fixed type, as Resize's scales are.
            if variable.startswith("tensor(") or allowed == {"tensor(float)"}:
                continue
            if first is None:
                first = kind
            elif kind != first:
                raise ModelError(
                    "inputs of different types",
                    field=node.name,
                    found=f"{value}: {TYPE_NAMES[kind]}",
                    expected=TYPE_NAMES[first],
                )
