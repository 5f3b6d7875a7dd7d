"""The search for nodes that must stay in FP32."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cvgl.errors import ModelError
from cvgl_export.bisect import Verdict, bisect, local_errors, parity_check
from cvgl_export.descriptors import Descriptors
from cvgl_export.graphs.half import half_graph
from cvgl_export.parity import Thresholds
from cvgl_export.running import describe, onnx_runner
from cvgl_export.tiles import ParityTiles
from cvgl_train.models.base import ViewInput

SIZE = 16


@pytest.fixture(scope="module")
def tiles() -> ParityTiles:
    rng = np.random.default_rng(0)
    reference = rng.integers(0, 256, (24, SIZE, SIZE, 3), np.uint8)
    query = np.clip(reference.astype(int) + rng.integers(-20, 21, reference.shape), 0, 255).astype(np.uint8)
    view = ViewInput(SIZE, SIZE)
    names = tuple(str(i) for i in range(24))
    return ParityTiles(query, reference, np.arange(24), names, {"query": view, "reference": view}, "noise")


def model(nodes: list[onnx.NodeProto], weights: dict[str, Any]) -> onnx.ModelProto:
    body = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return onnx.shape_inference.infer_shapes(
        helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    )


def layers(loud: set[int], count: int = 6) -> onnx.ModelProto:
    """Layers of a product, a normalisation and a rectifier; those named give values of some 10^5 inside."""
    rng = np.random.default_rng(1)
    weights: dict[str, Any] = {"shape": np.array([0, -1], np.int64)}
    nodes = [helper.make_node("Reshape", ["images", "shape"], ["x0"], "flatten")]
    wide = 3 * SIZE * SIZE
    for i in range(count):
        scale = (1e5 if i in loud else 1.0) / wide**0.5
        weights[f"w{i}"] = (scale * rng.normal(size=(wide, 48))).astype(np.float32)
        weights[f"g{i}"], weights[f"b{i}"] = np.ones(48, np.float32), np.full(48, 0.3, np.float32)
        nodes += [
            helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"m{i}"], f"layer{i}/product"),
            helper.make_node("LayerNormalization", [f"m{i}", f"g{i}", f"b{i}"], [f"n{i}"], f"layer{i}/norm", axis=-1),
            helper.make_node("Relu", [f"n{i}"], [f"x{i + 1}"], f"layer{i}/rectify"),
        ]
        wide = 48
    nodes.append(helper.make_node("LpNormalization", [f"x{count}"], ["descriptors"], "unit", axis=1, p=2))
    return model(nodes, weights)


def original(graph: onnx.ModelProto, tiles: ParityTiles) -> Descriptors:
    run, _ = onnx_runner(graph)
    return Descriptors(describe(run, tiles, "query"), describe(run, tiles, "reference"), "FP32")


def search(graph: onnx.ModelProto, tiles: ParityTiles, make: Any = None, **options: Any) -> Any:
    check = parity_check(original(graph, tiles), tiles, ("query", "reference"), Thresholds.of("fp16"))
    halve = make or (lambda keep: half_graph(graph, keep=keep))
    return bisect(graph, halve, check, tiles.batch("query", 0, 2), **options)


@pytest.mark.parametrize("loud", [{3}, {0}, {5}, {1, 4}])
def test_layers_that_overflow_are_found_exactly(loud: set[int], tiles: ParityTiles) -> None:
    said: list[tuple[str, int, int]] = []
    found = search(layers(loud), tiles, progress=lambda *words: said.append(words))
    assert found and found.complete
    assert found.names == {f"layer{i}/product" for i in loud}
    assert [node.op for node in found.keep] == ["MatMul"] * len(loud)
    assert [node.name for node in found.keep] == sorted(found.names)
    assert all(node.needed and node.error == float("inf") for node in found.keep)
    assert all(node.score_without == float("-inf") for node in found.keep)
    assert found.score > 0.999 and found.score_fp32 > 0.999 and found.score_half == float("-inf")
    assert found.words.startswith(f"{len(loud)} of ")
    assert found.runs == len(said) < 15 and said[0][0] == "none in FP32"


def test_nothing_needs_to_stay_where_the_halved_graph_passes(tiles: ParityTiles) -> None:
    found = search(layers(set()), tiles)
    assert found and found.keep == () and found.runs == 2 and "nothing" in found.words


def attention() -> onnx.ModelProto:
    """Scores far apart, their softmax, and its logarithm: what underflows in the one is infinite in the other."""
    rng = np.random.default_rng(2)
    weights: dict[str, Any] = {
        "shape": np.array([0, -1], np.int64),
        "w": (rng.normal(size=(3 * SIZE * SIZE, 32)) / 6).astype(np.float32),
        "v": (rng.normal(size=(32, 32)) / 6).astype(np.float32),
    }
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["x"], "flatten"),
        helper.make_node("MatMul", ["x", "w"], ["scores"], "scores"),
        helper.make_node("Softmax", ["scores"], ["shares"], "attention", axis=-1),
        helper.make_node("Log", ["shares"], ["logs"], "logs"),
        helper.make_node("MatMul", ["logs", "v"], ["mixed"], "mix"),
        helper.make_node("Relu", ["mixed"], ["lit"], "rectify"),
        helper.make_node("LpNormalization", ["lit"], ["descriptors"], "unit", axis=1, p=2),
    ]
    return model(nodes, weights)


def forced(graph: onnx.ModelProto, keep: set[str]) -> onnx.ModelProto:
    """The halved graph with its softmax in FP16, as a careless conversion has it."""
    typed = half_graph(graph, keep=keep - {"attention"})
    if "attention" in keep:
        return typed
    nodes = []
    for node in typed.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.name == "attention":
            (given,), (gives,) = node.input, node.output
            copy.input[0], copy.output[0] = "given.half", "gives.half"
            nodes.append(helper.make_node("Cast", [given], ["given.half"], "attention/in", to=TensorProto.FLOAT16))
            nodes.append(copy)
            nodes.append(helper.make_node("Cast", ["gives.half"], [gives], "attention/out", to=TensorProto.FLOAT))
        else:
            nodes.append(copy)
    del typed.graph.node[:]
    typed.graph.node.extend(nodes)
    del typed.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(typed)


def test_a_softmax_that_was_forced_to_half_is_found(tiles: ParityTiles) -> None:
    graph = attention()
    found = search(graph, tiles, lambda keep: forced(graph, keep))
    assert found and [(node.name, node.op, node.needed) for node in found.keep] == [("attention", "Softmax", True)]


def test_what_fails_in_fp32_too_is_not_blamed_on_precision(tiles: ParityTiles) -> None:
    graph = layers({2})
    found = bisect(graph, lambda keep: half_graph(graph, keep=keep), lambda model: False, tiles.batch("query", 0, 1))
    assert not found and found.keep == () and found.runs == 2
    assert "with every node in FP32" in found.words


def test_a_plain_yes_or_no_is_enough_and_more_than_one_node_may_be_needed_for_no_seen_reason(
    tiles: ParityTiles,
) -> None:
    """The check knows something that errors do not show: two nodes, neither of which the ranking suspects."""
    graph = layers(set(), 8)
    wanted = {"layer2/product", "layer7/product"}
    tried: list[frozenset[str]] = []

    def make(keep: set[str]) -> Any:
        tried.append(frozenset(keep))
        return half_graph(graph, keep=keep)

    runs: list[bool] = []

    def check(typed: Any) -> bool:
        runs.append(wanted <= tried[-1])
        return runs[-1]

    found = bisect(graph, make, check, tiles.batch("query", 0, 2))
    assert found and found.complete and found.names == wanted
    assert (found.score, found.score_half, [node.score_without for node in found.keep]) == (1.0, 0.0, [0.0, 0.0])
    assert len(runs) == found.runs
    again = bisect(graph, make, check, tiles.batch("query", 0, 2))
    assert again == found


def test_when_trials_are_used_up_what_passed_stands(tiles: ParityTiles) -> None:
    graph = layers(set(), 8)
    kept: list[set[str]] = []

    def make(keep: set[str]) -> Any:
        kept.append(keep)
        return half_graph(graph, keep=keep)

    def check(typed: Any) -> Verdict:
        passed = {"layer2/product", "layer7/product"} <= kept[-1]
        return Verdict(passed, float(passed))

    found = bisect(graph, make, check, tiles.batch("query", 0, 2), most_runs=7)
    assert found and not found.complete and found.runs == 7
    assert found.names >= {"layer2/product", "layer7/product"} and "or fewer" in found.words
    assert any(node.needed is None for node in found.keep)
    with pytest.raises(ModelError, match="most_runs"):
        bisect(graph, make, check, tiles.batch("query", 0, 2), most_runs=2)


def test_errors_are_laid_to_the_node_that_makes_them(tiles: ParityTiles) -> None:
    graph = layers({3})
    found = local_errors(graph, half_graph(graph), tiles.batch("query", 0, 2))
    assert (found[0].name, found[0].op, found[0].error) == ("layer3/product", "MatMul", float("inf"))
    assert found[1].error < 1e-2
    # What comes after a value that is not finite is not to blame for it.
    later = {suspect.name: suspect.error for suspect in found}
    assert later["layer4/product"] == 0
    assert [suspect.error for suspect in found] == sorted((suspect.error for suspect in found), reverse=True)
    same = local_errors(graph, graph, tiles.batch("query", 0, 2))
    assert max(suspect.error for suspect in same) == 0


def test_nodes_need_names_of_their_own(tiles: ParityTiles) -> None:
    graph = layers(set())
    images = tiles.batch("query", 0, 1)
    for name in (graph.graph.node[1].name, ""):
        graph.graph.node[2].name = name
        with pytest.raises(ModelError, match="cannot be told apart"):
            bisect(graph, lambda keep: graph, lambda typed: True, images)
        with pytest.raises(ModelError, match="cannot be told apart"):
            local_errors(graph, graph, images)


def test_a_view_that_the_graph_does_not_serve_is_the_originals(tiles: ParityTiles) -> None:
    graph = layers({3})
    one = original(graph, tiles)
    check = parity_check(one, tiles, ("query",), Thresholds.of("fp16"))
    passed, failed = check(half_graph(graph, keep={"layer3/product"})), check(half_graph(graph))
    assert isinstance(passed, Verdict) and passed and 0.999 < passed.score <= 1
    assert isinstance(failed, Verdict) and not failed
