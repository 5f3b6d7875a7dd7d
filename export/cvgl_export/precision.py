"""Strongly typed graphs: which nodes of a network run in half precision, the casts between, and what a graph really is.

TensorRT takes a network with the types that its ONNX graph states, so precision is decided here and nowhere else. All
that can be said of a graph afterwards is read back from its types.
"""

from __future__ import annotations

import ast
import logging
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, Literal

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
import onnx.shape_inference
import onnx.version_converter
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from cvgl.errors import ModelError

__all__ = [
    "HALF_MAX",
    "Kind",
    "check_types",
    "describe_types",
    "emulate",
    "fp32_nodes",
    "half_graph",
    "half_weights",
    "name_nodes",
    "name_uniquely",
    "plain_graph",
    "ranges",
    "underflowed",
]

_log = logging.getLogger(__name__)

Kind = Literal["fp16", "bf16"]

HALF_MAX = 65504.0
"""Greatest finite number in FP16."""

_KINDS: dict[str, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}
_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
_FLOATS = frozenset(_NAMES)
_BF16_OPSET = 22
"""The first in which convolutions and pooling are defined for bfloat16."""
_UNDERFLOWED = "cvgl.underflowed_weights"
_SMALL = 1024

_CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOVES = frozenset({
    "Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity", "Pad",
    "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze",
})  # fmt: skip
_QUANTISERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_UNTYPED = frozenset({"Shape", "Size", "ConstantOfShape", "Range"})
# Exact, or with an error of one rounding, on whatever half precision can hold.
_POINTWISE = frozenset({
    "Abs", "Add", "And", "ArgMax", "ArgMin", "Ceil", "Clip", "Div", "Dropout", "Elu", "Equal", "Erf", "Floor", "Gelu",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less",
    "LessOrEqual", "Max", "MaxPool", "Min", "Mul", "Neg", "PRelu", "ReduceMax", "ReduceMin", "Relu", "Resize", "Round",
    "Selu", "Sigmoid", "Sign", "Sub", "Tanh", "TopK", "Where",
})  # fmt: skip
_NORMS = frozenset({
    "BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization",
    "LpNormalization", "MeanVarianceNormalization", "RMSNormalization",
})  # fmt: skip
_SOFTMAX = frozenset({"LogSoftmax", "Softmax"})
_SUMS = frozenset({
    "AveragePool", "CumSum", "Einsum", "GlobalAveragePool", "GlobalLpPool", "LpPool", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceSumSquare",
})  # fmt: skip
_CURVES = frozenset({"Exp", "Log", "Pow", "Reciprocal", "Softplus", "Sqrt"})
# What may stand between a product of queries and keys and its softmax.
_SCORING = frozenset({"Add", "Clip", "Div", "Mul", "Sub", "Where"}) | _MOVES

_KEPT = "kept in FP32 by name"
_AFTER = "works on what a sum, norm or the image itself gave, before the next layer"
_BETWEEN = "lies between nodes in FP32"
_SUM = "a sum or mean over many values"
_CURVE = "squares, roots, exponentials and logarithms leave half precision's range"
_QUOTIENT = "a quotient by a computed value"
_WEIGHTED = "a sum weighted by a softmax over another axis"
_CONSTANT = "a constant that half precision cannot hold"


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
    graph = _Graph(model)
    known = {node.name for node in graph.nodes}
    for name in keep:
        if name not in known:
            raise ModelError("no such node to keep in FP32", field="keep", found=name)
    _refuse_what_is_not_fp32(graph)
    typed = _Retyper(graph, _KINDS[kind], _reasons(graph, _KINDS[kind], frozenset(keep))).run()
    check_types(typed)
    return typed


def half_weights(model: ModelProto) -> ModelProto:
    """A graph that computes as before, whose large FP32 initialisers are stored as FP16 with a Cast before their use.

    Half the bytes; a runtime folds the casts when it loads.

    Raises:
        ModelError: a weight beyond FP16's range.
    """
    model = _copy(model)
    casts = []
    lost = 0
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) < _SMALL:
            continue
        wide, stored = tensor.name, f"{tensor.name}.fp16"
        narrow, zeros = _narrowed(tensor, TensorProto.FLOAT16, stored)
        lost += zeros
        tensor.CopyFrom(narrow)
        casts.append(helper.make_node("Cast", [stored], [wide], name=f"{wide}/to_fp32", to=TensorProto.FLOAT))
    _set_nodes(model.graph, [*casts, *model.graph.node])
    _note_underflow(model, lost)
    return _inferred(model)


def underflowed(model: ModelProto) -> int:
    """How many weights that were not 0 became 0 when `half_graph` or `half_weights` stored them in half precision."""
    return int({entry.key: entry.value for entry in model.metadata_props}.get(_UNDERFLOWED, "0"))


def name_nodes(model: ModelProto) -> ModelProto:
    """A graph whose nodes are named by the PyTorch module they came from and their operator: "blocks.2.attn/MatMul_1".

    The modules are in the metadata that PyTorch's exporter writes; call this before that is removed. Nodes without it
    keep their names. In any case every node has a name and no two the same.
    """
    model = _copy(model)
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get("pkg.torch.onnx.name_scopes")
        if scopes is None:
            continue
        modules = ast.literal_eval(scopes)[:-1]
        node.name = f"{modules[-1]}/{node.op_type}" if modules and modules[-1] else node.op_type
    name_uniquely(model.graph)
    return model


def describe_types(model: ModelProto) -> dict[str, Counter[str]]:
    """By operator, how many of its nodes compute in which type: "fp32", "fp16", "bf16", "fp64" or "int8".

    Read from the graph by type inference. Casts, data movement, quantisers and integer arithmetic are not counted. A
    layer is "int8" whose data and weights both come from a DequantizeLinear: TensorRT runs it on the integers.
    """
    graph = _Graph(_inferred(model))
    found: dict[str, Counter[str]] = {}
    for node, computed in _computing(graph):
        found.setdefault(node.op_type, Counter())[computed] += 1
    return found


def fp32_nodes(model: ModelProto) -> list[tuple[str, str, str]]:
    """(name, operator, why) of every node that computes in FP32, in the graph's order.

    That it does is read from the graph by type inference; why it should is what `half_graph` would say of it, or that
    it is kept by name where it would have made it half.
    """
    graph = _Graph(_inferred(model))
    reasons = _reasons(graph, TensorProto.FLOAT16, frozenset())
    return [
        (node.name, node.op_type, reasons.get(id(node), _KEPT))
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
    skeleton = _skeleton(model)
    _check_inputs(_Graph(_inferred(skeleton)))
    try:
        onnx.checker.check_model(skeleton, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as reason:
        raise ModelError(f"not a valid graph: {reason}") from reason


def ranges(model: ModelProto, images: NDArray[np.float32]) -> dict[str, float]:
    """Greatest magnitude that each node of an FP32 graph gives on some images, by the node's name.

    What exceeds `HALF_MAX` would be infinite in FP16. Runs the graph without optimisations, image by image, with every
    floating-point output kept: some hundreds of MB for the largest networks.

    Args:
        model: takes one input.
        images: (B, 3, H, W) normalised; a graph of fixed batch size takes as many at a time, B a multiple of it.

    Raises:
        ModelError: B is not such a multiple.
    """
    import onnxruntime

    model = _copy(model)
    name_uniquely(model.graph)
    model = _inferred(model)
    graph = _Graph(model)
    outputs = {
        value: node.name
        for node in graph.nodes
        for value in node.output
        if graph.types.get(value) in (TensorProto.FLOAT, TensorProto.FLOAT16)
    }
    given = {output.name for output in model.graph.output}
    model.graph.output.extend(
        helper.make_tensor_value_info(value, graph.types[value], None) for value in outputs if value not in given
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = entry.shape[0] if isinstance(entry.shape[0], int) else 1
    if len(images) % size:
        raise ModelError("not whole batches", field="images", found=len(images), expected=f"a multiple of {size}")
    names = list(outputs)
    found: dict[str, float] = {node.name: 0.0 for node in graph.nodes if set(node.output) & set(names)}
    for start in range(0, len(images), size):
        for name, value in zip(names, session.run(names, {entry.name: images[start : start + size]}), strict=True):
            greatest = float(np.abs(value).max(initial=0.0))
            node = outputs[name]
            found[node] = max(found[node], greatest if np.isfinite(greatest) else float("inf"))
    return found


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
    model = _inferred(_copy(model))
    graph = _Graph(model)
    nodes: list[NodeProto] = []
    for node in graph.nodes:
        nodes.extend(_emulated(graph, node))
    for tensor in model.graph.initializer:
        if tensor.data_type in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            tensor.CopyFrom(numpy_helper.from_array(_array(tensor).astype(np.float32), tensor.name))
    _set_nodes(model.graph, nodes)
    name_uniquely(model.graph)
    return _inferred(model)


class _Graph:
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
        return self.types.get(value) in _FLOATS

    def is_constant(self, value: str) -> bool:
        """Whether a value is a weight, or one that was only moved."""
        node = self.producers.get(value)
        if node is None:
            return value in self.constants
        return node.op_type in _MOVES | {"DequantizeLinear"} and node.input[0] in self.constants

    def float_inputs(self, node: NodeProto) -> list[str]:
        """Floating-point inputs that are computed."""
        return [value for value in node.input if value not in self.constants and self.is_float(value)]

    def float_outputs(self, node: NodeProto) -> list[str]:
        return [value for value in node.output if self.is_float(value)]


def _reasons(graph: _Graph, half: int, keep: Collection[str]) -> dict[int, str]:
    """Why each node that has to be in FP32 has to; by the node's id, since names may still be missing."""
    found: dict[int, str] = {}
    scores = _scores(graph)
    # Values that pointwise nodes go on with in FP32, until the next layer.
    wide = {value.name for value in graph.model.graph.input}
    for node in graph.nodes:
        inputs, outputs = graph.float_inputs(node), graph.float_outputs(node)
        if node.op_type in _UNTYPED or not (inputs or outputs):
            continue
        touched = any(value in wide for value in inputs)
        own = scores.get(id(node)) or _own_reason(graph, node, half)
        if own is not None:
            found[id(node)] = own
        elif touched and node.op_type not in _CONTRACTIONS:
            found[id(node)] = _AFTER
        if node.name in keep:
            found.setdefault(id(node), _KEPT)
        restarts = node.op_type in _CONTRACTIONS | _NORMS | _SOFTMAX | _QUANTISERS
        if own in (_SUM, _CURVE, _QUOTIENT, _WEIGHTED) or (touched and not restarts):
            wide.update(outputs)
    return found | _between(graph, found)


def _own_reason(graph: _Graph, node: NodeProto, half: int) -> str | None:
    op = node.op_type
    if op in _NORMS:
        return "a normalisation: its variance is a sum of squares"
    if op in _SOFTMAX:
        return "a softmax: its exponentials are summed"
    if op in _SUMS:
        return _SUM
    if op in _CURVES or (op == "Mul" and node.input[0] == node.input[1]):
        return _CURVE
    if op == "Div" and not graph.is_constant(node.input[1]):
        return _QUOTIENT
    if op == "MatMul" and _is_weighted_sum(graph, node):
        return _WEIGHTED
    if op not in _CONTRACTIONS | _MOVES | _POINTWISE | _QUANTISERS:
        return "an operator that is not known to be safe in half precision"
    if not _defined_for(graph, node, half):
        return f"ONNX {graph.opset} does not define it in half precision"
    if op not in _QUANTISERS and any(_is_lost(graph.constants[v], half) for v in node.input if v in graph.constants):
        return _CONSTANT
    return None


def _between(graph: _Graph, fixed: dict[int, str]) -> dict[int, str]:
    """Nodes that are no layers and need no cast on either side if they are FP32 as well.

    What only moves values is worth it as soon as one reader is FP32: the others cast what they read, and the FP32
    reader gets the value unrounded.
    """
    free = {
        id(node): node
        for node in graph.nodes
        if id(node) not in fixed
        and node.op_type not in _CONTRACTIONS | _UNTYPED
        and (graph.float_inputs(node) or graph.float_outputs(node))
    }

    def is_wide(node: NodeProto | None) -> bool:
        return node is None or id(node) in fixed or id(node) in free

    def stays(node: NodeProto) -> bool:
        if not all(is_wide(graph.producers.get(value)) for value in graph.float_inputs(node)):
            return False
        outputs = graph.float_outputs(node)
        if not outputs:
            return True
        readers = [
            is_wide(reader)
            for value in outputs
            for reader in graph.consumers.get(value, [])
            if reader.op_type not in _UNTYPED
        ]
        readers += [True for value in outputs if value in graph.outputs]
        return any(readers) if node.op_type in _MOVES else all(readers)

    while True:
        leaving = [key for key, node in free.items() if not stays(node)]
        if not leaving:
            return {key: _BETWEEN for key in free}
        for key in leaving:
            del free[key]


def _scores(graph: _Graph) -> dict[int, str]:
    """What stands between a product of queries and keys and its softmax; the product too where nothing was scaled
    before it."""
    found: dict[int, str] = {}
    for softmax in graph.nodes:
        if softmax.op_type not in _SOFTMAX:
            continue
        waiting: list[tuple[str, bool, list[NodeProto]]] = [(softmax.input[0], False, [])]
        while waiting:
            value, scaled, path = waiting.pop()
            node = graph.producers.get(value)
            if node is None or id(node) in found:
                continue
            if node.op_type == "MatMul" and not any(graph.is_constant(factor) for factor in node.input):
                found.update({id(between): "between an attention's scores and their softmax" for between in path})
                if scaled or not any(_is_scaled(graph, factor) for factor in node.input):
                    found[id(node)] = "an attention's scores, not scaled before the product"
            elif node.op_type in _SCORING:
                scales = node.op_type in ("Mul", "Div") and any(graph.is_constant(factor) for factor in node.input)
                waiting += [(source, scaled or scales, [*path, node]) for source in graph.float_inputs(node)]
    return found


def _is_scaled(graph: _Graph, value: str) -> bool:
    """Whether a value was multiplied by a constant and only moved since."""
    node = graph.producers.get(value)
    while node is not None and node.op_type in _MOVES:
        node = graph.producers.get(node.input[0])
    return node is not None and node.op_type in ("Mul", "Div") and any(graph.is_constant(v) for v in node.input)


def _is_weighted_sum(graph: _Graph, product: NodeProto) -> bool:
    """Whether a MatMul sums with a softmax's output along another axis than the softmax's, so that the weights do not
    add up to 1."""
    for place, value in enumerate(product.input):
        rank = graph.ranks.get(value, 0)
        axis = rank - 1 if place == 0 else rank - 2
        node = graph.producers.get(value)
        while node is not None and node.op_type in _MOVES:
            if node.op_type == "Transpose":
                order = _attribute(node, "perm", list(reversed(range(rank))))
                axis = order[axis]
            elif node.op_type not in ("Cast", "Identity"):
                # What a reshape does to the axes is not followed; only the last stays the last, as in attentions.
                axis = -1 if axis == rank - 1 else rank
            node = graph.producers.get(node.input[0])
        if node is not None and node.op_type in _SOFTMAX:
            ranked = graph.ranks.get(node.output[0], 0)
            own = _attribute(node, "axis", -1) % max(ranked, 1)
            if own != (axis if axis >= 0 else ranked - 1):
                return True
    return False


def _attribute(node: NodeProto, name: str, default: Any) -> Any:
    return next((helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def _formal(graph: _Graph, node: NodeProto, place: int) -> tuple[str, frozenset[str]]:
    """The type variable of an input and the types that it may stand for."""
    schema = onnx.defs.get_schema(node.op_type, graph.opset, node.domain)
    formal = schema.inputs[min(place, len(schema.inputs) - 1)]
    allowed = {rule.type_param_str: rule.allowed_type_strs for rule in schema.type_constraints}
    return formal.type_str, frozenset(allowed.get(formal.type_str, [formal.type_str]))


def _written(kind: int) -> str:
    """A type as ONNX's schemas write it."""
    words = {"fp32": "float", "fp16": "float16", "bf16": "bfloat16", "fp64": "double"}
    return f"tensor({words[_NAMES[kind]]})"


def _is_fixed(graph: _Graph, node: NodeProto, place: int, half: int) -> bool:
    """Whether ONNX defines an input for FP32 alone whatever the node's type is: Resize's scales."""
    return _written(half) not in _formal(graph, node, place)[1]


def _defined_for(graph: _Graph, node: NodeProto, half: int) -> bool:
    floats = [place for place, value in enumerate(node.input) if graph.is_float(value)]
    return not floats or not _is_fixed(graph, node, floats[0], half)


def _is_lost(tensor: TensorProto, half: int) -> bool:
    """Whether a scalar would overflow or become 0. (Of larger tensors, overflow is an error and zeros are counted.)"""
    if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) != 1:
        return False
    value = float(_array(tensor).reshape(()))
    narrow = float(_rounded(np.array(value, np.float32), half))
    return bool(np.isfinite(value)) and (not np.isfinite(narrow) or (narrow == 0) != (value == 0))


class _Retyper:
    """Writes the typed graph: every node in its type, weights in the types they are read in, casts where types meet."""

    def __init__(self, graph: _Graph, half: int, reasons: dict[int, str]) -> None:
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
        _set_nodes(model.graph, _alive(self.nodes, {value.name for value in model.graph.output}))
        name_uniquely(model.graph)
        _note_underflow(model, self.lost)
        return _inferred(model)

    def _want(self, node: NodeProto, place: int) -> int:
        """The type in which a node reads an input."""
        kind = self.graph.types[node.input[place]]
        if kind != TensorProto.FLOAT or node.op_type in _UNTYPED:
            return kind
        if id(node) in self.reasons or _is_fixed(self.graph, node, place, self.half):
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
            elif self.graph.is_float(value) and node.op_type not in _UNTYPED | {"Cast"}:
                written.input[place] = self._as(value, self._want(node, place))
        # The outputs of these state their own type.
        if node.op_type not in _UNTYPED | {"Cast"} and id(node) not in self.reasons:
            for value in self.graph.float_outputs(node):
                self.types[value] = self.half
        self.nodes.append(written)

    def _as(self, value: str, kind: int) -> str:
        if self.types[value] == kind:
            return value
        if (value, kind) not in self.casts:
            name = _NAMES[kind]
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
                self.weights[name, kind], zeros = _narrowed(tensor, kind, used)
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


def _emulated(graph: _Graph, node: NodeProto) -> Iterator[NodeProto]:
    """A node of a typed graph in FP32, followed by the rounding of what it gives."""
    copy = NodeProto()
    copy.CopyFrom(node)
    outputs = [v for v in node.output if graph.types.get(v) in (TensorProto.FLOAT16, TensorProto.BFLOAT16)]
    if node.op_type == "Cast":
        to = _attribute(node, "to", TensorProto.FLOAT)
        if to in (TensorProto.FLOAT16, TensorProto.BFLOAT16):
            yield from _rounding(node.input[0], node.output[0], to, node.name)
            return
    elif outputs and node.op_type in ("LayerNormalization", "ReduceMean", "ReduceL2"):
        yield from _in_steps(graph, node, graph.types[outputs[0]])
        return
    elif outputs and node.op_type not in _MOVES:
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


def _in_steps(graph: _Graph, node: NodeProto, kind: int) -> Iterator[NodeProto]:
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
        rank, axis = graph.ranks[x], _attribute(node, "axis", -1)
        axes, axes_node = constant("axes", np.arange(axis % rank, rank, dtype=np.int64))
        small, small_node = constant("epsilon", np.array(_attribute(node, "epsilon", 1e-5), np.float32))
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
    keep = _attribute(node, "keepdims", 1)
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


def _computing(graph: _Graph) -> Iterator[tuple[NodeProto, str]]:
    """Every node that computes on floating-point numbers, and in which type."""
    for node in graph.nodes:
        if node.op_type in _MOVES | _QUANTISERS | _UNTYPED:
            continue
        inputs = [value for value in node.input if graph.is_float(value)]
        values = inputs or graph.float_outputs(node)
        if not values:
            continue
        sources = [graph.producers.get(value) for value in node.input[:2]]
        if node.op_type in _CONTRACTIONS and all(s is not None and s.op_type == "DequantizeLinear" for s in sources):
            yield node, "int8"
        else:
            yield node, _NAMES[graph.types[values[0]]]


def _check_inputs(graph: _Graph) -> None:
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
            variable, allowed = _formal(graph, node, place)
            if _written(kind) not in allowed:
                raise ModelError(
                    f"{node.op_type} is not defined for this type", field=node.name, found=f"{value}: {_NAMES[kind]}"
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
                    found=f"{value}: {_NAMES[kind]}",
                    expected=_NAMES[first],
                )


def _refuse_what_is_not_fp32(graph: _Graph) -> None:
    for node in graph.nodes:
        if node.domain not in ("", "ai.onnx"):
            raise ModelError("an operator of another domain", field=node.name, found=f"{node.domain}.{node.op_type}")
        if any(a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS) for a in node.attribute):
            raise ModelError("control flow cannot be typed", field=node.name, found=node.op_type)
        for value in (*node.input, *node.output):
            kind = graph.types.get(value)
            if value and not kind:
                raise ModelError("a value of unknown type", field=node.name, found=value)
            if kind in _FLOATS and kind != TensorProto.FLOAT:
                raise ModelError("not an FP32 graph", field=node.name, found=f"{value}: {_NAMES[kind]}")


def plain_graph(model: ModelProto, kind: str = "fp16") -> ModelProto:
    """A copy in which constants are initialisers, casts of weights and casts to the same type are gone, and types and
    names are there; what the other functions start from. For "bf16" the opset is raised to 22, for quantisers to 19.

    Raises:
        ModelError: no such precision, or types that do not fit.
    """
    if kind not in _KINDS:
        raise ModelError("no such precision", field="kind", found=kind, expected=" or ".join(_KINDS))
    model = onnx.inliner.inline_local_functions(model) if model.functions else _copy(model)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    wanted = _BF16_OPSET if kind == "bf16" else 0
    if any(node.op_type in _QUANTISERS for node in model.graph.node):
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
            to = _attribute(node, "to", TensorProto.FLOAT)
            array = _array(constants[node.input[0]]).astype(helper.tensor_dtype_to_np_dtype(to))
            constants[node.output[0]] = numpy_helper.from_array(array, node.output[0])
        else:
            nodes.append(node)
    used = {value for node in nodes for value in node.input}
    kept = [tensor for name, tensor in constants.items() if name in used]
    copies = [_copied(tensor) for tensor in kept]
    del model.graph.initializer[:]
    model.graph.initializer.extend(copies)
    _set_nodes(model.graph, nodes)
    name_uniquely(model.graph)
    model = _inferred(model)
    _bypass_idle_casts(model)
    return model


def _at_opset(model: ModelProto, opset: int) -> ModelProto:
    """Raised by ONNX's own converter, on a copy without the weights: it takes no graph of more than 2 GB."""
    names = [node.name for node in model.graph.node]
    raised = onnx.version_converter.convert_version(_skeleton(model), opset)
    if [node.op_type for node in raised.graph.node] == [node.op_type for node in model.graph.node]:
        for node, name in zip(raised.graph.node, names, strict=True):
            node.name = name
    _set_nodes(model.graph, list(raised.graph.node))
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
        tensor = _copied(value)
        tensor.name = node.output[0]
        return tensor
    dtype = np.int64 if "int" in attribute.name else np.float32
    return numpy_helper.from_array(np.asarray(value, dtype), node.output[0])


def _bypass_idle_casts(model: ModelProto) -> None:
    """Leave out casts of a value to the type it has."""
    types = _Graph(model).types
    given = {output.name for output in model.graph.output}
    instead: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        for place, value in enumerate(node.input):
            node.input[place] = instead.get(value, value)
        idle = node.op_type == "Cast" and types.get(node.input[0]) == _attribute(node, "to", 0)
        if idle and node.output[0] not in given:
            instead[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    _set_nodes(model.graph, nodes)


def name_uniquely(graph: GraphProto) -> None:
    """Give a name to every node that has none, and a number to every one that shares its name."""
    seen: set[str] = set()
    for node in graph.node:
        start = node.name or node.op_type
        name, number = start, 0
        while name in seen:
            number += 1
            name = f"{start}_{number}"
        seen.add(name)
        node.name = name


def _inferred(model: ModelProto) -> ModelProto:
    """The model itself, with the type of every value written into it.

    Raises:
        ModelError: types that do not fit.
    """
    try:
        known = onnx.shape_inference.infer_shapes(
            _skeleton(model), check_type=True, strict_mode=True, data_prop=True
        ).graph.value_info
    except onnx.shape_inference.InferenceError as reason:
        raise ModelError(f"types that do not fit: {reason}") from reason
    inputs = {tensor.name for tensor in model.graph.initializer}
    del model.graph.value_info[:]
    model.graph.value_info.extend(value for value in known if value.name not in inputs)
    return model


def _skeleton(model: ModelProto) -> ModelProto:
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
        if np.prod(tensor.dims) <= _SMALL:
            graph.initializer.append(tensor)
        elif tensor.name not in taken:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return skeleton


def _narrowed(tensor: TensorProto, kind: int, name: str) -> tuple[TensorProto, int]:
    """A weight in half precision under a name, and how many of its values became 0.

    Raises:
        ModelError: a value beyond the type's range.
    """
    wide = _array(tensor)
    narrow = _rounded(wide, kind)
    beyond = np.isfinite(wide) & ~np.isfinite(narrow.astype(np.float32))
    if beyond.any():
        worst = float(np.abs(wide[beyond]).max())
        limit = f"at most {float(ml_dtypes.finfo(narrow.dtype).max):.6g} in {_NAMES[kind]}"
        raise ModelError("a weight is beyond half precision", field=tensor.name, found=worst, expected=limit)
    half = TensorProto(name=name, data_type=kind, dims=tensor.dims, raw_data=narrow.tobytes())
    return half, int(np.count_nonzero((narrow == 0) & (wide != 0)))


def _rounded(values: NDArray[np.float32], kind: int) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return values.astype(np.float16 if kind == TensorProto.FLOAT16 else ml_dtypes.bfloat16)


def _note_underflow(model: ModelProto, count: int) -> None:
    others = [entry for entry in model.metadata_props if entry.key != _UNDERFLOWED]
    kept = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in others]
    del model.metadata_props[:]
    model.metadata_props.extend([*kept, onnx.StringStringEntryProto(key=_UNDERFLOWED, value=str(count))])
    if count:
        _log.info("%d weights are too small for half precision and became 0", count)


def _array(tensor: TensorProto) -> NDArray[Any]:
    return numpy_helper.to_array(tensor)


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _copied(tensor: TensorProto) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    return copy


def _set_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    # Nodes of the graph itself would be emptied with it.
    copies = []
    for node in nodes:
        copy = NodeProto()
        copy.CopyFrom(node)
        copies.append(copy)
    del graph.node[:]
    graph.node.extend(copies)
