"""What a graph computes on the way, on batches of images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper
from onnxruntime import InferenceSession, SessionOptions

from .edit import copy_model

__all__ = ["observed"]


def observed(
    model: ModelProto, values: list[str], images: list[NDArray[np.float32]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What (B, C, H, W) values are on each batch."""
    if not values:
        return
    copy = copy_model(model)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values)
    options = SessionOptions()
    options.log_severity_level = 3
    session = InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = model.graph.input[0].name
    for batch in images:
        yield from zip(values, session.run(values, {entry: batch}), strict=True)
