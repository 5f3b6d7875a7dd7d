"""INT8 as TensorRT takes it: explicit quantisers around the layers, symmetric, calibrated on images of the gallery."""

from __future__ import annotations

import io
import logging
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession, SessionOptions
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from cvgl.errors import ModelError

from .precision import check_types, half_graph, plain_graph

__all__ = ["CalibrationKind", "int8_graph", "quantisable"]

CalibrationKind = Literal["minmax", "entropy", "percentile"]

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_LAYERS = ("Conv", "Gemm", "MatMul")
_MARK = "onnx.quant.pre_process"


def int8_graph(
    model: ModelProto,
    batches: Iterable[NDArray[np.float32]],
    *,
    keep: Collection[str] = (),
    method: CalibrationKind = "entropy",
    rest: Literal["fp32", "fp16"] = "fp32",
) -> ModelProto:
    """An FP32 graph as one whose layers take INT8, with explicit QuantizeLinear and DequantizeLinear nodes.

    Convolutions, Gemm and MatMul with weights are quantised, but for the first and the last layers and those that work
    on one vector an image (see `quantisable`); norms, softmax, pooling and everything else are not. All is symmetric
    with zero points 0, the only scheme that TensorRT has: weights per output channel, stored as INT8 in -127..127
    before a DequantizeLinear; activations per tensor, on the way into a layer only, so that sums of branches stay in
    high precision. Biases stay in floating point: TensorRT refuses INT32 ones. The same batches give the same graph.

    Before, channels between two convolutions are brought to like ranges; after, the biases take up the mean error that
    the rounding of a convolution's weights and input makes (Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", but with ranges and means as the images have them). On a small VGG-16 the two
    more than halve the error of the descriptors.

    Args:
        model: FP32, as for `half_graph`; its nodes keep their names.
        batches: (B, 3, H, W) normalised images, some hundreds in all, of the gallery's own tiles and frames by
            preference; all are held in memory, the network's activations of one batch at a time.
        keep: names of nodes that are not quantised.
        method: how an activation's range follows from what was seen: "minmax", all of it; "entropy", what keeps the
            most information (Migacz 2017); "percentile", all but the outermost 0.001 %.
        rest: what is not quantised: "fp32", or "fp16" by `half_graph`, which raises the opset to 19.

    Raises:
        ModelError: no images, images of another shape, a name in `keep` that is not there, nothing to quantise, an
            activation that is 0 throughout the images, or as `half_graph`.
    """
    if method not in _METHODS:
        raise ModelError("no such method", field="method", found=method, expected=" or ".join(_METHODS))
    if rest not in ("fp32", "fp16"):
        raise ModelError("no such precision", field="rest", found=rest, expected="fp32 or fp16")
    model = plain_graph(model)
    images = _checked(model, batches)
    known = {node.name for node in model.graph.node}
    for name in keep:
        if name not in known:
            raise ModelError("no such node to leave as it is", field="keep", found=name)
    chosen = [name for name in quantisable(model) if name not in keep]
    if not chosen:
        raise ModelError("nothing to quantise", field="model", expected="layers between the first and the last")
    _equalise(model, chosen, images)
    # Otherwise ONNX Runtime asks in its log for an optimisation that merges nodes and loses their names.
    # It gets a copy, since it moves the weights of what it is given to a temporary file.
    handed = _copy(model)
    handed.metadata_props.append(onnx.StringStringEntryProto(key=_MARK, value="onnxruntime.quant"))
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = Path(folder) / "int8.onnx"
        quantize_static(
            handed,
            file,
            _Reader(model.graph.input[0].name, images),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_LAYERS),
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=_METHODS[method],
            calibration_providers=["CPUExecutionProvider"],
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "CalibTensorRangeSymmetric": True,
                # One batch's activations in memory, not all batches'.
                "CalibStridedMinMax": 1,
                "MatMulConstBOnly": True,
                "OpTypesToExcludeOutputQuantization": list(_LAYERS),
                "QuantizeBias": False,
            },
        )
        quantised = onnx.load(str(file))
    _finish(quantised)
    _correct_means(model, quantised, images)
    if rest == "fp16":
        return half_graph(quantised)
    check_types(quantised)
    return quantised


def quantisable(model: ModelProto) -> list[str]:
    """Names of the layers that `int8_graph` quantises if it may: with weights, over many places of an image or tokens,
    and neither first nor last.

    A layer is first if no layer is before it on any way from the input, last if none is after it. What works on one
    vector an image, as the heads after a global pooling do, is left as it is: its error goes straight into the
    descriptor (of VGG-16's INT8 error more than half came from two such layers), and its work is nothing beside the
    rest.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    ranks = _ranks(model)
    nodes = list(model.graph.node)
    after: set[str] = set()
    inner = set()
    for node in nodes:
        follows = any(value in after for value in node.input)
        if follows and _is_layer(node, weights) and ranks.get(node.input[0], 0) > 2:
            inner.add(node.name)
        if follows or _is_layer(node, weights):
            after.update(node.output)
    before: set[str] = set()
    found = []
    for node in reversed(nodes):
        leads = any(value in before for value in node.output)
        if leads and node.name in inner:
            found.append(node.name)
        if leads or _is_layer(node, weights):
            before.update(value for value in node.input if value)
    return found[::-1]


def _ranks(model: ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*graph.value_info, *graph.input)
        if value.type.tensor_type.HasField("shape")
    }


def _is_layer(node: NodeProto, weights: Collection[str]) -> bool:
    return node.op_type in _LAYERS and node.input[1] in weights


def _checked(model: ModelProto, batches: Iterable[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    if len(model.graph.input) != 1:
        raise ModelError("not a graph of one input", field="input", found=len(model.graph.input))
    wanted = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim]
    images = [np.ascontiguousarray(batch, np.float32) for batch in batches]
    if not images:
        raise ModelError("no images to calibrate with", field="batches")
    for batch in images:
        # A free side has the value 0.
        fits = batch.ndim == len(wanted) and all(w in (0, have) for w, have in zip(wanted, batch.shape, strict=True))
        if not fits or not len(batch):
            expected = f"({', '.join(str(side or 'any') for side in wanted)})"
            raise ModelError("wrong images", field="batches", found=batch.shape, expected=expected)
    return images


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches as ONNX Runtime asks for them, stretch by stretch."""

    def __init__(self, name: str, batches: list[NDArray[np.float32]]) -> None:
        self.name = name
        self.batches = batches
        self.set_range(0, len(batches))

    def __len__(self) -> int:
        return len(self.batches)

    def set_range(self, start_index: int, end_index: int) -> None:
        self.waiting: Iterator[NDArray[np.float32]] = iter(self.batches[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self.waiting, None)
        return None if batch is None else {self.name: batch}


def _finish(model: ModelProto) -> None:
    """Check what TensorRT needs of the quantisers, on the graph that came out, and take the library's marks off."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        zero = numpy_helper.to_array(weights[node.input[2]])
        if weights[node.input[2]].data_type != TensorProto.INT8 or zero.any():
            raise ModelError("a quantiser that is not symmetric INT8", field=node.name)
        scale = numpy_helper.to_array(weights[node.input[1]])
        if not (np.isfinite(scale).all() and (scale > 0).all()):
            raise ModelError("a quantiser without a range", field=node.name, found=float(np.min(scale)))
    others = [
        onnx.StringStringEntryProto(key=e.key, value=e.value)
        for e in model.metadata_props
        if e.key not in (_MARK, "onnx.infer")
    ]
    del model.metadata_props[:]
    model.metadata_props.extend(others)


def _equalise(model: ModelProto, chosen: Collection[str], images: list[NDArray[np.float32]]) -> None:
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
    for value, seen in _observed(model, [second.input[0] for _, second in pairs], images):
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
        if second.op_type != "Conv" or second.name not in chosen or _groups(second) != 1:
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


def _correct_means(model: ModelProto, quantised: ModelProto, images: list[NDArray[np.float32]]) -> None:
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
    for value, seen in _observed(model, list(steps), images):
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
        start = np.arange(outputs) // (outputs // _groups(node)) * inputs
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


def _observed(
    model: ModelProto, values: list[str], images: list[NDArray[np.float32]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """What (B, C, H, W) values are on each batch."""
    if not values:
        return
    copy = _copy(model)
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_tensor_value_info(value, TensorProto.FLOAT, None) for value in values)
    options = SessionOptions()
    options.log_severity_level = 3
    session = InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = model.graph.input[0].name
    for batch in images:
        yield from zip(values, session.run(values, {entry: batch}), strict=True)


def _copy(model: ModelProto) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    return copy


def _groups(node: NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the library reports of its progress, which it prints."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
