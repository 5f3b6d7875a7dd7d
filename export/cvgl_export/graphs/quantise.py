"""INT8 as TensorRT takes it: explicit quantisers around the layers, symmetric, calibrated on images of the gallery."""

from __future__ import annotations

import io
import logging
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnx.shape_inference
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static

from cvgl.errors import ModelError

from .correct import correct_means
from .edit import copy_model, set_nodes
from .equalise import equalise
from .half import half_graph
from .operators import QUANTISERS
from .plain import plain_graph
from .types import check_types

__all__ = ["CalibrationKind", "Quantised", "int8_graph", "quantisable", "quantised", "unquantisable"]

CalibrationKind = Literal["minmax", "entropy", "percentile"]

_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}
_LAYERS = ("Conv", "Gemm", "MatMul")
_MARK = "onnx.quant.pre_process"


_Read = tuple[tuple[str, ...], tuple[TensorProto, ...]]
"""Names of what a node reads, and the weights among it."""


@dataclass(frozen=True, eq=False)
class Quantised:
    """A graph of which each layer can be INT8 or not, from one calibration.

    Args:
        model: FP32 with all of `layers` in INT8.
        layers: names of those that can be, in the graph's order.
        exact: what each of them reads where it is not quantised: names of its inputs, and the weights among them.
    """

    model: ModelProto
    layers: tuple[str, ...]
    exact: Mapping[str, _Read]

    def graph(self, layers: Collection[str] | None = None, *, rest: Literal["fp32", "fp16"] = "fp32") -> ModelProto:
        """The graph with some layers in INT8.

        Args:
            layers: their names; None for all.
            rest: what everything else is: "fp32", or "fp16" by `half_graph`, which raises the opset to 19.

        Raises:
            ModelError: none of them, a name that is not in `layers`, or as `half_graph`.
        """
        wanted = frozenset(self.layers if layers is None else layers)
        if not wanted:
            raise ModelError("nothing to quantise", field="layers", expected="one layer or more")
        if not wanted.issubset(self.layers):
            raise ModelError("not layers that can be INT8", field="layers", found=sorted(wanted - set(self.layers)))
        if rest not in ("fp32", "fp16"):
            raise ModelError("no such precision", field="rest", found=rest, expected="fp32 or fp16")
        model = copy_model(self.model)
        _restore(model, {name: exact for name, exact in self.exact.items() if name not in wanted})
        if rest == "fp16":
            return half_graph(model)
        check_types(model)
        return model


def int8_graph(
    model: ModelProto,
    batches: Iterable[NDArray[np.float32]],
    *,
    keep: Collection[str] = (),
    method: CalibrationKind = "entropy",
    rest: Literal["fp32", "fp16"] = "fp32",
) -> ModelProto:
    """A graph with every layer that may be INT8 in INT8: `quantised`, whose arguments these are, and its `graph`."""
    return quantised(model, batches, keep=keep, method=method).graph(rest=rest)


def quantised(
    model: ModelProto,
    batches: Iterable[NDArray[np.float32]],
    *,
    keep: Collection[str] = (),
    method: CalibrationKind = "entropy",
) -> Quantised:
    """An FP32 graph as one whose layers can take INT8, with explicit QuantizeLinear and DequantizeLinear nodes.

    Convolutions, Gemm and MatMul with weights are quantised, but for the first and the last layers and those that work
    on one vector an image (see `unquantisable`); norms, softmax, pooling and everything else are not. All is symmetric
    with zero points 0, the only scheme that TensorRT has: weights per output channel, stored as INT8 in -127..127
    before a DequantizeLinear; activations per tensor, on the way into a layer only, so that sums of branches stay in
    high precision. Biases stay in floating point: TensorRT refuses INT32 ones. The same batches give the same graph.

    Before, channels between two convolutions are brought to like ranges; after, the biases take up the mean error that
    the rounding of a convolution's weights and input makes (Nagel et al. 2019, "Data-Free Quantization Through Weight
    Equalization and Bias Correction", but with ranges and means as the images have them). On a small VGG-16 the two
    more than halve the error of the descriptors. Neither depends on which other layers are quantised.

    Args:
        model: FP32, as for `half_graph`; its nodes keep their names.
        batches: (B, 3, H, W) normalised images, some hundreds in all, of the gallery's own tiles and frames by
            preference; all are held in memory, the network's activations of one batch at a time.
        keep: names of nodes that are not quantised.
        method: how an activation's range follows from what was seen: "minmax", all of it; "entropy", what keeps the
            most information (Migacz 2017); "percentile", all but the outermost 0.001 %.

    Raises:
        ModelError: no images, images of another shape, a name in `keep` that is not there, nothing to quantise, or an
            activation that is 0 throughout the images.
    """
    if method not in _METHODS:
        raise ModelError("no such method", field="method", found=method, expected=" or ".join(_METHODS))
    model = plain_graph(model)
    images = _checked(model, batches)
    known = {node.name for node in model.graph.node}
    for name in keep:
        if name not in known:
            raise ModelError("no such node to leave as it is", field="keep", found=name)
    chosen = [name for name in quantisable(model) if name not in keep]
    if not chosen:
        raise ModelError("nothing to quantise", field="model", expected="layers between the first and the last")
    equalise(model, chosen, images)
    result = _by_runtime(model, chosen, images, method)
    correct_means(model, result, images)
    return Quantised(result, tuple(chosen), _exact(model, chosen))


def quantisable(model: ModelProto) -> list[str]:
    """Names of the layers that `quantised` takes if it may, in the graph's order; `unquantisable` has the others."""
    left = unquantisable(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    return [node.name for node in model.graph.node if _is_layer(node, weights) and node.name not in left]


def unquantisable(model: ModelProto) -> dict[str, str]:
    """Names of layers with weights that `quantised` leaves as they are, and why.

    A layer is first if no layer is before it on any way from the input, last if none is after it. What works on one
    vector an image, as the heads after a global pooling do, is left as it is: its error goes straight into the
    descriptor (of VGG-16's INT8 error more than half came from two such layers), and its work is nothing beside the
    rest.
    """
    weights = {tensor.name for tensor in model.graph.initializer}
    ranks = _ranks(model)
    after: set[str] = set()
    found: dict[str, str] = {}
    for node in model.graph.node:
        follows = any(value in after for value in node.input)
        if _is_layer(node, weights):
            if not follows:
                found[node.name] = "a first layer"
            elif ranks.get(node.input[0], 0) <= 2:
                found[node.name] = "works on one vector an image"
        if follows or _is_layer(node, weights):
            after.update(node.output)
    before: set[str] = set()
    for node in reversed(model.graph.node):
        leads = any(value in before for value in node.output)
        if _is_layer(node, weights) and not leads:
            found.setdefault(node.name, "a last layer")
        if leads or _is_layer(node, weights):
            before.update(value for value in node.input if value)
    return found


def _by_runtime(
    model: ModelProto, chosen: list[str], images: list[NDArray[np.float32]], method: CalibrationKind
) -> ModelProto:
    """The graph with ONNX Runtime's quantisers around the chosen layers."""
    # Otherwise ONNX Runtime asks in its log for an optimisation that merges nodes and loses their names.
    # It gets a copy, since it moves the weights of what it is given to a temporary file.
    handed = copy_model(model)
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
        result = onnx.load(str(file))
    # It has every reader of a quantised value read it rounded, the other branch of a residual block too.
    exact = _exact(model, [node.name for node in model.graph.node if node.name not in chosen])
    _restore(result, exact)
    _finish(result)
    return result


def _exact(model: ModelProto, layers: Collection[str]) -> dict[str, _Read]:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return {
        node.name: (tuple(node.input), tuple(weights[value] for value in node.input if value in weights))
        for node in model.graph.node
        if node.name in layers
    }


def _restore(model: ModelProto, exact: Mapping[str, _Read]) -> None:
    """Let nodes read what they read before they were quantised, and take out what nothing reads any more."""
    have = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.name in exact:
            inputs, weights = exact[node.name]
            del node.input[:]
            node.input.extend(inputs)
            model.graph.initializer.extend(tensor for tensor in weights if tensor.name not in have)
            have.update(tensor.name for tensor in weights)
    used = {output.name for output in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if node.op_type not in QUANTISERS or node.output[0] in used:
            nodes.append(node)
            used.update(node.input)
    set_nodes(model.graph, nodes[::-1])
    unused = [tensor for tensor in model.graph.initializer if tensor.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)


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
