"""How large the values inside a graph become on some images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from cvgl.errors import ModelError

from .edit import copy_model, name_uniquely
from .read import Graph, inferred

__all__ = ["ranges"]


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

    model = copy_model(model)
    name_uniquely(model.graph)
    model = inferred(model)
    graph = Graph(model)
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
