"""Half precision's roundings in FP32 arithmetic, for runtimes that leave them out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from .edit import copy_model, name_uniquely, set_nodes
from .operators import MOVES
from .read import Graph, array_of, attribute, inferred
from .types import check_types

__all__ = ["emulate"]


def emulate(model: ModelProto) -> ModelProto:
    """A typed graph as FP32 arithmetic that rounds every value which the typed graph holds in half precision.

    ONNX Runtime's CPU has few half-precision kernels: it computes in FP32 and leaves out the roundings between, so that
    what overflows on a GPU does not there; bfloat16 it does not run at all. This graph it runs as a GPU does: layers
    sum in FP32 and their result is rounded; norms and means in half precision are taken step by step, each rounded, as
    the worst of the kernels do.

    Raises:
        ModelError: as `check_types`.
    """
    check_types(model)
    model = inferred(copy_model(model))
    graph = Graph(model)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes.extend(_emulated(graph, node))
    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            tensor.CopyFrom(numpy_helper.from_array(array_of(tensor).astype(np.float32), tensor.name))
    set_nodes(model.graph, nodes)
    name_uniquely(model.graph)
    return inferred(model)


def _emulated(graph: Graph, node: NodeProto) -> Iterator[NodeProto]:
    """A node of a typed graph in FP32, followed by the rounding of what it gives."""
    copy = NodeProto()
    copy.CopyFrom(node)
    outputs = [v for v in node.output if graph.types.get(v) in (TensorProto.FLOAT16, TensorProto.BFLOAT16)]
    if node.op_type == "Cast":
        to = attribute(node, "to", TensorProto.FLOAT)
        if to in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            yield from _rounding(node.input[0], node.output[0], to, node.name)
            return
    elif outputs and node.op_type in ("LayerNormalization", "ReduceMean", "ReduceL2"):
        yield from _in_steps(graph, node, graph.types[outputs[0]])
        return
    elif outputs and node.op_type not in MOVES:
        for place, value in enumerate(node.output):
            if value in outputs:
                copy.output[place] = f"{value}/exact"
        yield copy
        for value in outputs:
            yield from _rounding(f"{value}/exact", value, graph.types[value], node.name)
        return
    yield copy


def _rounding(source: str, target: str, kind: int, name: str) -> Iterator[NodeProto]:
    narrow = f"{target}/narrow"
    yield helper.make_node("Cast", [source], [narrow], name=f"{name}/round", to=kind)
    yield helper.make_node("Cast", [narrow], [target], name=f"{name}/widen", to=TensorProto.FLOAT)


def _in_steps(graph: Graph, node: NodeProto, kind: int) -> Iterator[NodeProto]:
    """A norm or mean as separate operations, each of whose results is rounded."""
    x, result = node.input[0], node.output[0]

    def step(op: str, inputs: list[str], suffix: str, **attributes: Any) -> Iterator[NodeProto]:
        target = result if not suffix else f"{result}/{suffix}"
        yield helper.make_node(op, inputs, [f"{target}/exact"], name=f"{node.name}/{op}", **attributes)
        yield from _rounding(f"{target}/exact", target, kind, node.name)

    def constant(suffix: str, value: Any) -> tuple[str, NodeProto]:
        name = f"{result}/{suffix}"
        return name, helper.make_node("Constant", [], [name], name=name, value=numpy_helper.from_array(value))

    if node.op_type == "LayerNormalization":
        rank, axis = graph.ranks[x], attribute(node, "axis", -1)
        axes, axes_node = constant("axes", np.arange(axis % rank, rank, dtype=np.int64))
        small, small_node = constant("epsilon", np.array(attribute(node, "epsilon", 1e-5), np.float32))
        yield from (axes_node, small_node)
        yield from step("ReduceMean", [x, axes], "mean")
        yield from step("Sub", [x, f"{result}/mean"], "centred")
        yield from step("Mul", [f"{result}/centred", f"{result}/centred"], "squares")
        yield from step("ReduceMean", [f"{result}/squares", axes], "variance")
        yield from step("Add", [f"{result}/variance", small], "raised")
        yield from step("Sqrt", [f"{result}/raised"], "deviation")
        yield from step("Div", [f"{result}/centred", f"{result}/deviation"], "unit")
        biased = len(node.input) > 2 and bool(node.input[2])
        yield from step("Mul", [f"{result}/unit", node.input[1]], "scaled" if biased else "")
        if biased:
            yield from step("Add", [f"{result}/scaled", node.input[2]], "")
        return
    keep = attribute(node, "keepdims", 1)
    rest = list(node.input[1:])
    if node.op_type == "ReduceL2":
        yield from step("Mul", [x, x], "squares")
        yield from step("ReduceSum", [f"{result}/squares", *rest], "sum", keepdims=keep)
        yield from step("Sqrt", [f"{result}/sum"], "")
        return
    # The sum is what overflows; the exact mean times the count is its value.
    yield from step("ReduceSum", [x, *rest], "sum", keepdims=keep)
    ones, ones_node = constant("one", np.array(1.0, np.float32))
    yield ones_node
    yield helper.make_node("Shape", [x], [f"{result}/shape"], name=f"{node.name}/Shape")
    yield helper.make_node("Expand", [ones, f"{result}/shape"], [f"{result}/ones"], name=f"{node.name}/Expand")
    counting = [f"{result}/ones", *rest]
    yield helper.make_node("ReduceSum", counting, [f"{result}/count"], name=f"{node.name}/count", keepdims=keep)
    yield from step("Div", [f"{result}/sum", f"{result}/count"], "")
