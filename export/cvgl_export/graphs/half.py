"""FP32 graphs as strongly typed ones in half precision, with the casts between."""

from __future__ import annotations

import logging
from collections.abc import Collection

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from cvgl.errors import ModelError

from .edit import copy_model, name_uniquely, set_nodes
from .floats import FLOATS, HALF_TYPES, TYPE_NAMES, Kind
from .narrow import narrowed
from .operators import UNTYPED
from .plain import plain_graph
from .read import SMALL, Graph, inferred
from .reasons import fp32_reasons
from .schema import is_fixed_input
from .types import check_types

__all__ = ["half_graph", "half_weights", "underflowed"]

_log = logging.getLogger(__name__)
_UNDERFLOWED = "cvgl.underflowed_weights"


def half_graph(model: ModelProto, *, kind: Kind = "fp16", keep: Collection[str] = ()) -> ModelProto:
    """An FP32 graph as a strongly typed one: layers in half precision, what half precision spoils in FP32.

    Inputs and outputs stay FP32. Convolutions, matrix products, activations and data movement are half, with half
    initialisers. These are FP32, between casts:

    - normalisations (LayerNormalization, a BatchNormalization that was not folded) and softmax;
    - sums and means over many values: Reduce*, average pooling, Einsum, and a product with a softmax that was not taken
      along the summed axis (NetVLAD's residual sums; the mixing of an attention's values is a mean, and half);
    - squares, roots, exponentials, logarithms and quotients by a computed value;
    - every pointwise node after one of those and before the next layer, and every one before the first layer: the
      preparation of the image in cvgl-nano, and all that follows the last normalisation;
    - of an attention, what stands between the product of queries and keys and the softmax; and the product itself
      unless a factor was scaled before it, as PyTorch's exporter does: without, it is the sum of as many squares as a
      head has channels, and 64 times 32 squared is beyond FP16;
    - nodes with a scalar that would overflow or become 0, nodes that ONNX does not define for the type, operators that
      are not known to be safe, and those named in `keep`.

    Args:
        model: FP32, of the default operator domain, without control flow. It is not changed. Graphs from `int8_graph`
            and weights stored as FP16 (`half_weights`) are understood.
        kind: "fp16", or "bf16" (which raises the opset to 22: below it ONNX has no bfloat16 convolution).
        keep: names of nodes that stay in FP32.

    Returns:
        The graph, checked by `check_types`, whose nodes have unique names: those they had, where they were unique.

    Raises:
        ModelError: a weight beyond the type's range, a name in `keep` that is not there, control flow, or a graph that
            is not FP32.
    """
    # onnxruntime.transformers.float16 was tried and left: between two neighbouring FP32 nodes it rounds to half (norms
    # of descriptors included), it clips weights that overflow, and a value that two FP32 nodes read is cast twice under
    # one name, which is no valid graph.
    model = plain_graph(model, kind)
    graph = Graph(model)
    known = {node.name for node in graph.nodes}
    for name in keep:
        if name not in known:
            raise ModelError("no such node to keep in FP32", field="keep", found=name)
    _refuse_what_is_not_fp32(graph)
    typed = _Retyper(graph, HALF_TYPES[kind], fp32_reasons(graph, HALF_TYPES[kind], frozenset(keep))).run()
    check_types(typed)
    return typed


def half_weights(model: ModelProto) -> ModelProto:
    """A graph that computes as before, whose large FP32 initialisers are stored as FP16 with a Cast before their use.

    Half the bytes; a runtime folds the casts when it loads.

    Raises:
        ModelError: a weight beyond FP16's range.
    """
    model = copy_model(model)
    casts = []
    lost = 0
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < SMALL:
            continue
        wide, stored = tensor.name, f"{tensor.name}.fp16"
        narrow, zeros = narrowed(tensor, TensorProto.FLOAT16, stored)
        lost += zeros
        tensor.CopyFrom(narrow)
        casts.append(helper.make_node("Cast", [stored], [wide], name=f"{wide}/to_fp32", to=TensorProto.FLOAT))
    set_nodes(model.graph, [*casts, *model.graph.node])
    _note_underflow(model, lost)
    return inferred(model)


def underflowed(model: ModelProto) -> int:
    """How many weights that were not 0 became 0 when `half_graph` or `half_weights` stored them in half precision."""
    return int({entry.key: entry.value for entry in model.metadata_props}.get(_UNDERFLOWED, "0"))


def _refuse_what_is_not_fp32(graph: Graph) -> None:
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            raise ModelError("an operator of another domain", field=node.name, found=f"{node.domain}.{node.op_type}")
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ModelError("control flow cannot be typed", field=node.name, found=node.op_type)
        for value in (*node.input, *node.output):
            kind = graph.types.get(value)
            if value and not kind:
                raise ModelError("a value of unknown type", field=node.name, found=value)
            if kind in FLOATS and kind != TensorProto.FLOAT:
                raise ModelError("not an FP32 graph", field=node.name, found=f"{value}: {TYPE_NAMES[kind]}")


class _Retyper:
    """Writes the typed graph: every node in its type, weights in the types they are read in, casts where types meet."""

    def __init__(self, graph: Graph, half: int, reasons: dict[int, str]) -> None:
        self.graph = graph
        self.half = half
        self.reasons = reasons
        self.types = {name: kind for name, kind in graph.types.items() if name not in graph.constants}
        self.nodes: list[NodeProto] = []
        self.weights: dict[tuple[str, int], TensorProto] = {}
        self.casts: dict[tuple[str, int], str] = {}
        self.lost = 0
        self.wanted: dict[str, set[int]] = {}
        for node in graph.nodes:
            for place, value in enumerate(node.input):
                if value in graph.constants:
                    self.wanted.setdefault(value, set()).add(self._want(node, place))

    def run(self) -> ModelProto:
        for node in self.graph.nodes:
            self._write(node)
        model = self.graph.model
        self._widen_outputs(model.graph)
        del model.graph.initializer[:]
        model.graph.initializer.extend(self.weights.values())
        set_nodes(model.graph, _alive(self.nodes, {value.name for value in model.graph.output}))
        name_uniquely(model.graph)
        _note_underflow(model, self.lost)
        return inferred(model)

    def _want(self, node: NodeProto, place: int) -> int:
        """The type in which a node reads an input."""
        kind = self.graph.types[node.input[place]]
        if kind != TensorProto.FLOAT or node.op_type in UNTYPED:
            return kind
        if id(node) in self.reasons or is_fixed_input(self.graph, node, place, self.half):
            return TensorProto.FLOAT
        return self.half

    def _write(self, node: NodeProto) -> None:
        written = NodeProto()
        written.CopyFrom(node)
        for place, value in enumerate(node.input):
            if not value:
                continue
            if value in self.graph.constants:
                written.input[place] = self._weight(value, self._want(node, place))
            elif self.graph.is_float(value) and node.op_type not in UNTYPED | {"Cast"}:
                written.input[place] = self._as(value, self._want(node, place))
        # The outputs of these state their own type.
        if node.op_type not in UNTYPED | {"Cast"} and id(node) not in self.reasons:
            for value in self.graph.float_outputs(node):
                self.types[value] = self.half
        self.nodes.append(written)

    def _as(self, value: str, kind: int) -> str:
        if self.types[value] == kind:
            return value
        if (value, kind) not in self.casts:
            name = TYPE_NAMES[kind]
            cast = f"{value}/{name}"
            source = self.graph.producers.get(value)
            # What was no number is cast once, not twice.
            start = source.input[0] if source is not None and source.op_type == "Cast" else value
            self.nodes.append(helper.make_node("Cast", [start], [cast], name=f"{value}/to_{name}", to=kind))
            self.casts[value, kind] = cast
        return self.casts[value, kind]

    def _weight(self, name: str, kind: int) -> str:
        tensor = self.graph.constants[name]
        used = name if tensor.data_type == kind or TensorProto.FLOAT not in self.wanted[name] else f"{name}/half"
        if (name, kind) not in self.weights:
            if tensor.data_type == kind:
                self.weights[name, kind] = tensor
            else:
                self.weights[name, kind], zeros = narrowed(tensor, kind, used)
                self.lost += zeros
        return used

    def _widen_outputs(self, graph: GraphProto) -> None:
        for output in graph.output:
            if self.types[output.name] != self.half:
                continue
            inner = f"{output.name}/half"
            for node in self.nodes:
                for values in (node.input, node.output):
                    for place, value in enumerate(values):
                        if value == output.name:
                            values[place] = inner
            name = f"{output.name}/to_fp32"
            self.nodes.append(helper.make_node("Cast", [inner], [output.name], name=name, to=TensorProto.FLOAT))


def _alive(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """The nodes that an output needs."""
    kept = []
    for node in reversed(nodes):
        if any(value in wanted for value in node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def _note_underflow(model: ModelProto, count: int) -> None:
    others = [entry for entry in model.metadata_props if entry.key != _UNDERFLOWED]
    kept = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in others]
    del model.metadata_props[:]
    model.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=_UNDERFLOWED, value=str(count))])
    if count:
        _log.info("%d weights are too small for half precision and became 0", count)
