"""Galleries: what search finds, that building repeats itself, and that no damage goes unnoticed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from cvgl.cli.gallery import app
from cvgl.errors import GalleryError, MapError
from cvgl.gallery import Gallery, build_gallery, read_manifest
from cvgl.gallery import gallery as gallery_module
from cvgl.gallery.build import plan_grid
from cvgl.gallery.check import check_gallery
from cvgl.gallery.manifest import seal
from cvgl.gallery.parts import NpyWriter
from cvgl.gallery.write import hash_parts
from cvgl.imagery import MapSource
from cvgl.model import Model

SIZE, GRID = 32, 8
PARTS = [
    "tiles.npy", "descriptors.npy", "index.hnsw", "basemap.npy", "basemap_tiles.npy", "overview.jpg", "blocks.sha256",
]  # fmt: skip
SIZES = {"tile_size_m": 32.0, "stride_m": 16.0, "basemap_gsd_m": 0.5}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path], write_map: Callable[..., Path]
) -> Path:
    """A folder with a model, a map and the gallery of both."""
    folder = tmp_path_factory.mktemp("place")
    model = Model.open(write_model(folder))
    with MapSource.open(write_map(folder / "map.tif")) as source:
        build_gallery(source, model, folder / "map.gallery", **SIZES)
    return folder


@pytest.fixture(scope="module")
def model(place: Path) -> Model:
    return Model.open(place / "tiny.cvgl")


@pytest.fixture(scope="module")
def gallery(place: Path, model: Model) -> Gallery:
    return Gallery.open(place / "map.gallery", model)


@pytest.fixture
def copy(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "map.gallery", tmp_path / "copy.gallery"))


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def reseal(path: Path, change: Any) -> None:
    """Change a manifest as somebody would who knows the format."""
    file = path / "manifest.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(seal(data)))


# What is in a gallery


def test_tiles_lie_on_a_grid_over_the_map_and_leave_out_what_has_no_data(gallery: Gallery) -> None:
    west, south, east, north = gallery.bounds
    tiles = np.array(gallery.tiles)
    assert gallery.manifest.stride_m == 16.0 and gallery.manifest.tile_gsd_m == 1.0
    steps = (tiles - tiles[0]) / 16.0
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-9)
    # Centres come within one stride of every edge, half as near where a corner is without data.
    assert tiles[:, 0].min() - west < 16 and east - tiles[:, 0].max() < 16
    assert tiles[:, 1].min() - south < 16 and north - tiles[:, 1].max() < 16
    corner = (tiles[:, 0] < west + 40) & (tiles[:, 1] > north - 35)
    assert not corner.any()
    full = (int((east - west) / 16) + 1) * (int((north - south) / 16) + 1)
    assert 0.75 * full < len(gallery) < full


def test_a_tiles_descriptor_is_that_of_the_map_read_there(place: Path, gallery: Gallery, model: Model) -> None:
    with MapSource.open(place / "map.tif") as source:
        for tile in range(0, len(gallery), 17):
            easting, northing = gallery.tiles[tile]
            rgb, valid = source.read(easting - 16, northing + 16, SIZE, SIZE, 1.0)
            expected = model.embed(np.ascontiguousarray(rgb[None, ..., ::-1]), valid[None], "reference")
            # Half precision, and the reading's own interpolation.
            assert float(gallery.descriptors[tile].astype(np.float32) @ expected[0]) > 0.9995


def test_a_patch_of_the_map_finds_its_tile(place: Path, gallery: Gallery, model: Model) -> None:
    with MapSource.open(place / "map.tif") as source:
        rng = np.random.default_rng(1)
        chosen = rng.choice(len(gallery), 20, replace=False)
        patches, masks = [], []
        for easting, northing in gallery.tiles[chosen] + rng.uniform(-1, 1, (20, 2)):
            rgb, valid = source.read(easting - 16, northing + 16, SIZE, SIZE, 1.0)
            patches.append(rgb[..., ::-1])
            masks.append(valid)
    tiles, similarity = gallery.search(model.embed(np.stack(patches), np.stack(masks)), 5)
    assert (tiles[:, 0] == chosen).mean() >= 0.9
    assert tiles.dtype == np.int64 and similarity.dtype == np.float32
    assert (np.diff(similarity, axis=1) <= 0).all()


def test_the_lake_is_kept(gallery: Gallery) -> None:
    lengths = np.linalg.norm(np.asarray(gallery.descriptors, np.float32), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-3)
    blank = np.asarray(gallery.descriptors, np.float32).reshape(-1, 3, GRID**2).std(axis=2).max(axis=1) < 1e-3
    assert blank.sum() >= 6
    # All of them lie in the lake, 250..480 by 300..420 pixels of half a metre.
    west, _, _, north = gallery.bounds
    east, up = (gallery.tiles[blank] - (west, north)).T
    assert ((east > 125) & (east < 242)).all() and ((up > -212) & (up < -148)).all()


def test_the_manifest_says_where_and_from_what(gallery: Gallery) -> None:
    m, data = gallery.manifest, gallery.manifest.data
    assert (m.source, m.attribution, m.model_name) == ("map.tif", "(c) the [real] makers", "tiny")
    assert m.count == len(gallery) == len(gallery.tiles)
    box = data["bounds_wgs84"]
    assert box["south"] < m.local.latitude < box["north"] and box["west"] < m.local.longitude < box["east"]
    assert set(data["files"]) == set(PARTS)
    assert data["overview"]["file"] == "overview.jpg" and data["overview"]["gsd_m"] == pytest.approx(0.5, rel=0.01)
    assert gallery.basemap.gsd == 0.5 and gallery.basemap.pixels.shape == (m.basemap.height, m.basemap.width)
    assert m.bytes_on_disk == sum((gallery.path / name).stat().st_size for name in PARTS)
    assert f"{len(gallery)} tiles of 32 m every 16 m" in repr(gallery) and "tiny" in repr(gallery)
    assert gallery.memory_bytes > gallery.descriptors.nbytes


@settings(max_examples=60, deadline=None)
@given(
    st.floats(40, 3000),
    st.floats(40, 3000),
    st.floats(20, 200),
    st.floats(5, 100),
    st.sampled_from([64, 128, 224]),
)
def test_any_grid_covers_the_map_with_centres_inside(
    width: float, height: float, size: float, stride: float, pixels: int
) -> None:
    grid = plan_grid((-width / 2, -height / 2, width / 2, height / 2), size, stride, pixels)
    step = grid.stride_px * grid.gsd_m
    assert grid.gsd_m * pixels == pytest.approx(size) and abs(step - stride) <= max(grid.gsd_m, 0.5 * grid.gsd_m)
    west, north = grid.centre(0, 0)
    east, south = grid.centre(grid.columns - 1, grid.rows - 1)
    for first, last, side in ((west, east, width), (south, north, height)):
        assert -side / 2 - 1e-6 <= first <= last + 1e-6 and last <= side / 2 + 1e-6
        assert first + side / 2 < step and abs(first + last) < 1e-6


# Searching


@pytest.fixture(scope="module")
def queries(gallery: Gallery) -> np.ndarray:
    rng = np.random.default_rng(5)
    rows = gallery.descriptors[rng.choice(len(gallery), 12)].astype(np.float32)
    return unit(rows + rng.normal(0, 0.05, rows.shape))


def by_hand(gallery: Gallery, query: np.ndarray, among: np.ndarray, k: int) -> list[int]:
    similarity = (gallery.descriptors[among].astype(np.float64) @ query.astype(np.float64)).astype(np.float32)
    return [int(among[i]) for i in sorted(range(len(among)), key=lambda i: (-similarity[i], among[i]))[:k]]


@pytest.mark.parametrize("k", [1, 7, 10_000])
def test_exact_search_is_the_sorted_list(gallery: Gallery, queries: np.ndarray, k: int) -> None:
    tiles, similarity = gallery.exact(queries, k)
    assert tiles.shape == similarity.shape == (len(queries), min(k, len(gallery)))
    for row, query in zip(tiles, queries, strict=True):
        assert row.tolist() == by_hand(gallery, query, np.arange(len(gallery)), k)


def test_the_index_agrees_with_exact_search_in_answer_and_order(gallery: Gallery, queries: np.ndarray) -> None:
    found, similarity = gallery.approximate(queries, 10)
    tiles, expected = gallery.exact(queries, 10)
    assert gallery.self_check(queries, 10) > 0.99
    same = (found == tiles).all(axis=1)
    assert same.mean() > 0.9
    # The index computes in single precision.
    np.testing.assert_allclose(similarity[same], expected[same], rtol=0, atol=2e-7)


def test_ties_come_in_the_order_of_tiles_however_many_ask(gallery: Gallery) -> None:
    rng = np.random.default_rng(0)
    few = unit(rng.normal(size=(5, gallery.manifest.dimension)))
    repeated = Gallery(
        replace(gallery.manifest, count=1000, layers=(replace(gallery.manifest.layers[0], count=1000),)),
        np.zeros((1000, 2)),
        np.repeat(few, 200, axis=0).astype(np.float16),
        gallery.basemap,
    )
    for batch in (1, 2, 3, 33):
        tiles, similarity = repeated.exact(np.repeat(few[2:3], batch, axis=0), 250)
        assert (tiles[:, :200] == np.arange(400, 600)).all()
        assert (similarity[:, :200] == similarity[0, 0]).all()


def test_large_galleries_use_the_index(gallery: Gallery, queries: np.ndarray, monkeypatch: Any) -> None:
    monkeypatch.setattr(gallery_module, "EXACT_UP_TO", 10)
    opened = Gallery.open(gallery.path)
    assert not opened._indices
    tiles, _ = opened.search(queries, 3)
    assert "index.hnsw" in opened._indices
    assert (tiles == gallery.exact(queries, 3)[0]).mean() > 0.9
    # The unwidened descriptors give the same exact answers.
    np.testing.assert_array_equal(opened.exact(queries, 9)[0], gallery.exact(queries, 9)[0])


@settings(max_examples=40, deadline=None)
@given(st.floats(-200, 200), st.floats(-200, 200), st.floats(0, 300), st.integers(1, 30))
def test_near_is_exact_among_the_tiles_inside(
    gallery: Gallery, queries: np.ndarray, easting: float, northing: float, radius: float, k: int
) -> None:
    tiles, similarity = gallery.near(queries[:2], easting, northing, radius, k)
    distance = np.hypot(gallery.tiles[:, 0] - easting, gallery.tiles[:, 1] - northing)
    inside = np.flatnonzero(distance <= radius)
    assert tiles.shape == similarity.shape == (2, min(k, len(inside)))
    for row, query in zip(tiles, queries, strict=False):
        assert row.tolist() == by_hand(gallery, query, inside, k)


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("place", [(0.0, 0.0), (-40.0, 38.0), (0.0, 55.0), (0.0, 1000.0), (16.0, -1000.0)])
@pytest.mark.parametrize("radius", [0.0, 16.0, 30.0, 2000.0])
def test_near_finds_the_same_before_and_after_all_places_were_read(
    tiny_place: Path, layer: int, place: tuple[float, float], radius: float
) -> None:
    opened = Gallery.open(tiny_place / "map.gallery")
    query = np.full((1, opened.manifest.dimension), opened.manifest.dimension**-0.5, np.float32)
    tiles, similarity = opened.near(query, *place, radius, 50, layer)
    assert "tiles" not in vars(opened)
    assert len(opened.tiles)
    again, same = opened.near(query, *place, radius, 50, layer)
    assert tiles.tolist() == again.tolist() and similarity.tolist() == same.tolist()


@pytest.mark.parametrize("how", ["exact", "approximate", "search"])
def test_no_query_gives_no_answer(gallery: Gallery, how: str) -> None:
    tiles, similarity = getattr(gallery, how)(np.empty((0, gallery.manifest.dimension), np.float32), 4)
    assert tiles.shape == similarity.shape == (0, 4)


@pytest.mark.parametrize(
    ("shape", "value", "k", "says"),
    [
        ((2, 191), 0.1, 1, "another size"),
        ((192,), 0.1, 1, "another size"),
        ((1, 192), np.nan, 1, "not finite"),
        ((1, 192), 0.1, 0, "k: not usable"),
    ],
)
def test_unusable_queries_are_refused(
    gallery: Gallery, shape: tuple[int, ...], value: float, k: int, says: str
) -> None:
    for search in (gallery.search, gallery.approximate, lambda d, k: gallery.near(d, 0, 0, 50, k)):
        with pytest.raises(GalleryError, match=says):
            search(np.full(shape, value, np.float32), k)


# Building


def test_the_same_input_gives_the_same_bytes(place: Path, model: Model, tmp_path: Path) -> None:
    stages: dict[str, list[tuple[int, int]]] = {}
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copy(place / "map.tif", tmp_path / "elsewhere" / "map.tif")
    with MapSource.open(moved) as source:
        built = build_gallery(
            source,
            model,
            tmp_path / "again.gallery",
            **SIZES,
            progress=lambda stage, done, total: stages.setdefault(stage, []).append((done, total)),
        )
    for name in [*PARTS, "manifest.json"]:
        assert (built.path / name).read_bytes() == (place / "map.gallery" / name).read_bytes(), name
    assert list(stages) == ["tiles", "index", "basemap"]
    for calls in stages.values():
        assert calls == sorted(calls) and calls[-1][0] == calls[-1][1] and len({total for _, total in calls}) == 1


def test_strips_do_not_show(place: Path, model: Model, tmp_path: Path, monkeypatch: Any) -> None:
    """A map read in many strips gives the tiles of one read at once."""
    monkeypatch.setattr("cvgl.gallery.grid._PIECE_PIXELS", 1)
    monkeypatch.setattr("cvgl.gallery.pieces._BASEMAP_STRIP", 1)
    with MapSource.open(place / "map.tif") as source:
        built = build_gallery(source, model, tmp_path / "strips.gallery", **SIZES)
    whole = Gallery.open(place / "map.gallery")
    np.testing.assert_array_equal(built.tiles, whole.tiles)
    products = (np.asarray(built.descriptors, np.float32) * np.asarray(whole.descriptors, np.float32)).sum(axis=1)
    assert products.min() > 0.9995
    assert np.abs(np.array(built.basemap.pixels, int) - whole.basemap.pixels).max() <= 1


def test_a_stopped_build_leaves_nothing_and_the_old_gallery_stands(place: Path, model: Model, tmp_path: Path) -> None:
    target = tmp_path / "map.gallery"
    shutil.copytree(place / "map.gallery", target)

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "basemap":
            raise KeyboardInterrupt

    with MapSource.open(place / "map.tif") as source, pytest.raises(KeyboardInterrupt):
        build_gallery(source, model, target, **{**SIZES, "stride_m": 8.0}, progress=stop)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.gallery"]
    assert len(Gallery.open(target, model)) == len(Gallery.open(place / "map.gallery"))


def test_a_killed_build_leaves_no_half_gallery(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "killed.gallery"
    script = (
        "import sys, time\n"
        "from cvgl.gallery import build_gallery\n"
        "from cvgl.imagery import MapSource\n"
        "from cvgl.model import Model\n"
        "def wait(stage, done, total):\n"
        "    if stage == 'index': print('now', flush=True); time.sleep(60)\n"
        "build_gallery(MapSource.open(sys.argv[1]), Model.open(sys.argv[2]), sys.argv[3], tile_size_m=32,\n"
        "              stride_m=16, basemap_gsd_m=0.5, progress=wait)\n"
    )
    command = [sys.executable, "-c", script, str(place / "map.tif"), str(place / "tiny.cvgl"), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "now\n"
        process.kill()
    assert not target.exists()
    with pytest.raises(GalleryError, match="no gallery there"):
        Gallery.open(target)
    with MapSource.open(place / "map.tif") as source:
        build_gallery(source, Model.open(place / "tiny.cvgl"), target, **SIZES)


def test_a_folder_that_is_no_gallery_is_never_replaced(place: Path, model: Model, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with MapSource.open(place / "map.tif") as source, pytest.raises(GalleryError, match="would be replaced"):
        build_gallery(source, model, tmp_path, **SIZES)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tile_size_m": 0}, "tile_size_m: not usable"),
        ({"stride_m": float("nan")}, "stride_m: not usable"),
        ({"basemap_gsd_m": -1}, "basemap_gsd_m: not usable"),
        ({"tile_size_m": 5000}, "no tile has 60%"),
    ],
)
def test_unusable_sizes_are_refused(
    place: Path, model: Model, tmp_path: Path, change: dict[str, float], says: str
) -> None:
    with MapSource.open(place / "map.tif") as source, pytest.raises(GalleryError, match=says):
        build_gallery(source, model, tmp_path / "x.gallery", **{**SIZES, **change})
    assert not list(tmp_path.iterdir())


# Damage


def test_a_gallery_of_another_model_is_refused_by_both_names(
    place: Path, tmp_path: Path, write_model: Callable[..., Path]
) -> None:
    other = Model.open(write_model(tmp_path, mean=0.4))
    with pytest.raises(GalleryError, match=r"model\.fingerprint") as caught:
        Gallery.open(place / "map.gallery", other)
    assert other.fingerprint[:16] in str(caught.value)
    assert read_manifest(place / "map.gallery").model_fingerprint[:16] in str(caught.value)


def use_all(path: Path) -> None:
    """Everything that is ever read of a gallery, as a flight and its report read it."""
    opened = Gallery.open(path)
    query = np.full((1, opened.manifest.dimension), 0.1, np.float32)
    opened.near(query, 0.0, 0.0, 50.0, 3)
    opened.exact(query, 3)
    opened.approximate(query, 3)
    np.asarray(opened.basemap.pixels)
    opened.verified("overview.jpg")


@pytest.mark.parametrize("name", PARTS)
def test_every_damage_to_a_part_is_found_and_named(copy: Path, name: str) -> None:
    path = copy / name
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {0, 1, 5, len(whole) // 2, len(whole) - 1, *rng.integers(0, len(whole), 15).tolist()}
    for place in places:
        path.write_bytes(whole[:place])
        with pytest.raises(GalleryError, match=f"{name}: bytes: truncated"):
            Gallery.open(copy)
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(flipped)
        with pytest.raises(GalleryError, match=f"{name}: sha256: altered"):
            use_all(copy)
        with pytest.raises(GalleryError, match=f"{name}: sha256: altered"):
            check_gallery(copy)
    path.write_bytes(whole + b"\0")
    with pytest.raises(GalleryError, match=f"{name}: bytes"):
        Gallery.open(copy)
    path.unlink()
    with pytest.raises(GalleryError, match=f"{name}: .*absent"):
        Gallery.open(copy)


def test_every_flipped_bit_of_the_manifest_is_found(copy: Path) -> None:
    path = copy / "manifest.json"
    whole = path.read_bytes()
    meaning = json.loads(whole)
    for place in range(0, len(whole), 2):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << (place % 7)
        path.write_bytes(flipped)
        try:
            found = read_manifest(copy).data
        except GalleryError as error:
            assert "manifest.json" in str(error)
        else:  # one white space became another
            assert found == meaning
    for length in range(0, len(whole) - 2, 11):
        path.write_bytes(whole[:length])
        with pytest.raises(GalleryError, match=r"manifest\.json"):
            Gallery.open(copy)


@pytest.mark.parametrize(
    "field",
    [
        "format_version", "sha256", "metric", "model", "model.name", "model.fingerprint", "dimension",
        "count", "layers", "block_bytes", "descriptors", "descriptors.stored", "local",
        "local.latitude", "local.longitude", "bounds", "bounds.west_m", "bounds.north_m", "source",
        "attribution", "basemap", "basemap.gsd_m", "basemap.west", "basemap.tiles", "basemap.tile_px", "overview",
        "overview.file",
        "built_with", "files", "files.tiles.npy", "files.index.hnsw",
    ],
)  # fmt: skip
def test_every_missing_field_is_named(copy: Path, field: str) -> None:
    def remove(data: dict[str, Any]) -> None:
        section, _, name = field.partition(".")
        del (data[section] if name else data)[name or section]

    if field == "sha256":
        file = copy / "manifest.json"
        data = json.loads(file.read_text())
        remove(data)
        file.write_text(json.dumps(data))
    else:
        reseal(copy, remove)
    with pytest.raises(GalleryError, match=rf"manifest\.json: {field}"):
        Gallery.open(copy)


def more_tiles(data: dict[str, Any]) -> None:
    """One more in the manifest than in the table."""
    data["count"] += 1
    data["layers"][0]["count"] += 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(format_version=4), "newer cvgl"),
        (lambda d: d.update(metric="l2"), "metric: not usable"),
        (lambda d: d.update(count=d["count"] + 1), "layers: not usable"),
        (more_tiles, r"tiles\.npy: shape"),
        (lambda d: d.update(dimension=96), r"descriptors\.npy: shape"),
        (lambda d: d["basemap"].update(width=7), r"basemap_tiles\.npy: shape"),
        (lambda d: d["basemap"].update(tiles=7), r"basemap\.npy: shape"),
        (lambda d: d["basemap"].update(file="../basemap.npy"), r"basemap\.file: not usable"),
        (lambda d: d["layers"][0].update(stride_m=0), r"layers\[0\]\.stride_m: not usable"),
        (lambda d: d["layers"][0].update(first=1), r"layers\[0\]\.first: not usable"),
        (lambda d: d["layers"][0]["index"].update(file="other"), r"layers\[0\]\.index\.file: not usable"),
        (lambda d: d["descriptors"].update(stored="int4"), r"descriptors\.stored: not usable"),
        (lambda d: d.update(block_bytes=5), "block_bytes: not usable"),
        (lambda d: d["local"].update(latitude=95), r"local\.latitude: not usable"),
        (lambda d: d["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}), "plain file name"),
    ],
)
def test_a_manifest_that_cannot_be_right_is_refused_by_field(copy: Path, change: Any, says: str) -> None:
    reseal(copy, change)
    with pytest.raises(GalleryError, match=says):
        Gallery.open(copy)


def rewrite(path: Path, name: str, content: np.ndarray) -> None:
    """Replace a part together with its hash."""
    (path / name).unlink()
    if content.dtype == object:
        np.save(path / name, content)
    else:
        with NpyWriter(path / name, content.dtype, content.shape[1:]) as writer:
            writer.write(content)
    rehash(path)


def rehash(path: Path) -> None:
    """Make all hashes fit."""

    def change(data: dict[str, Any]) -> None:
        data["files"] = hash_parts(path, sorted(set(data["files"]) - {"blocks.sha256"}))

    reseal(path, change)


def moved(table: np.ndarray, metres: float) -> np.ndarray:
    table = table.copy()
    table["easting"] += metres
    return table


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("tiles.npy", lambda a: a[::-1], "not in rows"),
        ("tiles.npy", lambda a: moved(a, 1e4), "outside of the map"),
        ("tiles.npy", lambda a: moved(a, np.nan), "outside of the map"),
        ("tiles.npy", lambda a: a["easting"], "another array"),
        ("basemap_tiles.npy", lambda a: a[::-1] - 1, "every tile once"),
        ("basemap_tiles.npy", lambda a: a + 1, "not there"),
        ("basemap.npy", lambda a: a * 0, "is empty"),
        ("descriptors.npy", lambda a: a * np.float16(0.5), "not of unit length"),
        ("descriptors.npy", lambda a: np.roll(a, 1, axis=0), "another descriptor"),
        ("descriptors.npy", lambda a: np.array([None, {}], object), "another array"),
    ],
)
def test_check_finds_what_hashes_cannot(copy: Path, name: str, change: Any, says: str) -> None:
    rewrite(copy, name, change(np.load(copy / name)))
    with pytest.raises(GalleryError, match=says) as caught:
        check_gallery(copy)
    assert name in str(caught.value) or "index.hnsw" in str(caught.value)


def test_check_finds_an_index_of_other_tiles(copy: Path) -> None:
    import hnswlib

    index = hnswlib.Index(space="ip", dim=3 * GRID**2)
    index.init_index(max_elements=5)
    index.add_items(np.eye(5, 3 * GRID**2, dtype=np.float32))
    index.save_index(str(copy / "index.hnsw"))
    rehash(copy)
    with pytest.raises(GalleryError, match=r"index\.hnsw: count"):
        check_gallery(copy)


# The command line


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_build_info_and_check_by_command(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "made.gallery"
    built = run(
        "build", place / "map.tif", "--model", place / "tiny.cvgl", "--out", target, "--stride", 16,
        "--basemap-gsd", 0.5,
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    # The defaults are the sizes that the model was made for.
    for name in PARTS:
        assert (target / name).read_bytes() == (place / "map.gallery" / name).read_bytes()
    info = run("info", target)
    assert info.exit_code == 0 and "(c) the [real] makers" in info.output and "32" in info.output
    data = json.loads(run("info", target, "--json").output)
    assert data["count"] == len(Gallery.open(target)) and data["memory_bytes"] > 0
    checked = run("check", target, "--model", place / "tiny.cvgl")
    assert checked.exit_code == 0 and "recall" in checked.output


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["check", "copy"], 4, "index.hnsw"),
        (["info", "absent"], 4, "no gallery there"),
        (["build", "absent.tif", "--model", "MODEL", "--out", "x"], 4, "no such file"),
        (["build", "MAP", "--model", "absent.cvgl", "--out", "x"], 4, "no model bundle"),
        (["build", "MAP", "--model", "MODEL", "--out", "x", "--stride", "-3"], 2, "--stride"),
        (["build", "MAP", "--model", "MODEL"], 2, "--out"),
        (["check"], 2, "GALLERY"),
    ],
)
def test_exit_statuses(place: Path, copy: Path, tmp_path: Path, arguments: list[str], status: int, says: str) -> None:
    damaged = bytearray((copy / "index.hnsw").read_bytes())
    damaged[100] ^= 8
    (copy / "index.hnsw").write_bytes(damaged)
    names = {"copy": str(copy), "MAP": str(place / "map.tif"), "MODEL": str(place / "tiny.cvgl")}
    command = [sys.executable, "-c", "from cvgl.cli.gallery import app_main; app_main()"]
    done = subprocess.run(
        [*command, *(names.get(argument, argument) for argument in arguments)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert says in done.stderr and "Traceback" not in done.stderr
    if status == 4:
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_help_teaches() -> None:
    for command in ([], ["build"], ["info"], ["check"]):
        shown = run(*command, "--help")
        assert shown.exit_code == 0
        assert "gallery" in shown.output.lower()


def test_flying_needs_no_gdal(place: Path) -> None:
    script = (
        "import sys\n"
        "from cvgl.gallery import Gallery\n"
        "from cvgl.model import Model\n"
        f"Gallery.open({str(place / 'map.gallery')!r}, Model.open({str(place / 'tiny.cvgl')!r}))\n"
        "print(sorted({'rasterio', 'hnswlib', 'torch', 'rich', 'typer', 'jinja2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_map_that_breaks_off_while_it_is_read_leaves_nothing(place: Path, model: Model, tmp_path: Path) -> None:
    path = Path(shutil.copy(place / "map.tif", tmp_path / "map.tif"))
    with MapSource.open(path) as source:
        path.write_bytes(path.read_bytes()[:200_000])
        with pytest.raises(MapError, match=r"map\.tif"):
            build_gallery(source, model, tmp_path / "x.gallery", **SIZES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["map.tif"]
