"""Which layers become INT8, and what is said of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, numpy_helper

from cvgl.errors import ModelError
from cvgl_export.calibration import Calibration, calibrated_tiles, some
from cvgl_export.graphs.plain import plain_graph
from cvgl_export.graphs.work import layer_types, multiply_adds
from cvgl_export.parity import Thresholds
from cvgl_export.sensitivity import (
    Int8Choice,
    Network,
    agreement_budget,
    choose_int8,
    likely_budget,
    quantised_networks,
)
from cvgl_export.tiles import ParityTiles
from cvgl_train.data.base import DatasetError
from cvgl_train.models.base import ViewInput

SIZE = 16
NO_THRESHOLDS = Thresholds(None, None, None, None, None)


def noise(count: int, seed: int) -> ParityTiles:
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)
    query = np.clip(reference.astype(int) + rng.integers(-60, 61, reference.shape), 0, 255).astype(np.uint8)
    view = ViewInput(SIZE, SIZE)
    names = tuple(map(str, range(count)))
    return ParityTiles(query, reference, np.arange(count), names, {"query": view, "reference": view}, "noise")


@pytest.fixture(scope="module")
def tiles() -> ParityTiles:
    return noise(60, 0)


def graph(loud: bool) -> ModelProto:
    """Three layers between the first and the last; of the second, one input channel is a thousand times the others.

    A Clip keeps equalisation from putting that right, so that INT8 has a bit or none for all the other channels. What
    it gives is mostly the loud channel, which the last layer leaves out.
    """
    body = """{
      a = Conv<pads=[1,1,1,1]>(x, stem)
      b = Relu(a)
      c = Conv<pads=[1,1,1,1]>(b, first)
      d = Sigmoid(c)
      e = Mul(d, gains)
      f = Conv(e, second)
      g = Sigmoid(f)
      h = Conv<pads=[1,1,1,1],strides=[2,2]>(g, third)
      i = Relu(h)
      j = Conv(i, out)
      k = Flatten(j)
      y = LpNormalization<axis=1,p=2>(k)
    }"""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 18]> g (float[N,3,{SIZE},{SIZE}] x) => (float[N,D] y) ' + body
    )
    rng = np.random.default_rng(0)
    second = rng.normal(size=(8, 8, 1, 1))
    gains = np.ones((1, 8, 1, 1))
    if loud:
        gains[:, 0], second[:, 0] = 1000.0, 0.0
    weights = {
        "stem": rng.normal(size=(8, 3, 3, 3)) / 5,
        "first": rng.normal(size=(8, 8, 3, 3)) / 8,
        "gains": gains,
        "second": second,
        "third": rng.normal(size=(8, 8, 3, 3)) / 8,
        "out": rng.normal(size=(4, 8, 1, 1)),
    }
    for name, values in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(values.astype(np.float32), name))
    for node in model.graph.node:
        node.name = node.output[0]
    return plain_graph(model)


def network(model: ModelProto, keep: tuple[str, ...] = (), views: Any = ("query", "reference")) -> Network:
    return quantised_networks({"file": model}, {"file": views}, noise(32, 1), keep=keep)["file"]


def choose(net: Network | dict[str, Network], tiles: ParityTiles, most: int = 1, **options: Any) -> Int8Choice:
    networks = net if isinstance(net, dict) else {"embed.onnx": net}
    return choose_int8(networks, tiles, agreement_budget(len(tiles), 1 - most / len(tiles)), NO_THRESHOLDS, **options)


@pytest.fixture(scope="module")
def loud() -> Network:
    return network(graph(True))


@pytest.fixture(scope="module")
def quiet() -> Network:
    return network(graph(False))


def test_every_layer_is_int8_where_that_will_do(quiet: Network, tiles: ParityTiles) -> None:
    found = choose(quiet, tiles, most=6)
    assert found.names("embed.onnx") == ["c", "f", "h"] and found.trials == 1 and found.pairs == 0
    assert {layer.name: layer.why for layer in found.layers if layer.why} == {"a": "a first layer", "j": "a last layer"}
    assert all(layer.harm is layer.error is None for layer in found.layers)
    assert found.differ == found.differ_all <= 6 and "more could be" not in found.words


def test_the_layer_that_does_the_harm_stays_in_fp16(loud: Network, tiles: ParityTiles) -> None:
    said: list[tuple[str, int, int]] = []
    found = choose(loud, tiles, most=6, progress=lambda *words: said.append(words))
    assert found.names("embed.onnx") == ["c", "h"] and found.differ <= 6 < found.differ_all
    harms = {layer.name: layer.harm for layer in found.layers if layer.harm is not None}
    assert harms["f"] > 10 * max(harms["c"], harms["h"])
    (kept,) = (layer for layer in found.layers if layer.name == "f")
    assert kept.precision == "fp16" and "most harm" in kept.why
    assert f"1 more could be: with them {found.differ_all} of 60" in found.words
    assert found.share == pytest.approx(1 - sum(x.multiply_adds for x in found.layers if x.precision != "int8")
                                        / sum(x.multiply_adds for x in found.layers))  # fmt: skip
    assert said and found == choose(loud, tiles, most=6)
    # What was chosen is what the graph then says of itself.
    types = layer_types(loud.graph(found.names("embed.onnx")))
    assert types == {"a": "fp16", "c": "int8", "f": "fp16", "h": "int8", "j": "fp16"}
    assert found.read("embed.onnx", types) == found
    with pytest.raises(ModelError, match="not the layers that were chosen"):
        found.read("embed.onnx", {**types, "c": "fp16"})


def test_all_in_fp16_is_no_int8(loud: Network, tiles: ParityTiles, monkeypatch: pytest.MonkeyPatch) -> None:
    impossible = Thresholds(cosine_median=1.5)
    with pytest.raises(ModelError, match=r"nothing is left for INT8.*export it as fp16"):
        choose_int8({"embed.onnx": loud}, tiles, agreement_budget(60, 0.9), impossible)
    monkeypatch.setattr("cvgl_export.sensitivity.LEAST_SHARE", 0.1)
    with pytest.raises(ModelError, match="hardly any of the work"):
        choose(network(graph(True), keep=("c", "h")), tiles, most=60)


def test_little_in_int8_is_said(tiles: ParityTiles) -> None:
    found = choose(network(graph(False), keep=("c",)), tiles, most=60)
    assert 0.05 < found.share < 0.5 and "INT8 buys little here" in found.words
    assert next(layer.why for layer in found.layers if layer.name == "c") == "kept by name"


def test_layers_of_two_networks_are_weighed_together(loud: Network, quiet: Network, tiles: ParityTiles) -> None:
    views = {"query.onnx": ("query",), "reference.onnx": ("reference",)}
    both = {file: network(graph(True), views=view) for file, view in views.items()}
    found = choose(both, tiles, most=6)
    assert {"f"}.isdisjoint(found.names("query.onnx")) and {"f"}.isdisjoint(found.names("reference.onnx"))
    assert "h" in found.names("query.onnx") and "h" in found.names("reference.onnx")
    assert {layer.times for layer in found.layers} == {1}


def test_a_network_of_fixed_batch_size_takes_whole_batches(tiles: ParityTiles) -> None:
    model = graph(False)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    del model.graph.value_info[:]
    found = network(model)
    assert found.work == network(graph(False)).work
    assert choose(found, tiles, most=60).names("embed.onnx") == ["c", "f", "h"]


def test_multiply_adds_are_those_of_one_image() -> None:
    model = graph(False)
    image = noise(2, 3).batch("query")
    places = SIZE * SIZE
    expected = {"a": places * 8 * 27, "c": places * 8 * 72, "f": places * 64, "h": places // 4 * 8 * 72, "j": 64 * 32}
    assert multiply_adds(model, image[:1]) == multiply_adds(model, image) == expected


def test_any_of_the_layers_can_be_quantised_and_the_others_are_as_they_were(quiet: Network, tiles: ParityTiles) -> None:
    for layers in (["c"], ["h", "f"]):
        made = quiet.layers.graph(layers)
        assert [name for name, kind in layer_types(made).items() if kind == "int8"] == sorted(layers)
        assert sum(node.op_type == "QuantizeLinear" for node in made.graph.node) == len(layers)
    for wrong, words in (([], "nothing to quantise"), (["a"], "not layers that can be INT8.*'a'")):
        with pytest.raises(ModelError, match=words):
            quiet.layers.graph(wrong)


@pytest.mark.parametrize(
    ("held", "judged", "agreement", "most"),
    [(500, 500, 0.98, 5), (250, 500, 0.98, 2), (1000, 500, 0.98, 12), (500, 500, 0.995, 0), (20, 20, 0.98, 0)],
)
def test_the_budget_follows_from_the_judged_threshold(held: int, judged: int, agreement: float, most: int) -> None:
    found = likely_budget(held, judged, agreement)
    assert found.most == most and f"at most {most} of {held}" in found.words
    assert likely_budget(held, judged, None).most == held


def test_what_was_asked_is_the_budget() -> None:
    found = agreement_budget(200, 0.99)
    assert (found.most, found.probability) == (2, None) and "as was asked" in found.words


@given(st.integers(2, 400), st.integers(2, 400), st.floats(0.9, 0.999))
def test_more_confidence_never_allows_more(held: int, judged: int, agreement: float) -> None:
    one, two = (likely_budget(held, judged, agreement, confidence=c) for c in (0.8, 0.95))
    assert two.most <= one.most <= held
    assert one.probability is not None and two.probability is not None and 0 <= one.probability <= 1
    assert one.most == 0 or one.probability >= 0.8


def test_tiles_serve_one_purpose(tiles: ParityTiles) -> None:
    parts = [some(tiles, range(start, start + 20)) for start in (0, 20, 40)]
    Calibration(parts[1], parts[2]).check(parts[0])
    assert parts[1].names == tuple(map(str, range(20, 40))) and (parts[1].truth == np.arange(20)).all()
    for ranges, held in ((parts[0], parts[2]), (parts[1], parts[0]), (parts[1], parts[1])):
        with pytest.raises(ModelError, match="serves two purposes"):
            Calibration(ranges, held).check(parts[0])


def test_a_folder_is_parted_and_procedural_worlds_differ(tmp_path: Any) -> None:
    import cv2

    view = ViewInput(SIZE, SIZE)
    rng = np.random.default_rng(5)
    for number in range(30):
        cv2.imwrite(str(tmp_path / f"{number}.png"), rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8))
    judging, others = calibrated_tiles(tmp_path, view, view, count=50)
    assert [len(part) for part in (judging, others.ranges, others.held)] == [15, 5, 10]
    others.check(judging)
    again, _ = calibrated_tiles(tmp_path, view, view, count=50)
    assert again.names == judging.names
    small, _ = calibrated_tiles(tmp_path, view, view, count=4)
    assert len(small) == 4
    for number in range(6, 30):
        (tmp_path / f"{number}.png").unlink()
    with pytest.raises(DatasetError, match="too few tiles to calibrate"):
        calibrated_tiles(tmp_path, view, view, count=50)
    judging, others = calibrated_tiles(None, view, view, count=6)
    others.check(judging)
    assert len(others.held) == 6 and len(others.ranges) == 16
