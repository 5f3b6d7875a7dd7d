"""How much of a graph's arithmetic each layer does, and in which type."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto

from .observe import observed
from .operators import CONTRACTIONS
from .read import Graph, attribute, inferred
from .types import fp32_nodes

__all__ = ["layer_types", "multiply_adds"]


def multiply_adds(model: ModelProto, images: NDArray[np.float32]) -> dict[str, int]:
    """Multiply-adds of one image in every convolution and matrix product, by the node's name.

    Shapes are read from a run, since not every graph states them.

    Args:
        model: FP32, of one input.
        images: (B, 3, H, W) normalised, as many as the graph takes; one is enough where it takes any number.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in CONTRACTIONS]
    values = {value for node in nodes for value in (*node.input[:2], node.output[0]) if value not in weights}
    values -= {entry.name for entry in model.graph.input}
    shapes = {value: seen.shape for value, seen in observed(model, sorted(values), [images])}
    shapes |= {model.graph.input[0].name: images.shape, **weights}
    found = {}
    for node in nodes:
        x, w, y = (shapes[value] for value in (*node.input[:2], node.output[0]))
        if node.op_type == "Conv":
            total = math.prod(y) * math.prod(w[1:])
        elif node.op_type == "ConvTranspose":
            total = math.prod(x) * math.prod(w[1:])
        else:
            total = math.prod(y) * x[-2 if attribute(node, "transA", 0) else -1]
        found[node.name] = round(total / len(images))
    return found


def layer_types(model: ModelProto) -> dict[str, str]:
    """In which type every convolution and matrix product of a graph computes, by name: "int8", "fp16" or "fp32".

    Read from the graph: a layer is "int8" whose data and weights both come from a DequantizeLinear.
    """
    graph = Graph(inferred(model))
    wide = {name for name, _, _ in fp32_nodes(model)}
    found = {}
    for node in graph.nodes:
        if node.op_type not in CONTRACTIONS:
            continue
        sources = [graph.producers.get(value) for value in node.input[:2]]
        if all(source is not None and source.op_type == "DequantizeLinear" for source in sources):
            found[node.name] = "int8"
        elif node.name in wide:
            found[node.name] = "fp32"
        else:
            found[node.name] = "fp16" if graph.types[node.output[0]] == TensorProto.FLOAT16 else "bf16"
    return found
