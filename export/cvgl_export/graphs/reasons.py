"""Which nodes half precision would spoil, and why."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from onnx import NodeProto, TensorProto

from .narrow import rounded
from .operators import CONTRACTIONS, CURVES, MOVES, NORMS, POINTWISE, QUANTISERS, SOFTMAX, SUMS, UNTYPED
from .read import Graph, array_of, attribute
from .schema import is_defined_for

__all__ = ["KEPT", "fp32_reasons"]

# What may stand between a product of queries and keys and its softmax.
_SCORING = frozenset({"Add", "Clip", "Div", "Mul", "Sub", "Where"}) | MOVES

KEPT = "kept in FP32 by name"
_AFTER = "works on what a sum, norm or the image itself gave, before the next layer"
_BETWEEN = "lies between nodes in FP32"
_SUM = "a sum or mean over many values"
_CURVE = "squares, roots, exponentials and logarithms leave half precision's range"
_QUOTIENT = "a quotient by a computed value"
_WEIGHTED = "a sum weighted by a softmax over another axis"
_CONSTANT = "a constant that half precision cannot hold"


def fp32_reasons(graph: Graph, half: int, keep: Collection[str]) -> dict[int, str]:
    """Why each node that has to be in FP32 has to; by the node's id, since names may still be missing."""
    found: dict[int, str] = {}
    scores = _scores(graph)
    # Values that pointwise nodes go on with in FP32, until the next layer.
    wide = {value.name for value in graph.model.graph.input}
    for node in graph.nodes:
        inputs, outputs = graph.float_inputs(node), graph.float_outputs(node)
        if node.op_type in UNTYPED or not (inputs or outputs):
            continue
        touched = any(value in wide for value in inputs)
        own = scores.get(id(node)) or _own_reason(graph, node, half)
        if own is not None:
            found[id(node)] = own
        elif touched and node.op_type not in CONTRACTIONS:
            found[id(node)] = _AFTER
        if node.name in keep:
            found.setdefault(id(node), KEPT)
        restarts = node.op_type in CONTRACTIONS | NORMS | SOFTMAX | QUANTISERS
        if own in (_SUM, _CURVE, _QUOTIENT, _WEIGHTED) or (touched and not restarts):
            wide.update(outputs)
    return found | _between(graph, found)


def _own_reason(graph: Graph, node: NodeProto, half: int) -> str | None:
    op = node.op_type
    if op in NORMS:
        return "a normalisation: its variance is a sum of squares"
    if op in SOFTMAX:
        return "a softmax: its exponentials are summed"
    if op in SUMS:
        return _SUM
    if op in CURVES or (op == "Mul" and node.input[0] == node.input[1]):
        return _CURVE
    if op == "Div" and not graph.is_constant(node.input[1]):
        return _QUOTIENT
    if op == "MatMul" and _is_weighted_sum(graph, node):
        return _WEIGHTED
    if op not in CONTRACTIONS | MOVES | POINTWISE | QUANTISERS:
        return "an operator that is not known to be safe in half precision"
    if not is_defined_for(graph, node, half):
        return f"ONNX {graph.opset} does not define it in half precision"
    if op not in QUANTISERS and any(_is_lost(graph.constants[v], half) for v in node.input if v in graph.constants):
        return _CONSTANT
    return None


def _between(graph: Graph, fixed: dict[int, str]) -> dict[int, str]:
    """Nodes that are no layers and need no cast on either side if they are FP32 as well.

    What only moves values is worth it as soon as one reader is FP32: the others cast what they read, and the FP32
    reader gets the value unrounded.
    """
    free = {
        id(node): node
        for node in graph.nodes
        if id(node) not in fixed
        and node.op_type not in CONTRACTIONS | UNTYPED
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
            if reader.op_type not in UNTYPED
        ]
        readers += [True for value in outputs if value in graph.outputs]
        return any(readers) if node.op_type in MOVES else all(readers)

    while True:
        leaving = [key for key, node in free.items() if not stays(node)]
        if not leaving:
            return {key: _BETWEEN for key in free}
        for key in leaving:
            del free[key]


def _scores(graph: Graph) -> dict[int, str]:
    """What stands between a product of queries and keys and its softmax; the product too where nothing was scaled
    before it."""
    found: dict[int, str] = {}
    for softmax in graph.nodes:
        if softmax.op_type not in SOFTMAX:
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


def _is_scaled(graph: Graph, value: str) -> bool:
    """Whether a value was multiplied by a constant and only moved since."""
    node = graph.producers.get(value)
    while node is not None and node.op_type in MOVES:
        node = graph.producers.get(node.input[0])
    return node is not None and node.op_type in ("Mul", "Div") and any(graph.is_constant(v) for v in node.input)


def _is_weighted_sum(graph: Graph, product: NodeProto) -> bool:
    """Whether a MatMul sums with a softmax's output along another axis than the softmax's, so that the weights do not
    add up to 1."""
    for place, value in enumerate(product.input):
        rank = graph.ranks.get(value, 0)
        axis = rank - 1 if place == 0 else rank - 2
        node = graph.producers.get(value)
        while node is not None and node.op_type in MOVES:
            if node.op_type == "Transpose":
                order = attribute(node, "perm", list(reversed(range(rank))))
                axis = order[axis]
            elif node.op_type not in ("Cast", "Identity"):
                # What a reshape does to the axes is not followed; only the last stays the last, as in attentions.
                axis = -1 if axis == rank - 1 else rank
            node = graph.producers.get(node.input[0])
        if node is not None and node.op_type in SOFTMAX:
            ranked = graph.ranks.get(node.output[0], 0)
            own = attribute(node, "axis", -1) % max(ranked, 1)
            if own != (axis if axis >= 0 else ranked - 1):
                return True
    return False


def _is_lost(tensor: TensorProto, half: int) -> bool:
    """Whether a scalar would overflow or become 0. (Of larger tensors, overflow is an error and zeros are counted.)"""
    if tensor.data_type != TensorProto.FLOAT or np.prod(tensor.dims) != 1:
        return False
    value = float(array_of(tensor).reshape(()))
    narrow = float(rounded(np.array(value, np.float32), half))
    return bool(np.isfinite(value)) and (not np.isfinite(narrow) or (narrow == 0) != (value == 0))
