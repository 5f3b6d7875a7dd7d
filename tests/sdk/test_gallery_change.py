"""Galleries of several layers, cut, joined and extended: the same tiles, wherever they came from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from cvgl.cli.gallery import app
from cvgl.errors import GalleryError, MapError
from cvgl.gallery import Gallery, build_gallery, clip_gallery, extend_gallery, merge_galleries
from cvgl.gallery.area import Area
from cvgl.gallery.check import check_gallery
from cvgl.gallery.descriptors import kept_neighbours, restore, store
from cvgl.geo import LocalFrame
from cvgl.imagery import MapSource
from cvgl.model import Model

SIZES: dict[str, Any] = {"tile_size_m": [32.0, 48.0], "stride_m": 16.0, "basemap_gsd_m": 0.5}


@pytest.fixture(scope="module")
def whole(tiny_place: Path) -> Gallery:
    return Gallery.open(tiny_place / "map.gallery")


@pytest.fixture(scope="module")
def model(tiny_place: Path) -> Model:
    return Model.open(tiny_place / "tiny.cvgl")


def polygon(path: Path, local: LocalFrame, corners: list[tuple[float, float]], kind: str = "Polygon") -> Path:
    """A GeoJSON file of a polygon of eastings and northings."""
    latitude, longitude = local.to_wgs84(*np.array([*corners, corners[0]]).T)
    ring = np.stack([longitude, latitude], axis=1).tolist()
    geometry = {"type": "Polygon", "coordinates": [ring]}
    value: dict[str, Any] = geometry
    if kind == "MultiPolygon":
        value = {"type": kind, "coordinates": [[ring]]}
    elif kind == "FeatureCollection":
        value = {"type": kind, "features": [{"type": "Feature", "properties": {}, "geometry": geometry}]}
    path.write_text(json.dumps(value))
    return path


def descriptors_by_place(gallery: Gallery, layer: int = 0) -> dict[tuple[float, float], bytes]:
    among = gallery.manifest.layers[layer]
    rows = np.asarray(gallery.descriptors)[among.first : among.stop]
    places = np.round(gallery.tiles[among.first : among.stop], 3)
    return {(x, y): row.tobytes() for (x, y), row in zip(places.tolist(), rows, strict=True)}


# Layers


def test_layers_are_searched_by_themselves(whole: Gallery) -> None:
    first, second = whole.manifest.layers
    assert (first.tile_size_m, second.tile_size_m) == (32.0, 48.0) and second.stride_m == pytest.approx(24.0)
    assert (first.count, second.first, second.stop) == (first.stop, first.stop, len(whole))
    query = np.asarray(whole.descriptors[second.first : second.first + 1], np.float32)
    for search in (whole.exact, whole.approximate):
        tiles, _ = search(query, 4, 1)
        assert tiles[0, 0] == second.first and (tiles >= second.first).all()
        assert (search(query, 4)[0] < first.stop).all()
    easting, northing = whole.tiles[second.first]
    tiles, _ = whole.near(query, easting, northing, 30.0, 9, 1)
    assert (tiles >= second.first).all()
    assert np.hypot(*(whole.tiles[tiles[0]] - (easting, northing)).T).max() <= 30.0
    assert [whole.layer_for(size) for size in (10.0, 38.0, 40.0, 200.0)] == [0, 0, 1, 1]


def test_a_turned_tile_is_the_ground_turned(tiny_place: Path, model: Model, tmp_path: Path) -> None:
    """Cells of the tile whose up is east are those of the upright one, a quarter turn to the left."""
    with MapSource.open(tiny_place / "map.tif") as source:
        options = {**SIZES, "tile_size_m": 32.0, "headings_deg": (0.0, 90.0, 89.999, 45.0)}
        turned = build_gallery(source, model, tmp_path / "turned.gallery", **options)
    layers = turned.manifest.layers
    assert [layer.heading_deg for layer in layers] == [0.0, 90.0, 89.999, 45.0]
    cells = [np.asarray(turned.descriptors[layer.first], np.float32).reshape(3, 2, 2) for layer in layers]
    np.testing.assert_allclose(cells[1], np.rot90(cells[0], axes=(1, 2)), atol=2e-3)
    # The general way and the quarter turns agree.
    np.testing.assert_allclose(cells[2], cells[1], atol=0.01)
    assert turned.layer_for(32.0) == 0
    check_gallery(turned.path)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_storing_costs_what_the_manifest_says(tiny_place: Path, model: Model, tmp_path: Path, kind: str) -> None:
    with MapSource.open(tiny_place / "map.tif") as source:
        built = build_gallery(source, model, tmp_path / "x.gallery", **SIZES, stored=kind)
    rows = np.asarray(built.descriptors, np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-3)
    told = built.manifest.data["descriptors"]
    assert told["stored"] == kind and 0.999 < told["cosine_least"] <= told["cosine_mean"] <= 1.0
    assert told["neighbours_kept"] > 0.8
    itemsize = {"float16": 2, "int8": 1}[kind]
    assert (built.path / "descriptors.npy").stat().st_size == pytest.approx(rows.size * itemsize, abs=128)
    # Rows are the same one by one, in any order, and all at once.
    np.testing.assert_array_equal(built.descriptors[7], rows[7].astype(built.descriptors.dtype))
    np.testing.assert_array_equal(built.descriptors[[9, 3]], np.asarray(built.descriptors)[[9, 3]])
    tiles, similarity = built.approximate(rows[:5], 3)
    assert tiles[:, 0].tolist() == [0, 1, 2, 3, 4] and similarity[:, 0] == pytest.approx(1.0, abs=1e-3)
    check_gallery(built.path)


def test_int8_keeps_the_neighbours_of_real_descriptors() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(500, 256)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    again = restore(store(rows, "int8"), "int8")
    assert (again * rows).sum(axis=1).min() > 0.9999
    assert kept_neighbours(rows, again) > 0.97
    assert kept_neighbours(rows, rng.permutation(rows)) < 0.1
    assert kept_neighbours(rows[:1], rows[:1]) == 1.0


def test_flags_and_shares_are_told(place: Gallery) -> None:
    table = place.table
    assert (table["valid"] >= 60).all() and (table["valid"] <= 100).all()
    assert ((table["flags"] & 2 > 0) == (table["valid"] < 100)).mean() > 0.95
    west, _, _, north = place.bounds
    lake = place.tiles[(table["flags"] & 1) > 0] - (west, north)
    assert 4 <= len(lake) <= 40
    assert ((lake[:, 0] > 120) & (lake[:, 0] < 245) & (lake[:, 1] > -215) & (lake[:, 1] < -145)).all()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, model: Model, write_map: Callable[..., Path]) -> Gallery:
    """With a lake and a corner without data."""
    folder = tmp_path_factory.mktemp("lake")
    with MapSource.open(write_map(folder / "map.tif")) as source:
        return build_gallery(source, model, folder / "lake.gallery", **{**SIZES, "tile_size_m": 32.0})


# Cutting and joining


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon", "FeatureCollection"])
def test_a_cut_keeps_what_touches_the_area(whole: Gallery, tmp_path: Path, kind: str) -> None:
    west, _, _, north = whole.bounds
    corners = [(west, north), (0.0, north), (0.0, 0.0), (west, 0.0)]
    area = Area.read(polygon(tmp_path / "area.geojson", whole.local, corners, kind), whole.local)
    cut = clip_gallery(whole, area, tmp_path / "cut.gallery")
    check_gallery(cut.path)
    for layer in (0, 1):
        kept, all_of_it = descriptors_by_place(cut, layer), descriptors_by_place(whole, layer)
        half = whole.manifest.layers[layer].tile_size_m / 2
        assert kept.items() < all_of_it.items()
        inside = {place for place in all_of_it if place[0] < half and place[1] > -half}
        assert inside <= kept.keys()
        assert all(x <= 1.5 * half and y >= -1.5 * half for x, y in kept)
    # The basemap lies where it lay.
    column, row = (round(float(v)) for v in cut.basemap.to_pixel(-10.0, 10.0))
    other = tuple(round(float(v)) for v in whole.basemap.to_pixel(-10.0, 10.0))
    np.testing.assert_array_equal(cut.basemap.read(column, row, 9, 9), whole.basemap.read(*other, 9, 9))
    assert cut.manifest.bytes_on_disk < whole.manifest.bytes_on_disk
    assert cut.manifest.attribution == whole.manifest.attribution


def test_what_was_cut_apart_joins_to_the_whole(whole: Gallery, tmp_path: Path) -> None:
    west, south, east, north = whole.bounds
    parts = []
    for number, (low, high) in enumerate(((west, 3.0), (3.0, east))):
        corners = [(low, north), (high, north), (high, south), (low, south)]
        area = Area.read(polygon(tmp_path / f"{number}.geojson", whole.local, corners), whole.local)
        parts.append(clip_gallery(whole, area, tmp_path / f"{number}.gallery"))
    joined = merge_galleries(parts, tmp_path / "joined.gallery")
    check_gallery(joined.path)
    np.testing.assert_array_equal(joined.table, whole.table)
    np.testing.assert_array_equal(np.asarray(joined.descriptors), np.asarray(whole.descriptors))
    for index in ("index.hnsw", "index-1.hnsw"):
        assert (joined.path / index).read_bytes() == (whole.path / index).read_bytes()
    # The rim of the map that no tile reaches is gone, the rest is as it was.
    pixels = np.asarray(joined.basemap.pixels)
    column, row = (round(float(v)) for v in whole.basemap.to_pixel(*joined.basemap.to_local(0, 0)))
    np.testing.assert_array_equal(pixels, whole.basemap.read(column, row, pixels.shape[1], pixels.shape[0]))
    assert pixels.size > 0.85 * np.asarray(whole.basemap.pixels).size


def test_galleries_in_different_planes_join_where_the_ground_is(
    whole: Gallery, tiny_place: Path, model: Model, tmp_path: Path
) -> None:
    latitude, longitude = whole.local.to_wgs84(300.0, -200.0)
    with MapSource.open(tiny_place / "map.tif", LocalFrame(float(latitude), float(longitude))) as source:
        moved = build_gallery(source, model, tmp_path / "moved.gallery", **SIZES)
    west, south, _, north = whole.bounds
    corners = [(west, north), (0.0, north), (0.0, south), (west, south)]
    area = Area.read(polygon(tmp_path / "half.geojson", whole.local, corners), whole.local)
    half = clip_gallery(whole, area, tmp_path / "half.gallery")
    joined = merge_galleries([half, moved], tmp_path / "joined.gallery")
    check_gallery(joined.path)
    assert joined.local == whole.local and abs(len(joined) - len(whole)) < 0.4 * len(whole)
    column, row = (round(float(v)) for v in whole.basemap.to_pixel(*joined.basemap.to_local(0, 0)))
    one = np.asarray(joined.basemap.read(0, 0, 185, 185), int)
    two = np.asarray(whole.basemap.read(column, row, 185, 185), int)
    both = (one > 0) & (two > 0)
    assert both.sum() > 0.95 * (two > 0).sum() and np.abs(one - two)[both].mean() < 3


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tile_size_m": [32.0]}, "layers"),
        ({"stride_m": 8.0}, "layers"),
        ({"stored": "int8"}, "descriptors.stored"),
        ({"model": 0.4}, "model.fingerprint"),
    ],
)
def test_what_does_not_go_together_is_refused(
    whole: Gallery, tiny_place: Path, model: Model, tmp_path: Path, write_model: Callable[..., Path],
    options: dict[str, Any], field: str,
) -> None:  # fmt: skip
    used = Model.open(write_model(tmp_path, options.pop("model"), 2)) if "model" in options else model
    with MapSource.open(tiny_place / "map.tif") as source:
        other = build_gallery(source, used, tmp_path / "other.gallery", **{**SIZES, **options})
    with pytest.raises(GalleryError, match=field):
        merge_galleries([whole, other], tmp_path / "joined.gallery")
    assert not (tmp_path / "joined.gallery").exists()


def halves(tiny_place: Path, tmp_path: Path) -> tuple[Path, Path]:
    """The map as its western and its eastern part, which overlap."""
    paths = tmp_path / "west.tif", tmp_path / "east.tif"
    with rasterio.open(tiny_place / "map.tif") as file:
        for path, first, last in zip(paths, (0, 90), (120, 200), strict=True):
            window = rasterio.windows.Window(first, 0, last - first, 200)
            profile = {**file.profile, "width": last - first, "transform": file.window_transform(window)}
            with rasterio.open(path, "w", **profile) as out:
                out.write(file.read(window=window))
    return paths


def test_adding_a_map_continues_the_grid(tiny_place: Path, model: Model, tmp_path: Path) -> None:
    west, east = halves(tiny_place, tmp_path)
    target = tmp_path / "grown.gallery"
    with MapSource.open(west) as source:
        before = build_gallery(source, model, target, **SIZES)
    old = [descriptors_by_place(before, layer) for layer in (0, 1)]
    with MapSource.open(east, before.local) as source:
        grown = extend_gallery(target, source, model)
        check_gallery(target)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["east.tif", "grown.gallery", "west.tif"]
        for layer in (0, 1):
            now = descriptors_by_place(grown, layer)
            assert old[layer].items() < now.items()
            among = grown.manifest.layers[layer]
            steps = (grown.tiles[among.first : among.stop] - grown.tiles[among.first]) / among.stride_m
            np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
        assert grown.bounds[2] > before.bounds[2] + 30
        # Where both maps are the ground is the same: there is no seam in the basemap.
        assert (np.asarray(grown.basemap.pixels)[100:-12, 12:-12] > 0).mean() > 0.99
        with pytest.raises(GalleryError, match="in the gallery already"):
            extend_gallery(target, source, model)
    assert grown.manifest.source == "west.tif, east.tif"
    with MapSource.open(east) as source, pytest.raises(GalleryError, match="another local tangent plane"):
        extend_gallery(target, source, model)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not readable as JSON"),
        ('{"type": "Point", "coordinates": [1, 2]}', "not a polygon"),
        ('{"type": "FeatureCollection", "features": []}', "no polygon in it"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]}', "not a ring"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1, 900], [3, 3], [0, 0]]]}', "not a ring"),
        ('{"type": "Polygon", "coordinates": [[["a", 0], [1, 1], [3, 3], [0, 0]]]}', "not readable as coordinates"),
        ('{"type": "Polygon", "coordinates": [[[9, 0], [9, 1], [8, 1], [9, 0]]]}', "no tile touches"),
    ],
)
def test_unusable_areas_are_refused(whole: Gallery, tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "area.geojson").write_text(text)
    with pytest.raises((MapError, GalleryError), match=says):
        clip_gallery(whole, Area.read(tmp_path / "area.geojson", whole.local), tmp_path / "cut.gallery")


def test_a_hole_is_outside(tmp_path: Path) -> None:
    local = LocalFrame(50.0, 8.0)
    square = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1)], float)
    rings = []
    for size in (1000.0, 400.0):
        latitude, longitude = local.to_wgs84(*(square * size).T)
        rings.append(np.stack([longitude, latitude], axis=1).tolist())
    (tmp_path / "a.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": rings}))
    area = Area.read(tmp_path / "a.geojson", local)
    places = np.array([(0, 0), (395, 0), (700, 0), (1005, 0), (1100, 0)], float)
    assert area.touches(places, 20.0).tolist() == [False, True, True, True, False]


# By command


def run(*words: object) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def test_build_of_several_maps_clip_merge_and_add_by_command(tiny_place: Path, whole: Gallery, tmp_path: Path) -> None:
    west, east = halves(tiny_place, tmp_path)
    out, tiny = tmp_path / "made.gallery", tiny_place / "tiny.cvgl"
    built = run(
        "build", west, east, "--model", tiny, "--out", out, "--tile-size", 32, "--tile-size", 48, "--stride", 16,
        "--stored", "int8", "--basemap-gsd", 0.5,
    )  # fmt: skip
    assert built.exit_code == 0, built.output
    made = Gallery.open(out)
    assert made.manifest.stored == "int8" and len(made.manifest.layers) == 2
    assert made.manifest.source == "west.tif, east.tif"
    _, south, eastern, north = made.bounds
    corners = [(0.0, north), (eastern, north), (eastern, south), (0.0, south)]
    area = polygon(tmp_path / "area.geojson", made.local, corners)
    clipped = run("clip", out, area, "--out", tmp_path / "cut.gallery")
    assert clipped.exit_code == 0, clipped.output
    merged = run("merge", tmp_path / "cut.gallery", out, "--out", tmp_path / "both.gallery")
    assert merged.exit_code == 0, merged.output
    np.testing.assert_array_equal(Gallery.open(tmp_path / "both.gallery").table, made.table)
    small = run("build", west, "--model", tiny, "--out", tmp_path / "w.gallery", "--clip", area, "--stride", 8)
    assert small.exit_code == 4 or len(Gallery.open(tmp_path / "w.gallery")) > 0
    first = run("build", west, "--model", tiny, "--out", tmp_path / "grown.gallery", "--stride", 16)
    assert first.exit_code == 0, first.output
    added = run("build", east, "--model", tiny, "--out", tmp_path / "grown.gallery", "--add")
    assert added.exit_code == 0, added.output
    assert Gallery.open(tmp_path / "grown.gallery").manifest.source == "west.tif, east.tif"
    shown = run("info", out)
    assert shown.exit_code == 0 and "near a prior" in shown.output and "layer 1" in shown.output
    assert run("build", east, "--model", tiny, "--out", out, "--add", "--stride", 5).exit_code == 2


def test_memory_is_told_before_anything_is_loaded(whole: Gallery) -> None:
    data = json.loads(run("info", whole.path, "--json").output)
    assert 0 < data["memory"]["near"] <= data["memory"]["search"] <= data["memory"]["most"] == data["memory_bytes"]
