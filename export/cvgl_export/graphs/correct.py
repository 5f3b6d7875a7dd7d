"""Biases that take up the mean error of quantisation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, numpy_helper

from .observe import observed
from .read import attribute

__all__ = ["correct_means"]


def correct_means(model: ModelProto, quantised: ModelProto, images: list[NDArray[np.float32]]) -> None:
    """Take out of the biases of quantised convolutions what quantisation adds to their output on average.

    Images' borders, where convolutions read zeros, are not told apart.
    """
    exact = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors = {tensor.name: tensor for tensor in quantised.graph.initializer}
    producers = {output: node for node in quantised.graph.node for output in node.output}
    before = {node.name: node for node in model.graph.node}
    layers = [
        node
        for node in quantised.graph.node
        if node.op_type == "Conv" and node.input[1] in producers and node.name in before
    ]
    steps = {
        before[node.name].input[0]: float(numpy_helper.to_array(tensors[producers[node.input[0]].input[1]]))
        for node in layers
    }
    sums: dict[str, NDArray[np.float64]] = {}
    count = len(images)
    for value, seen in observed(model, list(steps), images):
        rounded = np.clip(np.round(seen / steps[value]), -128, 127) * steps[value]
        both = np.stack([part.mean(axis=(0, 2, 3), dtype=np.float64) for part in (seen, rounded)])
        sums[value] = sums.get(value, 0.0) + both / count
    for node in layers:
        source = before[node.name]
        scaling = producers[node.input[1]]
        whole = numpy_helper.to_array(tensors[scaling.input[0]]).astype(np.float64)
        stored = whole * numpy_helper.to_array(tensors[scaling.input[1]]).reshape(-1, 1, 1, 1)
        wanted = numpy_helper.to_array(exact[source.input[1]]).astype(np.float64)
        outputs, inputs = wanted.shape[:2]
        # Which input channels each output channel reads.
        start = np.arange(outputs) // (outputs // attribute(node, "group", 1)) * inputs
        read = sums[source.input[0]][:, start[:, None] + np.arange(inputs)]
        error = (stored.sum((2, 3)) * read[1] - wanted.sum((2, 3)) * read[0]).sum(1)
        if len(node.input) > 2:
            error = error - numpy_helper.to_array(tensors[node.input[2]])
        # A tensor of its own: another layer may share the bias.
        name = f"{node.name}/bias"
        quantised.graph.initializer.append(numpy_helper.from_array((-error).astype(np.float32), name))
        del node.input[2:]
        node.input.append(name)
    used = {value for node in quantised.graph.node for value in node.input}
    unused = [tensor for tensor in quantised.graph.initializer if tensor.name not in used]
    for tensor in unused:
        quantised.graph.initializer.remove(tensor)
