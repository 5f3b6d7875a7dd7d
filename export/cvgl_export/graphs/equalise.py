"""Channels of neighbouring convolutions brought to like ranges before they are quantised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper

from .observe import observed
from .read import attribute

__all__ = ["equalise"]


def equalise(model: ModelProto, chosen: Collection[str], images: list[NDArray[np.float32]]) -> None:
    """Scale channels between two convolutions, which changes nothing in FP32: down in the first, up in the second.

    One range has to serve all channels of an activation, so that of a channel a hundred times weaker than the strongest
    little more than a bit is left. The scale is the root of the channel's range in the images over its greatest weight
    in the second convolution: all of the range would move the difference into those weights, which share a range too.
    """
    pairs = list(_pairs(model, chosen))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {
        name: numpy_helper.to_array(tensors[name]).copy()
        for first, second in pairs
        for name in (*first.input[1:], second.input[1])
    }
    greatest: dict[str, NDArray[Any]] = {}
    for value, seen in observed(model, [second.input[0] for _, second in pairs], images):
        found = np.abs(seen).max(axis=(0, 2, 3))
        greatest[value] = np.maximum(greatest.get(value, found), found)
    for first, second in pairs:
        ranges = greatest[second.input[0]].astype(np.float64)
        used = np.abs(weights[second.input[1]]).max(axis=(0, 2, 3)).astype(np.float64)
        live = (ranges > 1e-6) & (used > 1e-9)
        scale = np.ones_like(ranges)
        if live.any():
            roots = np.sqrt(ranges[live] / used[live])
            scale[live] = np.clip(roots / np.exp(np.log(roots).mean()), 0.01, 100.0)
        scale = scale.astype(np.float32)
        weights[second.input[1]] *= scale[:, None, None]
        weights[first.input[1]] /= scale[:, None, None, None]
        for bias in first.input[2:]:
            weights[bias] /= scale
    for name, values in weights.items():
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))


def _pairs(model: ModelProto, chosen: Collection[str]) -> Iterator[tuple[NodeProto, NodeProto]]:
    """Convolutions and the convolution before each, with nothing between that a positive factor does not pass through,
    nothing else that reads it, and weights of their own."""
    producers = {output: node for node in model.graph.node for output in node.output}
    readers = Counter(value for node in model.graph.node for value in node.input)
    readers.update(output.name for output in model.graph.output)
    for second in model.graph.node:
        if second.op_type != "Conv" or second.name not in chosen or attribute(second, "group", 1) != 1:
            continue
        value = second.input[0]
        first = producers.get(value)
        while first is not None and readers[value] == 1 and first.op_type in ("Relu", "MaxPool", "AveragePool"):
            value = first.input[0]
            first = producers.get(value)
        if first is None or first.op_type != "Conv" or readers[value] != 1:
            continue
        own = {tensor.name for tensor in model.graph.initializer if readers[tensor.name] == 1}
        if own.issuperset([*first.input[1:], second.input[1]]):
            yield first, second
