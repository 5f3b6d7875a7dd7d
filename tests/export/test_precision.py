"""Which nodes run in half precision is decided by the graph, said by its types, and seen in its descriptors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from cvgl.errors import ModelError
from cvgl_export.graphs.edit import name_nodes
from cvgl_export.graphs.emulate import emulate
from cvgl_export.graphs.floats import HALF_MAX
from cvgl_export.graphs.half import half_graph, half_weights, underflowed
from cvgl_export.graphs.ranges import ranges
from cvgl_export.graphs.types import check_types, describe_types, fp32_nodes
from cvgl_export.onnx import write_onnx
from cvgl_train.models.base import CrossViewModel
from cvgl_train.registry import METHODS

RNG = np.random.default_rng(0)
QUICK = ("cvgl-nano",)


def network(body: str, shape: str = "N,4,8,8", opset: int = 18, **weights: Any) -> ModelProto:
    """A graph from ONNX's text form, `x` to `y`, each node named after its output."""
    header = f'<ir_version: 8, opset_import: ["": {opset}]> g (float[{shape}] x) => (float y)'
    text = "{" + "\n".join(line.strip() for line in body.strip().splitlines()) + "}"
    model = onnx.parser.parse_model(header + text)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value, None if np.asarray(value).dtype == np.int64 else np.float32), name)
        for name, value in weights.items()
    )
    for node in model.graph.node:
        node.name = node.output[0]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    model.graph.output[0].CopyFrom(inferred.graph.output[0])
    return model


def session(model: ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(model: ModelProto, x: np.ndarray) -> np.ndarray:
    opened = session(model)
    return opened.run(None, {opened.get_inputs()[0].name: x})[0]


def types_of(model: ModelProto) -> dict[str, str]:
    """The type of the first computed or constant floating-point input of each node, read with ONNX's own inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {t.name: t.data_type for t in inferred.graph.initializer}
    for value in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    words = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16", TensorProto.BFLOAT16: "bf16"}
    found = {}
    for node in inferred.graph.node:
        floats = [words[types[v]] for v in node.input if types.get(v) in words]
        if floats:
            found[node.name] = floats[0]
    return found


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.reshape(len(a), -1).astype(np.float64), b.reshape(len(b), -1).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def images(count: int, height: int, width: int) -> np.ndarray:
    """Coarse and fine structure, normalised, each image another."""
    rng = np.random.default_rng(1)
    coarse = rng.normal(size=(count, 3, height // 16 + 1, width // 16 + 1)).repeat(16, 2).repeat(16, 3)
    fine = rng.normal(size=(count, 3, height // 4 + 1, width // 4 + 1)).repeat(4, 2).repeat(4, 3)
    return (coarse[..., :height, :width] + 0.4 * fine[..., :height, :width]).astype(np.float32)


W3 = RNG.normal(size=(4, 4, 3, 3)) * 0.2
W1 = RNG.normal(size=(4, 4, 1, 1)) * 0.5
LINEAR = RNG.normal(size=(8, 8)) * 0.3
CONV = "a = Conv<pads=[1,1,1,1]>(x, w)\n"
ATTENTION = "q = MatMul(x, wq)\nk = MatMul(x, wk)\nkt = Transpose<perm=[0,1,3,2]>(k)\n"

CASES: dict[str, tuple[str, dict[str, Any], dict[str, str]]] = {
    "convolutions and activations": (
        CONV + "b = Relu(a)\nc = Add(b, a)\nd = MaxPool<kernel_shape=[2,2]>(c)\ny = Sigmoid(d)",
        {"w": W3},
        {"a": "fp16", "b": "fp16", "c": "fp16", "d": "fp16", "y": "fp16"},
    ),
    "layer normalisation": (
        CONV + "b = LayerNormalization<axis=-1>(a, g, s)\ny = MatMul(b, m)",
        {"w": W3, "g": np.ones(8), "s": np.zeros(8), "m": LINEAR},
        {"b": "fp32", "y": "fp16"},
    ),
    "a batch normalisation that was not folded": (
        CONV + "b = BatchNormalization(a, g, s, s, g)\ny = Relu(b)",
        {"w": W3, "g": np.ones(4), "s": np.zeros(4)},
        {"a": "fp16", "b": "fp32"},
    ),
    "softmax": (CONV + "b = Softmax<axis=-1>(a)\ny = MatMul(b, m)", {"w": W3, "m": LINEAR}, {"b": "fp32", "y": "fp16"}),
    "attention, scaled before": (
        ATTENTION + "qs = Mul(q, r)\ns = MatMul(qs, kt)\np = Softmax<axis=-1>(s)\ny = MatMul(p, x)",
        {"wq": LINEAR, "wk": LINEAR, "r": 0.35},
        {"q": "fp16", "qs": "fp16", "s": "fp16", "p": "fp32", "y": "fp16"},
    ),
    "attention, scaled after": (
        ATTENTION + "s = MatMul(q, kt)\nt = Mul(s, r)\np = Softmax<axis=-1>(t)\ny = MatMul(p, x)",
        {"wq": LINEAR, "wk": LINEAR, "r": 0.35},
        {"q": "fp16", "s": "fp32", "t": "fp32", "p": "fp32", "y": "fp16"},
    ),
    "attention, not scaled, masked": (
        ATTENTION + "s = MatMul(q, kt)\nt = Add(s, b)\np = Softmax<axis=-1>(t)\ny = MatMul(p, x)",
        {"wq": LINEAR, "wk": LINEAR, "b": RNG.normal(size=(8, 8))},
        {"s": "fp32", "t": "fp32", "p": "fp32", "y": "fp16"},
    ),
    "sums weighted over another axis (NetVLAD)": (
        CONV + "p = Softmax<axis=1>(a)\ns = MatMul(p, a)\nt = Sub(s, c)\ny = MatMul(t, m)",
        {"w": W3, "c": RNG.normal(size=(8, 8)), "m": LINEAR},
        {"a": "fp16", "p": "fp32", "s": "fp32", "t": "fp32", "y": "fp16"},
    ),
    "squeeze and excitation": (
        CONV + "b = GlobalAveragePool(a)\nc = Conv(b, v)\nd = Sigmoid(c)\ny = Mul(a, d)",
        {"w": W3, "v": W1},
        {"b": "fp32", "c": "fp16", "d": "fp16", "y": "fp16"},
    ),
    "unit length, and what follows": (
        CONV + "f = Flatten(a)\nn = ReduceL2<keepdims=1>(f, axes)\nc = Clip(n, e)\nd = Div(f, c)\ny = Mul(d, h)",
        {"w": W3, "axes": np.array([1]), "e": 1e-12, "h": 0.5},
        {"a": "fp16", "n": "fp32", "c": "fp32", "d": "fp32", "y": "fp32"},
    ),
    "a norm in pieces": (
        CONV
        + "m = ReduceMean<keepdims=1>(a, axes)\nc = Sub(a, m)\nq = Mul(c, c)\nv = ReduceMean<keepdims=1>(q, axes)\n"
        "r = Add(v, e)\nd = Sqrt(r)\nn = Div(c, d)\nb = Mul(n, g)\ny = Conv(b, u)",
        {"w": W3, "axes": np.array([1]), "e": 1e-6, "g": np.ones((4, 1, 1)), "u": W1},
        {"m": "fp32", "c": "fp32", "q": "fp32", "v": "fp32", "r": "fp32", "d": "fp32", "n": "fp32", "b": "fp32",
         "y": "fp16"},
    ),
    "the image before the first layer": (
        "a = Abs(x)\nb = Sub(a, c)\ny = Conv(b, u)", {"c": 0.5, "u": W1}, {"a": "fp32", "b": "fp32", "y": "fp16"},
    ),
    "GELU of the error function": (
        "a = MatMul(x, m)\nb = Div(a, r)\nc = Erf(b)\nd = Add(c, o)\ne = Mul(d, h)\nf = Mul(a, e)\ny = MatMul(f, m)",
        {"m": LINEAR, "r": 2**0.5, "o": 1.0, "h": 0.5},
        {"b": "fp16", "c": "fp16", "d": "fp16", "e": "fp16", "f": "fp16"},
    ),
    "scalars that half precision loses": (
        CONV + "b = Add(a, e)\nc = Relu(b)\nd = Min(c, l)\ny = Conv(d, u)",
        {"w": W3, "e": 1e-9, "l": 1e6, "u": W1},
        {"b": "fp32", "c": "fp32", "d": "fp32", "y": "fp16"},
    ),
    "resizing keeps its scales": (
        CONV + 'b = Resize<mode="linear">(a, , scales)\ny = Relu(b)',
        {"w": W3, "scales": [1.0, 1.0, 2.0, 2.0]},
        {"b": "fp16", "y": "fp16"},
    ),
    "moved values stay exact for FP32 readers": (
        CONV
        + "n = LayerNormalization<axis=-1>(a, g)\nt = Transpose<perm=[0,1,3,2]>(n)\nb = MatMul(t, m)\n"
        "c = ReduceMean<keepdims=1>(t, axes)\ny = Add(b, c)",
        {"w": W3, "g": np.ones(8), "m": LINEAR, "axes": np.array([1])},
        {"n": "fp32", "t": "fp32", "b": "fp16", "c": "fp32"},
    ),
    "operators not known to be safe": (
        CONV + "b = Softplus(a)\nc = Exp(b)\nd = LRN<size=3>(c)\ny = Conv(d, u)",
        {"w": W3, "u": W1},
        {"b": "fp32", "c": "fp32", "d": "fp32", "y": "fp16"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_nodes_run_in_the_type_that_is_safe_for_them(case: str) -> None:
    body, weights, expected = CASES[case]
    model = network(body, **weights)
    before = model.SerializeToString()
    half = half_graph(model)
    assert model.SerializeToString() == before
    found = types_of(half)
    assert {name: found[name] for name in expected} == expected
    x = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    for typed in (half, emulate(half)):
        assert cosines(run(model, x), run(typed, x)).min() > 0.99999


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["fp16", "bf16"])
def test_casts_are_few_and_read_once(case: str, kind: Any) -> None:
    body, weights, _ = CASES[case]
    half = half_graph(network(body, **weights), kind=kind)
    nodes = list(half.graph.node)
    assert len({node.name for node in nodes}) == len(nodes) and all(node.name for node in nodes)
    casts = {node.output[0]: node for node in nodes if node.op_type == "Cast"}
    read = {value for node in nodes for value in node.input} | {half.graph.output[0].name}
    assert set(casts) <= read
    assert not any(node.input[0] in casts for node in casts.values())
    targets = [(node.input[0], node.attribute[0].i) for node in casts.values()]
    assert len(set(targets)) == len(targets)
    for value in (*half.graph.input, *half.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT


@st.composite
def chains(draw: st.DrawFn) -> str:
    """Random networks of (N, 4, 8, 8) values, with branches."""
    values, lines = ["x"], []
    patterns = (
        "Conv<pads=[1,1,1,1]>({a}, w)", "Relu({a})", "Add({a}, {b})", "Sub({a}, {b})", "Sigmoid({a})", "Identity({a})",
        "Softmax<axis=1>({a})", "LayerNormalization<axis=-1>({a}, g)", "MatMul({a}, m)", "Mul({a}, c)",
        "Transpose<perm=[0,1,3,2]>({a})", "MatMul({a}, {b})", "Tanh({a})", "Mul({a}, g)",
        "AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>({a})", "Erf({a})", "Clip({a}, lo, hi)",
    )  # fmt: skip
    for number in range(draw(st.integers(1, 12))):
        pattern = draw(st.sampled_from(patterns))
        lines.append(f"v{number} = {pattern.format(a=draw(st.sampled_from(values)), b=draw(st.sampled_from(values)))}")
        values.append(f"v{number}")
    return "\n".join([*lines, f"y = LayerNormalization<axis=1>({values[-1]}, u)"])


@settings(max_examples=40, deadline=None)
@given(body=chains())
def test_any_network_is_typed_soundly_and_computes_the_same(body: str) -> None:
    weights = {"w": W3, "g": np.ones(8), "m": LINEAR, "c": 0.7, "lo": -2.0, "hi": 2.0, "u": np.ones((4, 8, 8))}
    model = network(body, **weights)
    half = half_graph(model)
    check_types(half)
    x = np.random.default_rng(3).normal(size=(2, 4, 8, 8)).astype(np.float32)
    found, expected = run(emulate(half), x), run(model, x)
    if expected.std() > 0.5:
        assert cosines(expected, found).min() > 0.995
    assert np.isfinite(found).all()


def test_a_weight_that_both_types_read_is_there_in_both() -> None:
    body = "a = MatMul(x, m)\nb = ReduceMean<keepdims=1>(a, axes)\nc = Add(b, m)\ny = Relu(c)"
    half = half_graph(network(body, m=LINEAR, axes=np.array([1])))
    stored = {t.name: t.data_type for t in half.graph.initializer}
    assert stored["m"] == TensorProto.FLOAT and stored["m/half"] == TensorProto.FLOAT16


def test_a_weight_beyond_the_range_is_named_and_what_becomes_zero_is_counted() -> None:
    big = LINEAR.copy()
    big[2, 3] = -1e5
    with pytest.raises(ModelError, match=r"too_big: a weight is beyond half precision .*100000.*65504 in fp16"):
        half_graph(network("y = MatMul(x, too_big)", too_big=big))
    half_graph(network("y = MatMul(x, too_big)", too_big=big), kind="bf16")
    tiny = LINEAR.copy()
    tiny[0, :3] = 1e-9
    tiny[0, 3] = 0
    assert underflowed(half_graph(network("y = MatMul(x, m)", m=tiny))) == 3
    assert underflowed(half_graph(network("y = MatMul(x, m)", m=tiny), kind="bf16")) == 0


def test_nodes_are_kept_by_name_and_said_to_be() -> None:
    model = network(CONV + "b = Relu(a)\ny = Conv(b, u)", w=W3, u=W1)
    assert fp32_nodes(half_graph(model)) == []
    kept = half_graph(model, keep=["y"])
    assert fp32_nodes(kept) == [("y", "Conv", "kept in FP32 by name")]
    assert types_of(kept)["a"] == "fp16"
    assert describe_types(kept) == {"Conv": {"fp16": 1, "fp32": 1}, "Relu": {"fp16": 1}}
    with pytest.raises(ModelError, match=r"keep: no such node.*'nothing'"):
        half_graph(model, keep=["nothing"])


def test_what_is_said_of_a_graph_is_read_from_it(force_half: Any) -> None:
    body, weights, _ = CASES["softmax"]
    half = half_graph(network(body, **weights))
    assert describe_types(half)["Softmax"] == {"fp32": 1}
    assert [(name, op) for name, op, _ in fp32_nodes(half)] == [("b", "Softmax")]
    broken = force_half(half, ["Softmax"])
    assert describe_types(broken)["Softmax"] == {"fp16": 1}
    assert fp32_nodes(broken) == []


def test_bf16_needs_a_later_opset_and_runs_emulated() -> None:
    body, weights, _ = CASES["convolutions and activations"]
    model = network(body, **weights)
    half = half_graph(model, kind="bf16")
    assert half.opset_import[0].version == 22
    assert describe_types(half)["Conv"] == {"bf16": 1}
    x = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    cosine = cosines(run(model, x), run(emulate(half), x)).min()
    assert 0.9999 < cosine < 1 - 1e-7


@pytest.mark.parametrize(
    ("body", "weights", "words"),
    [
        ("h = Cast<to=10>(x)\nb = Relu(h)\ny = Cast<to=1>(b)", {}, "h: fp16|not an FP32 graph"),
        ("b = Cast<to=9>(x)\nc = ReduceMax<keepdims=0>(x)\nd = Cast<to=11>(c)\ny = Cast<to=1>(d)", {}, "fp64"),
    ],
)
def test_what_is_not_fp32_is_refused(body: str, weights: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=words):
        half_graph(network(body, **weights))


def test_control_flow_and_other_domains_are_refused() -> None:
    text = """<ir_version: 8, opset_import: ["": 18, "com.microsoft": 1]> g (float[4] x, bool c) => (float[4] y)
    {
      y = If (c) <
        then_branch = t () => (float[4] a) { a = Relu(x) }, else_branch = e () => (float[4] b) { b = Abs(x) }
      >
    }
    """
    with pytest.raises(ModelError, match="If: control flow"):
        half_graph(onnx.parser.parse_model(text))
    model = network("y = Relu(x)")
    model.graph.node[0].domain = "com.microsoft"
    model.graph.node[0].op_type = "QuickGelu"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ModelError, match=r"y: .*com\.microsoft\.QuickGelu"):
        half_graph(model)
    with pytest.raises(ModelError, match="kind: no such precision"):
        half_graph(model, kind="fp8")  # type: ignore[arg-type]


BROKEN: dict[str, tuple[str, str]] = {
    "mixed types": ("h = Cast<to=10>(x)\ny = Add(h, x)", "y"),
    "a mixed norm": ("h = Cast<to=10>(x)\nn = BatchNormalization(h, g, g, g, g)\ny = Cast<to=1>(n)", "n"),
    "double precision": ("d = Cast<to=11>(x)\ne = Relu(d)\ny = Cast<to=1>(e)", "e"),
    "bfloat16 before its opset": ("h = Cast<to=16>(x)\nc = MaxPool<kernel_shape=[2,2]>(h)\ny = Cast<to=1>(c)", "c"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_tensorrt_would_refuse_is_refused_with_the_nodes_name(case: str) -> None:
    body, name = BROKEN[case]
    model = network(body, g=np.ones(4))
    with pytest.raises(ModelError, match=rf"\b{name}\b"):
        check_types(model)


def test_nodes_without_a_name_of_their_own_are_refused_and_named() -> None:
    model = network("a = Relu(x)\nb = Relu(a)\ny = Relu(b)")
    for node, name in zip(model.graph.node, ("same", "same", ""), strict=True):
        node.name = name
    with pytest.raises(ModelError, match="same: a node without a name of its own"):
        check_types(model)
    assert [node.name for node in name_nodes(model).graph.node] == ["same", "same_1", "Relu"]
    entry = onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value="['', 'net', 'net.body.3', 'relu']")
    model.graph.node[2].metadata_props.append(entry)
    assert name_nodes(model).graph.node[2].name == "net.body.3/Relu"


def test_weights_are_stored_in_half_and_computed_in_full_precision() -> None:
    weights = RNG.normal(size=(8, 256))
    model = network("a = MatMul(x, m)\ny = Relu(a)", m=weights)
    stored = half_weights(model)
    assert len(stored.SerializeToString()) < 0.6 * len(model.SerializeToString())
    assert describe_types(stored)["MatMul"] == {"fp32": 1}
    x = RNG.normal(size=(2, 4, 8, 8)).astype(np.float32)
    rounded = network("a = MatMul(x, m)\ny = Relu(a)", m=weights.astype(np.float16))
    assert np.array_equal(run(stored, x), run(rounded, x))
    # What was stored so is understood as the FP32 graph that it is.
    assert describe_types(half_graph(stored))["MatMul"] == {"fp16": 1}
    with pytest.raises(ModelError, match="m: a weight is beyond half precision"):
        half_weights(network("a = MatMul(x, m)\ny = Relu(a)", m=weights * 1e5))


def test_values_beyond_the_range_are_found_and_keeping_their_nodes_helps() -> None:
    # The residual sum `s` exceeds FP16, its norm brings it back.
    body = "a = MatMul(x, m)\ns = Add(a, b)\nn = LayerNormalization<axis=-1>(s, g)\ny = MatMul(n, m)"
    model = network(body, m=LINEAR, b=np.linspace(-9e4, 9e4, 8), g=np.ones(8))
    x = RNG.normal(size=(3, 4, 8, 8)).astype(np.float32)
    with pytest.raises(ModelError, match="b: a weight is beyond"):
        half_graph(model)
    body = "a = MatMul(x, m)\nd = MatMul(a, e)\ns = Mul(d, b)\nn = LayerNormalization<axis=-1>(s, g)\ny = MatMul(n, m)"
    model = network(body, m=LINEAR, e=LINEAR * 100, b=np.linspace(-5e3, 5e3, 8), g=np.ones(8))
    found = ranges(model, x)
    assert {name for name, value in found.items() if value > HALF_MAX} == {"s"}
    assert found["a"] == pytest.approx(np.abs(x @ LINEAR.astype(np.float32)).max(), rel=1e-5)
    assert not np.isfinite(run(emulate(half_graph(model)), x)).all()
    kept = run(emulate(half_graph(model, keep=["s"])), x)
    assert cosines(run(model, x), kept).min() > 0.99999


def test_ranges_takes_whole_batches_of_a_fixed_size() -> None:
    model = network("y = Relu(x)", shape="2,4,8,8")
    x = RNG.normal(size=(4, 4, 8, 8)).astype(np.float32)
    assert ranges(model, x) == {"y": pytest.approx(float(x.max()))}
    with pytest.raises(ModelError, match=r"images: not whole batches.*multiple of 2"):
        ranges(model, x[:3])


@pytest.mark.parametrize(
    ("op", "body", "scale"),
    [
        # Squares of thousands are infinite.
        ("LayerNormalization", "a = MatMul(x, e)\nb = LayerNormalization<axis=-1>(a, g)\ny = MatMul(b, m)", 4000.0),
        # Scores around 3000 are told apart in steps of 2.
        ("Softmax", "a = Add(x, o)\nb = Softmax<axis=-1>(a)\ny = MatMul(b, m)", 1.0),
    ],
)
def test_a_norm_or_softmax_forced_to_half_shows(op: str, body: str, scale: float, force_half: Any) -> None:
    model = network(body, e=LINEAR * scale, m=LINEAR, g=np.ones(8), o=3000.0)
    x = RNG.normal(size=(4, 4, 8, 8)).astype(np.float32)
    expected = run(model, x)
    half = half_graph(model, keep=["a"])
    assert cosines(expected, run(emulate(half), x)).min() > 0.9999
    broken = force_half(half, [op])
    assert describe_types(broken)[op] == {"fp16": 1}
    found = run(emulate(broken), x)
    # Not a number where all became 0.
    assert not cosines(expected, found).min() > 0.99


@pytest.fixture(scope="module")
def graphs(small: Callable[..., CrossViewModel], tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, ModelProto] = {}
    folder = tmp_path_factory.mktemp("graphs")

    def make(name: str) -> ModelProto:
        if name not in made:
            path = Path(folder) / f"{name}.onnx"
            write_onnx(small(name), "query", path)
            made[name] = onnx.load(str(path))
        return made[name]

    return make


@pytest.mark.parametrize("name", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in METHODS])
def test_every_method_keeps_its_descriptors_in_half_precision(name: str, graphs: Any) -> None:
    model = graphs(name)
    half = half_graph(model)
    types = describe_types(half)
    assert types["Conv"].keys() == {"fp16"}
    for op in ("LayerNormalization", "Softmax", "ReduceMean", "ReduceSum", "ReduceL2", "Sqrt", "Pow", "Einsum"):
        assert types.get(op, {}).keys() <= {"fp32"}
    # Of the products only sums with soft weights, NetVLAD's, are FP32.
    assert types.get("MatMul", {}).get("fp32", 0) == (1 if name.startswith("cvm-net") else 0)
    x = images(12, *(side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[2:]))
    expected = run(model, x)
    for typed in (half, emulate(half)):
        found = cosines(expected, run(typed, x))
        # FSRA cuts a ranking of tokens into regions: two of its 36 that are as warm as each other may change places.
        assert np.median(found) >= 0.9999 and found.min() >= (0.99 if name == "fsra" else 0.999)
