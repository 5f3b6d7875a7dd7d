"""Parity of two engines: the figures, the verdict, the tiles they are taken on, and graphs run as they say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cvgl.errors import GalleryError, MapError, ModelError
from cvgl.mission import GALLERY
from cvgl.sim import World, write_map
from cvgl_export.descriptors import Descriptors
from cvgl_export.disturbing import disturbed
from cvgl_export.graphs.half import half_graph
from cvgl_export.graphs.types import is_half
from cvgl_export.latency import latency
from cvgl_export.parity import COLLAPSED, Thresholds, compare, judge
from cvgl_export.running import describe, onnx_descriptors, onnx_runner, torch_descriptors
from cvgl_export.tile_sources import open_tiles
from cvgl_export.tiles import ParityTiles
from cvgl_train import create_model
from cvgl_train.data.base import DatasetError
from cvgl_train.data.images import to_input
from cvgl_train.models.base import ViewInput

SMALL = ViewInput(32, 32)


def unit(values: Any) -> np.ndarray:
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def pair(count: int = 20, size: int = 16, seed: int = 0) -> Descriptors:
    rng = np.random.default_rng(seed)
    reference = unit(rng.normal(size=(count, size)))
    return Descriptors(unit(reference + 0.3 * rng.normal(size=(count, size))), reference, "original")


def changed(one: Descriptors, noise: float, seed: int = 1) -> Descriptors:
    rng = np.random.default_rng(seed)
    query, reference = (unit(x + noise * rng.normal(size=x.shape)) for x in (one.query, one.reference))
    return Descriptors(query, reference, "candidate")


# The figures.


def test_the_same_descriptors_are_at_parity() -> None:
    one = pair()
    parity = compare(one, one, np.arange(20))
    assert parity and judge(parity, parity.thresholds) == []
    assert (parity.cosine_median, parity.cosine_minimum) == pytest.approx((1.0, 1.0))
    assert parity.max_error == 0 and parity.before.count == parity.after.count == 0
    seen = parity.retrieval
    assert seen is not None
    assert (seen.agreement, seen.exact_agreement, seen.tied) == (1.0, 1.0, 0.0)
    assert (seen.recall_change, seen.pssr_change, seen.displacement, seen.largest_displacement) == (0, 0, 0, 0)
    assert seen.chance == pytest.approx(0.05)
    assert "passed" in repr(parity)


def test_the_figures_of_a_small_case_by_hand() -> None:
    reference = np.array([[1, 0], [0, 1]], np.float32)
    before = Descriptors(unit([[2, 1], [1, 2]]), reference)
    # The second query turns to the first reference.
    after = Descriptors(unit([[2, 1], [2, 1]]), reference)
    parity = compare(before, after, np.array([0, 1]))
    assert parity.cosine_query.tolist() == pytest.approx([1.0, 0.8])
    assert parity.cosine_minimum == pytest.approx(0.8) and parity.cosine_median == pytest.approx(1.0)
    assert parity.max_error == pytest.approx(1 / 5**0.5, abs=1e-6) and parity.max_error_tile == "query 1"
    assert parity.spread == pytest.approx(1.0)
    seen = parity.retrieval
    assert seen is not None
    assert (seen.agreement, seen.recall_before, seen.recall_after) == (0.5, 1.0, 0.5)
    assert (seen.pssr_before, seen.pssr_after, seen.displacement, seen.largest_displacement) == (0.5, 0.25, 0.5, 1)
    assert parity.nearest_before.tolist() == [[0, 1], [1, 0]]
    assert parity.nearest_after.tolist() == [[0, 1], [0, 1]]
    metrics = {failure.metric: failure for failure in parity.failures}
    # One query of two may find another tile, and ranks may move by a quarter on average: nothing finer can be told.
    assert set(metrics) == {"cosine (minimum)"}
    assert str(metrics["cosine (minimum)"]) == "cosine (minimum) 0.8, expected at least 0.999: in query 1"


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 30), st.integers(1, 8), st.floats(0, 0.3))
def test_agreement_is_what_a_plain_loop_counts(seed: int, references: int, size: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    one = Descriptors(unit(rng.normal(size=(7, size))), unit(rng.normal(size=(references, size))))
    other = changed(one, noise, seed + 1)
    seen = compare(one, other, rng.integers(0, references, 7)).retrieval
    assert seen is not None
    same = 0
    for i in range(7):
        before = one.query[i].astype(float) @ one.reference.T.astype(float)
        after = other.query[i].astype(float) @ other.reference.T.astype(float)
        same += before[after.argmax()] >= before.max() - 1e-6
    assert seen.agreement == pytest.approx(same / 7)
    assert seen.exact_agreement <= seen.agreement
    assert 0 <= seen.recall_after <= 1


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 1000))
def test_cosine_does_not_see_lengths(factor: float, seed: int) -> None:
    one = pair(seed=seed)
    longer = Descriptors(one.query * np.float32(factor), one.reference * np.float32(factor))
    parity = compare(one, longer, np.arange(20))
    assert parity.cosine_minimum == pytest.approx(1.0, abs=1e-6)
    assert parity.retrieval is not None and parity.retrieval.agreement == 1.0


def test_a_tie_of_the_original_is_excused_and_one_of_the_candidate_is_not() -> None:
    rotated = unit([[1, 1e-9], [1, -1e-9], [0, 1]])
    query = unit([[1, 0.001], [0.1, 1]])
    tied = Descriptors(query, np.ascontiguousarray(rotated))
    other = Descriptors(query, np.ascontiguousarray(rotated[[1, 0, 2]]))
    seen = compare(tied, replace(other, reference=unit([[1, -0.01], [1, 0.01], [0, 1]])), np.array([0, 2])).retrieval
    assert seen is not None
    assert (seen.agreement, seen.exact_agreement, seen.tied) == (1.0, 0.5, 0.5)
    # The other way round the original can tell them apart, and the candidate cannot.
    apart = Descriptors(query, unit([[1, -0.01], [1, 0.01], [0, 1]]))
    seen = compare(apart, tied, np.array([1, 2])).retrieval
    assert seen is not None
    assert (seen.agreement, seen.exact_agreement, seen.tied) == (0.5, 0.5, 0.0)


def test_a_collapsed_model_proves_nothing() -> None:
    rng = np.random.default_rng(0)
    same = Descriptors(*(unit(np.ones((10, 8)) + 1e-4 * rng.normal(size=(10, 8))) for _ in range(2)))
    parity = compare(same, same, np.arange(10), replace(Thresholds(), spread=0.01))
    assert not parity and parity.cosine_minimum == pytest.approx(1.0) and parity.spread < COLLAPSED
    (failure,) = parity.failures
    assert failure.metric == "spread of the original's descriptors" and "proves nothing" in str(failure)
    assert compare(same, same, np.arange(10))
    constant = Descriptors(unit(np.ones((10, 8))), unit(np.ones((10, 8))))
    seen = compare(constant, constant, np.arange(10)).retrieval
    assert seen is not None
    assert seen.recall_before == pytest.approx(0.1) and seen.tied == 1.0 and seen.pssr_before == 0


@pytest.mark.parametrize(
    ("value", "view", "row", "nan", "inf"),
    [(np.nan, "query", 3, 1, 0), (np.inf, "reference", 5, 0, 1), (-np.inf, "query", 0, 0, 1)],
)
def test_what_is_not_finite_is_counted_and_placed(value: float, view: str, row: int, nan: int, inf: int) -> None:
    one = pair()
    bad = {"query": one.query.copy(), "reference": one.reference.copy()}
    bad[view][row, 2] = value
    other = Descriptors(bad["query"], bad["reference"])
    parity = compare(one, other, np.arange(20), Thresholds(*[None] * 7))
    assert not parity and parity.retrieval is None
    assert (parity.after.nan, parity.after.inf, parity.after.first) == (nan, inf, f"{view} {row}")
    assert f"{view} {row}" in str(parity.failures[0]) and "candidate" in str(parity.failures[0])
    assert parity.nearest_after.max() == -1 and parity.nearest_before.min() >= 0
    # An original that is broken is no proof either, however well the candidate agrees with it.
    assert "original" in str(compare(other, other, np.arange(20), Thresholds(*[None] * 7)).failures[0])


def test_nothing_finite_fails_every_cosine() -> None:
    one = pair()
    none = Descriptors(np.full_like(one.query, np.nan), np.full_like(one.reference, np.nan))
    failures = {failure.metric for failure in compare(one, none, np.arange(20)).failures}
    assert {"cosine (median)", "cosine (minimum)"} <= failures


def test_distances_are_compared_as_distances() -> None:
    reference = np.array([[0, 1], [0, 3]], np.float32)
    near = Descriptors(np.array([[0, 2.8], [0, 1.1]], np.float32), reference)
    seen = compare(near, near, np.array([1, 0]), metric="euclidean").retrieval
    assert seen is not None and seen.recall_before == 1.0 and seen.tied == 0


@pytest.mark.parametrize(
    ("noise", "precision", "passes"),
    [(1e-6, "fp32", True), (1e-3, "fp32", False), (1e-3, "fp16", True), (2e-2, "fp16", False), (5e-3, "bf16", True),
     (5e-3, "int8", True), (0.3, "int8", False)],
)  # fmt: skip
def test_defaults_by_precision(noise: float, precision: str, passes: bool) -> None:
    one = pair(200, 32)
    assert bool(compare(one, changed(one, noise), np.arange(200), Thresholds.of(precision))) is passes


def test_a_limit_that_is_just_met_passes_and_an_error_can_be_limited() -> None:
    one = pair()
    query = one.query.copy()
    query[4, 0] += 0.25
    parity = compare(one, replace(one, query=query), np.arange(20))
    exact = Thresholds(*[None] * 7)
    assert judge(parity, replace(exact, cosine_minimum=parity.cosine_minimum)) == []
    assert judge(parity, replace(exact, error=parity.max_error)) == []
    (failure,) = judge(parity, replace(exact, error=0.2))
    assert failure.metric == "maximum error" and failure.note == "in query 4"


def test_no_such_precision() -> None:
    with pytest.raises(ModelError, match=r"precision.*'fp8'.*fp32 or fp16 or bf16 or int8"):
        Thresholds.of("fp8")


def test_descriptors_that_do_not_fit_are_refused() -> None:
    one = pair()
    with pytest.raises(ModelError, match=r"reference: not descriptors.*\(N, 16\)"):
        Descriptors(one.query, one.reference[:, :5])
    with pytest.raises(ModelError, match=r"query.*expected \(20, 16\)"):
        compare(one, Descriptors(one.query[:4], one.reference), np.arange(20))
    for truth in (np.arange(3), np.arange(20) + 1, np.arange(20) - 1):
        with pytest.raises(ModelError, match="truth"):
            compare(one, one, truth)


# Graphs that run as they say.


def graph(nodes: list[Any], weights: dict[str, Any], batch: int | None = None, size: int = 32) -> onnx.ModelProto:
    body = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [batch or "batch", 3, size, size])],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def embedding(batch: int | None = None, gain: float = 1.0) -> onnx.ModelProto:
    """Two layers; with a gain, the first one's values are large and the second divides them again."""
    rng = np.random.default_rng(3)
    first = (gain * rng.normal(size=(8, 3, 8, 8)) / 14).astype(np.float32)
    second = (rng.normal(size=(16, 8, 1, 1)) / gain).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "first"], ["a"], "conv1", strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "second"], ["c"], "conv2"),
        helper.make_node("Flatten", ["c"], ["d"], "flatten"),
        helper.make_node("LpNormalization", ["d"], ["descriptors"], "unit", axis=1, p=2),
    ]
    return graph(nodes, {"first": first, "second": second}, batch)


@pytest.fixture(scope="module")
def tiles() -> ParityTiles:
    return open_tiles(None, SMALL, SMALL, count=12)


def described(model: Any, tiles: ParityTiles, **options: Any) -> Descriptors:
    run, fixed = onnx_runner(model, **options)
    query, reference = (describe(run, tiles, view, batch=fixed or 5) for view in ("query", "reference"))
    return Descriptors(query, reference)


def test_a_halved_graph_is_at_parity_and_a_fixed_batch_changes_nothing(tiles: ParityTiles, tmp_path: Path) -> None:
    plain = embedding()
    one = described(plain, tiles)
    assert one.query.shape == one.reference.shape == (12, 256)
    assert np.array_equal(described(embedding(batch=7), tiles).query, one.query)
    typed = half_graph(plain)
    assert is_half(typed) and not is_half(plain)
    parity = compare(one, described(typed, tiles), tiles.truth)
    assert parity, parity.failures
    assert 0 < parity.max_error < 1e-2
    onnx.save(typed, str(tmp_path / "half.onnx"))
    steps: list[tuple[int, int]] = []
    from_file = onnx_descriptors(
        tmp_path / "half.onnx", tiles, "query", batch=5, threads=1, progress=lambda *at: steps.append(at)
    )
    assert np.array_equal(from_file, described(typed, tiles, threads=1).query)
    assert steps == [(5, 12), (10, 12), (12, 12)]


def test_values_beyond_half_precision_are_seen(tiles: ParityTiles) -> None:
    """ONNX Runtime on a CPU leaves the roundings out, so that it takes what would be infinite on a GPU."""
    loud = embedding(gain=1e5)
    one = described(loud, tiles)
    assert one.query.shape == (12, 256)
    parity = compare(one, described(half_graph(loud), tiles), tiles.truth)
    assert not parity and parity.after.count > 0


def test_damaged_and_foreign_graphs_are_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a graph")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        onnx_runner(broken)
    with pytest.raises(ModelError, match="absent"):
        onnx_runner(tmp_path / "absent.onnx")
    body = helper.make_graph(
        [helper.make_node("Relu", ["vectors"], ["descriptors"], "relu")],
        "other",
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, ["batch", 4])],
    )
    with pytest.raises(ModelError, match="not an embedding network"):
        onnx_runner(helper.make_model(body, opset_imports=[helper.make_opsetid("", 18)], ir_version=9))


def test_an_engine_that_gives_something_else_is_refused(tiles: ParityTiles) -> None:
    with pytest.raises(ModelError, match=r"query: not a descriptor an image.*expected \(16, D\)"):
        describe(lambda images: images[:3].reshape(3, -1), tiles, "query")


def test_pytorch_sees_what_training_shows_it(tiles: ParityTiles) -> None:
    torch.manual_seed(0)
    model = create_model("cvgl-nano", widths=(8, 8, 8), blocks=(1, 1, 1), descriptor_size=12, input_px=32)
    whole = replace(tiles, query_mask=None, reference_mask=None)
    found = torch_descriptors(model, whole, "reference", batch=5)
    expected = torch.stack([to_input(image, SMALL) for image in tiles.reference])
    assert np.allclose(whole.batch("reference"), expected.numpy(), atol=1e-6)
    with torch.inference_mode():
        assert np.allclose(found, model.embed(expected, "reference").numpy(), atol=1e-5)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_latencies_say_of_what_they_are() -> None:
    calls: list[tuple[int, ...]] = []

    def run(images: np.ndarray) -> np.ndarray:
        calls.append(images.shape)
        return np.zeros((1, 2), np.float32)

    found = latency(run, np.zeros((1, 3, 4, 4), np.float32), engine="e", runs=4, warm_up=2)
    assert (found.engine, found.runs) == ("e", 4) and 0 < found.p50_ms <= found.p99_ms
    assert found.machine.startswith("CPU ")
    assert calls == [(1, 3, 4, 4)] * 6
    assert latency(run, np.zeros((1, 3, 4, 4), np.float32), engine="e", machine="m", runs=1).machine == "m"


# Tiles.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i, size in enumerate([(40, 50), (64, 64), (700, 900), (33, 20)]):
        image = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), size, interpolation=cv2.INTER_CUBIC)
        (tmp_path / f"place{i}").mkdir()
        cv2.imwrite(str(tmp_path / f"place{i}" / f"{i}.png"), image)
    (tmp_path / "notes.txt").write_text("no image")
    return tmp_path


def test_tiles_of_a_folder(folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    found = open_tiles(folder, ViewInput(24, 48), SMALL, seed=5, progress=lambda *at: steps.append(at))
    assert len(found) == 4 and steps[-1] == (4, 4)
    assert found.query.shape == (4, 24, 48, 3) and found.reference.shape == (4, 32, 32, 3)
    assert sorted(found.names) == ["place0/0.png", "place1/1.png", "place2/2.png", "place3/3.png"]
    assert found.truth.tolist() == [0, 1, 2, 3] and found.mask("query") is None and found.duplicates == 0
    again = open_tiles(str(folder), ViewInput(24, 48), SMALL, seed=5)
    assert again.fingerprint == found.fingerprint
    assert open_tiles(folder, ViewInput(24, 48), SMALL, seed=6).fingerprint != found.fingerprint
    few = open_tiles(folder, SMALL, SMALL, count=2)
    assert len(few.reference) == 2


def test_duplicates_are_left_out(folder: Path) -> None:
    first = (folder / "place1" / "1.png").read_bytes()
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(first)
    found = open_tiles(folder, SMALL, SMALL)
    assert len(found) == 4 and found.duplicates == 2


def test_folders_that_prove_nothing_are_refused(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(DatasetError, match="no such folder or map"):
        open_tiles(folder / "nowhere", SMALL, SMALL)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(DatasetError, match=r"no image in the folder.*\.jpg"):
        open_tiles(empty, SMALL, SMALL)
    same = (folder / "place1" / "1.png").read_bytes()
    for name in ("a.png", "b.png", "c.png"):
        (empty / name).write_bytes(same)
    with pytest.raises(DatasetError, match="'1, and 2 equal to it', expected two or more"):
        open_tiles(empty, SMALL, SMALL)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not an image")
    with pytest.raises(DatasetError, match=r"broken\.jpg: not readable as an image"):
        open_tiles(folder, SMALL, SMALL)
    for count in (1, 0, True, 2.5):
        with pytest.raises(DatasetError, match="count"):
            open_tiles(folder, SMALL, SMALL, count=count)  # type: ignore[arg-type]
    with pytest.raises(MapError, match=r"notes\.txt"):
        open_tiles(folder / "notes.txt", SMALL, SMALL)


def test_a_disturbed_tile_is_still_the_tile() -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (8, 8, 3), np.uint8), (64, 64), interpolation=cv2.INTER_CUBIC)
    for seed in range(8):
        other = disturbed(image, np.random.default_rng(seed))
        assert other.shape == image.shape and other.dtype == np.uint8
        assert np.corrcoef(image.ravel(), other.ravel())[0, 1] > 0.5
        assert not np.array_equal(other, image)


def test_procedural_tiles(tiles: ParityTiles) -> None:
    assert len(tiles) == 12 and len(set(tiles.names)) == 12 and "procedural" in tiles.source
    assert tiles.fingerprint == open_tiles(None, SMALL, SMALL, count=12).fingerprint
    mask = tiles.mask("query")
    assert mask is not None and 0.6 < mask.mean() < 1
    # Where nothing was seen the network is shown exactly 0, as in flight.
    assert (tiles.batch("query").transpose(0, 2, 3, 1)[~mask] == 0).all()


def test_tiles_of_a_map(tmp_path: Path) -> None:
    path = tmp_path / "map.tif"
    write_map(World.generate(5, 160.0), path, gsd=0.8)
    found = open_tiles(path, SMALL, ViewInput(48, 48), count=10, seed=1)
    assert len(found) == 10 and "map.tif" in found.source
    assert found.fingerprint == open_tiles(path, SMALL, ViewInput(48, 48), count=10, seed=1).fingerprint


@pytest.mark.slow
def test_tiles_of_a_gallery(mission: Path) -> None:
    gallery = mission / GALLERY
    found = open_tiles(gallery, SMALL, SMALL, count=12)
    assert len(found) == 12 and "gallery" in found.source
    assert found.reference.std(axis=(1, 2, 3)).min() > 1
    (gallery / "descriptors.npy").rename(gallery / "elsewhere")
    try:
        with pytest.raises(GalleryError, match=r"descriptors\.npy"):
            open_tiles(gallery, SMALL, SMALL)
    finally:
        (gallery / "elsewhere").rename(gallery / "descriptors.npy")


def test_arrays_that_do_not_fit_are_refused(tiles: ParityTiles) -> None:
    for field, changes in {
        "query": {"query": tiles.query[:, :8]},
        "reference": {"reference": tiles.reference.astype(np.float32)},
        "query_mask": {"query_mask": np.ones((1, 32, 32), bool)},
        "truth, names": {"truth": tiles.truth[:3]},
        "truth": {"truth": tiles.truth + 1},
    }.items():
        with pytest.raises(DatasetError, match=f"^{field}"):
            replace(tiles, **changes)
    twice = tiles.reference.copy()
    twice[1] = twice[0]
    with pytest.raises(DatasetError, match="two tiles are equal"):
        replace(tiles, reference=twice)


@pytest.mark.parametrize(
    ("queries", "flips", "passes"), [(22, 1, True), (22, 2, False), (500, 2, True), (500, 3, False)]
)
def test_one_query_may_differ_where_the_limit_is_finer_than_the_tiles_can_tell(
    queries: int, flips: int, passes: bool
) -> None:
    """A query that lies close to two references, and finds the other one."""
    original = np.eye(queries, 2 * queries, dtype=np.float32)
    turned = original.copy()
    references = np.concatenate([original, np.roll(original, queries, axis=1)])
    for i in range(flips):
        original[i, queries + i], turned[i, queries + i] = 0.999, 1.001
    one, other = (Descriptors(unit(q), references, "") for q in (original, turned))
    parity = compare(one, other, np.arange(queries), replace(Thresholds(), pssr_drop=None))
    assert parity.retrieval is not None and parity.retrieval.agreement == pytest.approx(1 - flips / queries)
    assert bool(parity) == passes
    # What a report shows is what it was judged by.
    assert parity.thresholds.agreement == pytest.approx(min(0.995, 1 - 1 / queries))
    said = {failure.metric: str(failure) for failure in parity.failures}
    assert passes or f"{queries - flips} of {queries} queries" in said["top-1 agreement"]


def test_pssr_may_fall_by_half_a_rank_however_few_the_references_are() -> None:
    """0.001 of 500; here 20 references, and ten or eleven queries whose true one falls by a rank."""
    references = np.eye(20, dtype=np.float32)
    before = 0.5 * references + 0.49 * np.roll(references, 1, axis=1)
    limits = Thresholds(agreement=None, recall_drop=None, cosine_median=None, cosine_minimum=None)
    for moved, passes in ((10, True), (11, False)):
        after = before.copy()
        after[:moved] += 0.02 * np.roll(references, 1, axis=1)[:moved]
        one, other = (Descriptors(unit(query), references, "") for query in (before, after))
        assert bool(compare(one, other, np.arange(20), limits)) == passes
