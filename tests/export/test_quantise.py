"""INT8 graphs are what TensorRT takes, say so themselves, and rank as the FP32 ones do."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto, TensorProto, helper, numpy_helper
from torch import nn

from cvgl.errors import ModelError
from cvgl_export.graphs.emulate import emulate
from cvgl_export.graphs.half import half_weights
from cvgl_export.graphs.quantise import int8_graph, quantisable
from cvgl_export.graphs.types import describe_types, fp32_nodes

SIDE = 24


class Blocks(nn.Module):
    """A small network with what matters: a stem, a residual block, pooling, a token layer, a head and unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, 2, 1)
        self.first = nn.Conv2d(12, 12, 3, padding=1)
        self.second = nn.Conv2d(12, 12, 3, padding=1, groups=3)
        self.wide = nn.Conv2d(12, 24, 3, 2, 1)
        self.deep = nn.Conv2d(24, 24, 3, padding=1)
        self.norm = nn.LayerNorm(24)
        self.mix = nn.Linear(24, 24, bias=False)
        self.head = nn.Linear(24, 24)
        self.out = nn.Linear(24, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.stem(x))
        x = F.relu(x + self.second(F.relu(self.first(x))))
        x = F.relu(self.deep(F.relu(self.wide(x)))).flatten(2).transpose(1, 2)
        x = self.mix(self.norm(x))
        x = (x * x.softmax(1)).sum(1)
        return F.normalize(self.out(F.relu(self.head(x))), dim=1)


def images(count: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.normal(size=(count, 3, 4, 4)).repeat(6, 2).repeat(6, 3)
    return (coarse + 0.3 * rng.normal(size=(count, 3, SIDE, SIDE))).astype(np.float32)


@pytest.fixture(scope="module")
def model() -> ModelProto:
    torch.manual_seed(0)
    program = torch.onnx.export(
        Blocks().eval(),
        (torch.zeros(2, 3, SIDE, SIDE),),
        dynamo=True,
        input_names=["images"],
        output_names=["descriptors"],
        dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
        opset_version=18,
        verbose=False,
    )
    assert program is not None
    return program.model_proto


@pytest.fixture(scope="module")
def batches() -> list[np.ndarray]:
    return [images(8, seed) for seed in range(6)]


@pytest.fixture(scope="module")
def quantised(model: ModelProto, batches: list[np.ndarray]) -> ModelProto:
    return int8_graph(model, batches)


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def layers(model: ModelProto) -> dict[str, str]:
    return {n.name: n.op_type for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")}


def test_layers_between_the_first_and_the_last_over_many_places_are_quantised(model: ModelProto) -> None:
    operators = [layers(model)[name] for name in quantisable(model)]
    # Neither the stem nor the output, and not the head, which works on one vector an image.
    assert operators == ["Conv", "Conv", "Conv", "Conv", "MatMul"]


def test_quantisers_are_what_tensorrt_takes(quantised: ModelProto) -> None:
    weights = {t.name: t for t in quantised.graph.initializer}
    producers = {output: node for node in quantised.graph.node for output in node.output}
    seen = 0
    for node in quantised.graph.node:
        assert node.op_type != "QLinearConv" and node.domain == ""
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = weights[node.input[2]]
            assert zero.data_type == TensorProto.INT8 and not numpy_helper.to_array(zero).any()
            assert numpy_helper.to_array(weights[node.input[1]]).min() > 0
        if node.op_type == "DequantizeLinear" and node.input[0] in weights:
            stored = weights[node.input[0]]
            values = numpy_helper.to_array(stored)
            assert stored.data_type == TensorProto.INT8 and np.abs(values.astype(int)).max() == 127
            scales = numpy_helper.to_array(weights[node.input[1]])
            axis = next(a.i for a in node.attribute if a.name == "axis")
            assert scales.shape == (values.shape[axis],)
        if node.op_type in ("Conv", "MatMul") and producers.get(node.input[1], node).op_type == "DequantizeLinear":
            seen += 1
            assert producers[producers[node.input[0]].input[0]].op_type == "QuantizeLinear"
            # Biases stay in floating point.
            assert all(weights[bias].data_type == TensorProto.FLOAT for bias in node.input[2:])
    assert seen == 5
    assert not any(t.data_type == TensorProto.INT32 for t in quantised.graph.initializer)


def test_only_layers_read_what_was_rounded(model: ModelProto, quantised: ModelProto) -> None:
    """Of a residual block's two branches the one past the layers stays exact."""
    rounded = {o for node in quantised.graph.node if node.op_type == "DequantizeLinear" for o in node.output}
    readers = {node.op_type for node in quantised.graph.node if rounded & set(node.input)}
    assert readers == {"Conv", "MatMul"}
    before = {node.name: list(node.input) for node in model.graph.node if node.op_type == "Add"}
    assert before and before.items() <= {node.name: list(node.input) for node in quantised.graph.node}.items()


def test_it_says_what_runs_in_int8(model: ModelProto, quantised: ModelProto) -> None:
    types = describe_types(quantised)
    assert types["Conv"] == {"int8": 4, "fp32": 1} and types["MatMul"] == {"int8": 1} and types["Gemm"] == {"fp32": 2}
    assert layers(quantised) == layers(model)


def test_descriptors_stay_close_and_rank_alike(
    model: ModelProto, quantised: ModelProto, batches: list[np.ndarray]
) -> None:
    assert [node.name for node in quantised.graph.node if node.op_type == "Conv" and len(node.input) < 3] == []
    places = images(60, 50)
    seen = places + 0.15 * images(60, 51)
    exact, found = run(model, places), run(quantised, places)
    assert float(np.median((exact * found).sum(1))) > 0.999
    top = (run(model, seen) @ exact.T).argmax(1)
    assert ((run(quantised, seen) @ found.T).argmax(1) == top).mean() >= 0.95


def test_a_weak_channel_between_two_convolutions_is_not_lost() -> None:
    """One of two channels is a thousand times weaker, and all that the output sees."""
    body = """{
      a = Conv<pads=[1,1,1,1]>(x, stem)
      b = Relu(a)
      c = Conv(b, second)
      d = Relu(c)
      e = Conv(d, third)
      f = GlobalAveragePool(e)
      y = Flatten(f)
    }"""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 18]> g (float[N,3,24,24] x) => (float[N,4] y) ' + body
    )
    rng = np.random.default_rng(0)
    stem, second = rng.normal(size=(2, 3, 3, 3)), rng.normal(size=(4, 2, 1, 1))
    stem[0] *= 1000
    second[:, 0] *= 1e-6
    weights = {"stem": stem, "second": second, "third": rng.normal(size=(4, 4, 1, 1))}
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    x = images(16, 70)
    found = run(int8_graph(model, [images(16, 71)]), x)
    assert np.abs(found - run(model, x)).max() < 0.05 * np.abs(run(model, x)).max()


def test_the_rest_may_be_half(model: ModelProto, quantised: ModelProto, batches: list[np.ndarray]) -> None:
    half = int8_graph(model, batches, rest="fp16")
    types = describe_types(half)
    assert types["Conv"] == {"int8": 4, "fp16": 1} and types["Gemm"] == {"fp16": 2}
    assert {op for _, op, _ in fp32_nodes(half)} == {
        "LayerNormalization", "Softmax", "ReduceSum", "ReduceL2", "Clip", "Div",
    }  # fmt: skip
    x = images(16, 60)
    assert (run(quantised, x) * run(emulate(half), x)).sum(1).min() > 0.999
    assert (run(quantised, x) * run(half, x)).sum(1).min() > 0.999


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_every_way_of_calibrating_is_deterministic(model: ModelProto, batches: list[np.ndarray], method: Any) -> None:
    first = int8_graph(model, batches[:3], method=method)
    assert first.SerializeToString(deterministic=True) == int8_graph(
        model, iter(batches[:3]), method=method
    ).SerializeToString(deterministic=True)


def test_a_bundle_whose_weights_are_stored_in_half_is_quantised_too(
    model: ModelProto, batches: list[np.ndarray]
) -> None:
    assert describe_types(int8_graph(half_weights(model), batches[:1]))["Conv"] == {"int8": 4, "fp32": 1}


def test_what_is_kept_is_not_quantised(model: ModelProto, batches: list[np.ndarray]) -> None:
    names = quantisable(model)
    before = model.SerializeToString()
    types = describe_types(int8_graph(model, batches[:1], keep=names[:4]))
    assert types["Conv"] == {"fp32": 5} and types["MatMul"] == {"int8": 1}
    assert model.SerializeToString() == before
    with pytest.raises(ModelError, match="nothing to quantise"):
        int8_graph(model, batches[:1], keep=names)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"keep": ["elsewhere"]}, "keep: no such node.*elsewhere"),
        ({"method": "mean"}, "method: no such method.*minmax or entropy or percentile"),
        ({"rest": "fp8"}, "rest: no such precision"),
        ({"batches": []}, "batches: no images"),
        ({"batches": [np.zeros((2, 3, 8, 8), np.float32)]}, r"batches: wrong images .*\(any, 3, 24, 24\)"),
        ({"batches": [np.zeros((0, 3, SIDE, SIDE), np.float32)]}, "batches: wrong images"),
    ],
)
def test_what_cannot_be_is_refused_by_name(model: ModelProto, changes: dict[str, Any], words: str) -> None:
    settings = {"batches": [images(2, 0)], **changes}
    with pytest.raises(ModelError, match=words):
        int8_graph(model, **settings)


def test_a_graph_of_one_layer_has_nothing_to_quantise() -> None:
    text = '<ir_version: 8, opset_import: ["": 18]> g (float[N,3,4,4] x) => (float[N,2,4,4] y) { y = Conv(x, w) }'
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w"))
    assert quantisable(model) == []
    two = ModelProto()
    two.CopyFrom(model)
    two.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1]))
    for graph, words in ((model, "nothing to quantise"), (two, "not a graph of one input")):
        with pytest.raises(ModelError, match=words):
            int8_graph(graph, [np.zeros((1, 3, 4, 4), np.float32)])
