"""Recall of index and tree: how it is measured, what follows from it, and what the gallery says of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cvgl.camera import Camera
from cvgl.cli.gallery import app
from cvgl.errors import GalleryError
from cvgl.gallery import Gallery, build_gallery, merge_galleries, ranking, read_manifest
from cvgl.gallery import fit as fit_module
from cvgl.gallery.axes import AXES, along, principal_axes
from cvgl.gallery.check import check_gallery
from cvgl.gallery.fit import Fitting, ask, fit_index
from cvgl.gallery.index import find, load_index
from cvgl.gallery.manifest import seal
from cvgl.gallery.ranking import best_few, order
from cvgl.gallery.recall import DISTURBED, SIMULATED, Measured, disturbed, found_shares, kth_similarity, surely
from cvgl.gallery.tree import KMeansTree, build_tree, node_type
from cvgl.gallery.views import SimulatedViews
from cvgl.gallery.write import Search
from cvgl.imagery import MapSource
from cvgl.model import Model

SIZES = {"tile_size_m": 32.0, "stride_m": 8.0, "basemap_gsd_m": 0.5}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def clustered() -> np.ndarray:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, 24))
    return unit(centres[rng.integers(0, 40, 3000)] + 0.5 * rng.standard_normal((3000, 24)))


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], write_map: Callable[..., Path]
) -> Path:
    """A folder with a model, a map and a gallery with a tree, judged by simulated views too."""
    folder = tmp_path_factory.mktemp("place")
    model = Model.open(write_model(folder))
    with MapSource.open(write_map(folder / "map.tif")) as source:
        views = SimulatedViews(Camera(64, 64, 60.0, 60.0, 31.5, 31.5), source, model)
        build_gallery(source, model, folder / "map.gallery", **SIZES, search=Search(0.97, views, tree=True))
    return folder


@pytest.fixture(scope="module")
def gallery(place: Path) -> Gallery:
    return Gallery.open(place / "map.gallery")


# How recall is measured


@pytest.mark.parametrize(
    ("shares", "recall", "low", "high"),
    [
        ([1.0] * 100, 1.0, 0.963, 1.0),
        ([0.0] * 100, 0.0, 0.0, 0.037),
        ([0.5] * 100, 0.5, 0.4038, 0.5962),
        ([1.0] * 95 + [0.0] * 5, 0.95, 0.8882, 0.9785),
    ],
)
def test_intervals_are_wilsons(shares: list[float], recall: float, low: float, high: float) -> None:
    found = Measured.of("x", 0.5, np.array(shares))
    assert (found.recall, found.count) == (recall, 100)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-4)


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_the_kth_similarity_is_that_of_sorting(count: int, k: int, seed: int) -> None:
    k = min(k, count)
    rng = np.random.default_rng(seed)
    rows, queries = unit(rng.standard_normal((count, 5))), unit(rng.standard_normal((4, 5)))
    found = kth_similarity(queries, lambda start, stop: rows[start:stop], count, k)
    np.testing.assert_allclose(found, np.sort(queries @ rows.T, axis=1)[:, -k], atol=1e-6)


@pytest.mark.parametrize("similarity", [0.5, 0.67, 0.95])
def test_disturbed_tiles_are_as_similar_as_asked(clustered: np.ndarray, similarity: float) -> None:
    rng, again = np.random.default_rng(1), np.random.default_rng(1)
    queries = disturbed(lambda which: clustered[which], len(clustered), 50, rng, similarity)
    tiles = clustered[again.integers(0, len(clustered), 50)]
    np.testing.assert_allclose((queries * tiles).sum(axis=1), similarity, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1.0, atol=1e-5)


def test_a_single_tile_can_be_asked_for() -> None:
    one = unit(np.ones((1, 8)))
    questions = ask(lambda which: one[which], 1)
    assert np.isfinite(questions.queries).all()
    np.testing.assert_allclose(questions.kth, questions.similarity, atol=1e-3)


def test_what_is_as_similar_counts_as_found() -> None:
    queries, kth = np.eye(2, dtype=np.float32), np.array([0.8, 0.6], np.float32)
    shares = found_shares(lambda _: np.array([[0.9, 0.8], [0.7, 0.5]], np.float32), queries, kth)
    assert shares.tolist() == [1.0, 0.5]


def test_what_is_chosen_keeps_a_margin_for_other_queries() -> None:
    assert surely(np.ones(50)) == 1.0
    shares = np.random.default_rng(0).choice([0.9, 1.0], 400)
    assert shares.mean() - 0.005 < surely(shares) < shares.mean() - 0.003


# What follows from it


def fit(path: Path, rows: np.ndarray, target: float) -> dict[str, object]:
    pieces = path.parent / "pieces"
    pieces.mkdir(exist_ok=True)
    questions = [ask(lambda which: rows[which], len(rows))]
    fitting = Fitting(pieces, lambda w: rows[w], *rows.shape, questions, target, lambda done: None)
    return fit_index(path, fitting)


def test_a_higher_target_takes_more_effort(tmp_path: Path, clustered: np.ndarray) -> None:
    low = fit(tmp_path / "low.hnsw", clustered, 0.5)
    high = fit(tmp_path / "high.hnsw", clustered, 0.999)
    assert low["ef"] < high["ef"]  # type: ignore[operator]
    for entry, target in ((low, 0.5), (high, 0.999)):
        recall = entry["recall"]
        assert isinstance(recall, dict) and recall["target"] == target
        assert recall["measured"][0]["recall"] >= target and recall["measured"][0]["queries"] == DISTURBED


def test_where_no_effort_is_enough_a_larger_structure_is_taken_and_what_it_reaches_is_told(
    tmp_path: Path, clustered: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "STRUCTURES", ((2, 10), (3, 10)))
    monkeypatch.setattr(fit_module, "EFFORTS", (20,))
    monkeypatch.setattr(fit_module, "LAST_EFFORTS", (21,))
    entry = fit(tmp_path / "x.hnsw", clustered, 1.0)
    assert (entry["M"], entry["ef"]) == (3, 21)
    assert entry["recall"]["measured"][0]["recall"] < 1.0  # type: ignore[index]


def test_what_was_chosen_before_a_kill_is_taken_up(tmp_path: Path, clustered: np.ndarray) -> None:
    first = fit(tmp_path / "x.hnsw", clustered, 0.9)
    content = (tmp_path / "x.hnsw").read_bytes()
    assert fit(tmp_path / "x.hnsw", clustered, 0.9) == first
    # Killed between choosing and moving the index to its place.
    (tmp_path / "x.hnsw").unlink()
    assert fit(tmp_path / "x.hnsw", clustered, 0.9) == first
    assert (tmp_path / "x.hnsw").read_bytes() == content


# Along the principal axes


@pytest.fixture(scope="module")
def flat() -> np.ndarray:
    """1500 descriptors of 160-d that differ along 40 directions, about a mean."""
    rng = np.random.default_rng(8)
    lift = np.linalg.qr(rng.standard_normal((160, 40)))[0].T
    points = rng.standard_normal((1500, 40)) * np.linspace(1.0, 0.2, 40)
    return unit((rng.standard_normal(160) * 0.1 + points @ lift).astype(np.float32))


def test_the_axes_hold_what_makes_descriptors_differ(flat: np.ndarray) -> None:
    axes = principal_axes(lambda some: flat[some], len(flat))
    assert axes.shape == (1 + AXES, 160)
    np.testing.assert_allclose(axes[1:] @ axes[1:].T, np.eye(AXES), atol=2e-3)
    np.testing.assert_allclose(axes[0], flat.mean(axis=0), atol=1e-3)
    short = along(flat, axes, True)
    np.testing.assert_allclose(short @ axes[1:] + axes[0], flat, atol=5e-3)
    # What the mean adds to a similarity is the same for every tile.
    queries = flat[:7] + flat[7:14]
    missing = queries @ flat.T - along(queries, axes, False) @ short.T
    np.testing.assert_allclose(missing, np.broadcast_to(missing[:, :1], missing.shape), atol=0.02)


def test_a_large_layer_is_searched_along_its_axes_and_compared_whole(
    tmp_path: Path, flat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "NARROW_ABOVE", 1000)
    entry = fit(tmp_path / "index.hnsw", flat, 0.99)
    assert entry["axes"] == AXES and entry["recall"]["measured"][0]["recall"] >= 0.99  # type: ignore[index]
    axes = np.load(tmp_path / "index.axes.npy")
    index = load_index(None, tmp_path / "index.hnsw", AXES, len(flat))
    index.set_ef(1500)
    numbers, similarity = find(index, axes, flat[:30], 5, lambda some: flat[some])
    best = ranking.best_of_all(flat[:30], flat, 5)
    np.testing.assert_array_equal(numbers, best[0])
    np.testing.assert_array_equal(similarity, best[1])
    content = [(tmp_path / name).read_bytes() for name in ("index.hnsw", "index.axes.npy")]
    (tmp_path / "again").mkdir()
    assert fit(tmp_path / "again" / "index.hnsw", flat, 0.99) == entry
    assert [(tmp_path / "again" / name).read_bytes() for name in ("index.hnsw", "index.axes.npy")] == content


def test_where_the_axes_say_too_little_whole_descriptors_are_indexed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "NARROW_ABOVE", 1000)
    rows = unit(np.random.default_rng(1).standard_normal((1500, 400)).astype(np.float32))
    entry = fit(tmp_path / "index.hnsw", rows, 0.9)
    assert "axes" not in entry and not (tmp_path / "index.axes.npy").exists()
    assert entry["recall"]["measured"][0]["recall"] >= 0.9  # type: ignore[index]


def test_a_gallery_with_axes_is_built_searched_checked_and_guarded(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "NARROW_ABOVE", 10)
    whole = Gallery.open(place / "map.gallery")
    made = merge_galleries([whole], tmp_path / "x.gallery")
    assert made.manifest.version == 3 and made.manifest.layers[0].axes == AXES
    queries = np.asarray(whole.descriptors[:9], np.float32)
    np.testing.assert_array_equal(made.approximate(queries, 3)[1], made.exact(queries, 3)[1])
    check_gallery(made.path)
    said = " ".join(CliRunner().invoke(app, ["info", str(made.path)]).stdout.split())
    assert f"along {AXES} axes" in said
    axes = made.path / "index.axes.npy"
    damaged = bytearray(axes.read_bytes())
    damaged[-3] ^= 4
    axes.write_bytes(damaged)
    with pytest.raises(GalleryError, match=r"index\.axes\.npy"):
        Gallery.open(made.path).approximate(queries, 3)
    axes.unlink()
    with pytest.raises(GalleryError, match=r"index\.axes\.npy"):
        Gallery.open(made.path)


@pytest.mark.parametrize("recall", [0.0, -1.0, 1.1, float("nan")])
def test_a_target_that_is_no_share_is_refused(recall: float) -> None:
    with pytest.raises(GalleryError, match="recall"):
        Search(recall)


# What the gallery says of it


def test_the_manifest_says_what_was_measured_and_by_what(gallery: Gallery) -> None:
    layer = gallery.manifest.layers[0]
    assert layer.recall is not None and layer.recall.target == 0.97 and layer.recall.at == 20
    assert [one.queries for one in layer.recall.measured] == [DISTURBED, SIMULATED]
    assert [one.count for one in layer.recall.measured] == [1000, 400]
    assert all(one.low <= one.recall <= one.high and one.recall >= 0.97 for one in layer.recall.measured)
    assert 0.3 < layer.recall.measured[1].similarity < 1.0
    found = check_gallery(gallery.path)
    assert found.queries == DISTURBED and found.recall >= layer.recall.measured[0].low


def test_info_and_check_say_it(place: Path) -> None:
    runner = CliRunner()
    said = " ".join(runner.invoke(app, ["info", str(place / "map.gallery")]).stdout.split())
    assert "target 0.97" in said and "simulated views" in said and "tiles compared" in said
    said = runner.invoke(app, ["check", str(place / "map.gallery")]).stdout
    assert "recall of the index at 20:" in said and "right: tree of layer 0" in said


def test_an_index_worse_than_it_says_is_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Gallery, "approximate", lambda self, queries, k, layer: self.exact(-queries, k, layer))
    with pytest.raises(GalleryError, match=r"index\.hnsw.*misses too much"):
        check_gallery(place / "map.gallery")


def test_a_gallery_that_does_not_say_it_is_read(place: Path, tmp_path: Path) -> None:
    data = json.loads((place / "map.gallery" / "manifest.json").read_text())
    del data["layers"][0]["index"]["recall"]
    (tmp_path / "manifest.json").write_text(json.dumps(seal(data)))
    assert read_manifest(tmp_path).layers[0].recall is None
    data["layers"][0]["index"]["recall"] = {"at": 20, "target": 2.0, "measured": []}
    (tmp_path / "manifest.json").write_text(json.dumps(seal(data)))
    with pytest.raises(GalleryError, match=r"recall\.target"):
        read_manifest(tmp_path)


def test_the_same_build_gives_the_same_bytes(place: Path, tmp_path: Path, gallery: Gallery) -> None:
    model = Model.open(place / "tiny.cvgl")
    with MapSource.open(place / "map.tif") as source:
        views = SimulatedViews(Camera(64, 64, 60.0, 60.0, 31.5, 31.5), source, model)
        again = build_gallery(source, model, tmp_path / "again.gallery", **SIZES, search=Search(0.97, views, tree=True))
    assert again.manifest.data["sha256"] == gallery.manifest.data["sha256"]


# The tree


@pytest.fixture(scope="module")
def tree(clustered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return build_tree(lambda which: clustered[which], *clustered.shape, lambda done: None)


def test_every_tile_is_in_one_leaf(clustered: np.ndarray, tree: tuple[np.ndarray, np.ndarray]) -> None:
    nodes, order_of = tree
    leaves = nodes[nodes["children"] == 0]
    assert leaves["count"].sum() == len(clustered) and (leaves["count"] <= 48).all()
    assert sorted(order_of.tolist()) == list(range(len(clustered)))
    for leaf in leaves[::20]:
        mine = clustered[order_of[leaf["first"] : leaf["first"] + leaf["count"]]]
        assert (
            np.linalg.norm(mine - leaf["centre"], axis=1).mean()
            < np.linalg.norm(clustered - leaf["centre"], axis=1).mean()
        )


def test_a_budget_of_all_tiles_finds_what_exact_search_finds(
    clustered: np.ndarray, tree: tuple[np.ndarray, np.ndarray]
) -> None:
    found = KMeansTree(*tree)
    query = clustered[7]
    assert found.among(query, len(clustered)).tolist() == list(range(len(clustered)))
    some = [len(found.among(query, budget)) for budget in (1, 100, 1000)]
    assert some == sorted(some) and some[1] >= 100 and 7 in found.among(query, 50)


def test_alike_tiles_make_a_leaf_however_many_they_are() -> None:
    rows = np.ones((200, 4), np.float32) / 2
    nodes, order_of = build_tree(lambda which: rows[which], 200, 4, lambda done: None)
    assert len(KMeansTree(nodes, order_of).among(rows[0], 200)) == 200


def test_searching_by_the_tree_agrees_with_exact_search(gallery: Gallery) -> None:
    rng = np.random.default_rng(0)
    queries = disturbed(lambda which: np.asarray(gallery.descriptors[which], np.float32), len(gallery), 20, rng)
    tiles, similarity = gallery.tree(queries, 10, budget=len(gallery))
    exact = gallery.exact(queries, 10)
    assert tiles.tolist() == exact[0].tolist() and similarity.tolist() == exact[1].tolist()
    _, chosen = gallery.tree(queries, 10)
    assert (chosen >= exact[1][:, -1:] - 1e-5).mean() > 0.9


def test_a_gallery_without_a_tree_says_so(place: Path, tmp_path: Path) -> None:
    with MapSource.open(place / "map.tif") as source:
        made = build_gallery(source, Model.open(place / "tiny.cvgl"), tmp_path / "x.gallery", **SIZES)
    with pytest.raises(GalleryError, match="no tree"):
        made.tree(np.asarray(made.descriptors[:1], np.float32), 5)


@pytest.mark.parametrize(("field", "value"), [("first", 0), ("count", 0), ("first", 10**6), ("children", 10**6)])
def test_a_tree_that_leads_nowhere_is_refused(
    clustered: np.ndarray, tree: tuple[np.ndarray, np.ndarray], field: str, value: int
) -> None:
    nodes = tree[0].copy()
    number = 0 if field != "count" else len(nodes) - 1
    nodes[field][number] = value
    with pytest.raises(GalleryError, match="not a tree"):
        KMeansTree(nodes, tree[1])
    assert nodes.dtype == node_type(clustered.shape[1])


def test_few_of_many_are_ordered_as_all_would_be() -> None:
    rng = np.random.default_rng(0)
    rows = unit(rng.standard_normal((300, 6)))
    rows[100:110] = rows[5]
    tiles = rng.permutation(1000)[:300]
    assert all(
        (a == b).all() for a, b in zip(best_few(rows[5], rows, tiles, 12), order(rows[5], rows, tiles, 12), strict=True)
    )


@pytest.mark.parametrize("name", ["tree.npy", "tree_order.npy"])
def test_a_damaged_tree_is_named_when_it_is_used_and_not_before(place: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(place / "map.gallery", tmp_path / "copy.gallery"))
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 16
    (copy / name).write_bytes(content)
    gallery = Gallery.open(copy)
    query = np.asarray(gallery.descriptors[:1], np.float32)
    gallery.search(query, 5)
    with pytest.raises(GalleryError, match=name.replace(".", r"\.")):
        gallery.tree(query, 5)
    with pytest.raises(GalleryError, match=name.replace(".", r"\.")):
        check_gallery(copy)
