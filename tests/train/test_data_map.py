"""A map against itself: views that repeat, parts that share no ground, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.imagery import MapSource
from cvgl_train.data.base import CrossViewSet, DatasetError
from cvgl_train.data.map import read_map_set

SMALL: dict[str, Any] = {"tile_m": 60.0, "tile_px": 32, "views": 2}


def local(data: CrossViewSet, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Easting and northing of queries and references."""
    with MapSource.open(path) as source:
        found = [
            np.column_stack(source.local.to_local(*positions.T))
            for positions in (data.query_positions, data.reference_positions)
            if positions is not None
        ]
    return found[0], found[1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_reading(town: Path, split: str) -> None:
    path = town / "map.tif"
    data = read_map_set(path, split, **SMALL)
    assert len(data.queries) == 2 * len(data.references) > 10
    assert data.queries[0].read().shape == data.references[0].read().shape == (32, 32, 3)
    assert len({source.name for source in data.queries}) == len(data.queries)
    views, tiles = local(data, path)
    for number, indices in enumerate(data.matches):
        assert indices.tolist() == [number // 2]
        assert 0 < np.abs(views[number] - tiles[number // 2]).max() <= 7.51
        assert data.query_labels[number] == data.reference_labels[number // 2]
    # Tiles that only touch are negatives of each other.
    assert data.semi is not None and all(len(found) == 0 for found in data.semi)


def test_overlapping_tiles_are_no_negatives(town: Path) -> None:
    data = read_map_set(town / "map.tif", "train", stride_m=30.0, **SMALL)
    assert data.semi is not None and max(len(found) for found in data.semi) == 8


def test_parts_share_no_ground(town: Path) -> None:
    path = town / "map.tif"
    (train, train_tiles), (test, test_tiles) = (
        local(read_map_set(path, split, **SMALL), path) for split in ("train", "test")
    )
    with MapSource.open(path) as source:
        west, south, east, north = source.bounds
    axis = 0 if east - west >= north - south else 1
    order = 1 if axis == 0 else -1
    gap = (order * test_tiles[:, axis]).min() - (order * train_tiles[:, axis]).max()
    assert gap >= 2 * SMALL["tile_m"] - 0.01
    assert (order * test[:, axis]).min() - (order * train[:, axis]).max() > 1.7 * SMALL["tile_m"]


def test_views_repeat_and_differ(town: Path) -> None:
    one, again = (read_map_set(town / "map.tif", **SMALL) for _ in range(2))
    assert np.array_equal(one.queries[3].read(), again.queries[3].read())
    assert np.array_equal(one.queries[3].read(), pickle.loads(pickle.dumps(one.queries[3])).read())
    assert not np.array_equal(one.queries[2].read(), one.queries[3].read())
    other = read_map_set(town / "map.tif", seed=1, **SMALL)
    assert not np.array_equal(one.queries[3].read(), other.queries[3].read())


def test_a_view_is_where_it_says_it_is(town: Path) -> None:
    """Without changes of light it is, but for errors of the pose, the map around its position."""
    from cvgl_train.data.windows import MapWindow

    path = town / "map.tif"
    data = read_map_set(path, tile_m=80.0, tile_px=64, light=0.0, views=1)
    views, _ = local(data, path)
    for query, (easting, northing) in zip(data.queries[:6], views.tolist(), strict=False):
        view = query.read().astype(float)
        map_there = MapWindow(path, easting - 40, northing + 40, 80.0, 64).read().astype(float)
        middle = np.s_[20:44, 20:44]
        pair = [cv2.GaussianBlur(image, (0, 0), 2.0)[middle].mean(axis=2).ravel() for image in (view, map_there)]
        assert np.corrcoef(pair)[0, 1] > 0.6


def test_the_camera_sets_the_tile(town: Path) -> None:
    data = read_map_set(town / "map.tif", camera=town / "flight" / "camera.yaml", height_m=60.0, tile_px=32, views=1)
    tile: Any = data.references[0]
    assert tile.size_m == pytest.approx(0.9 * 60 * 1.2017 * np.sqrt(0.75), rel=0.01)
    assert data.query_heights is not None and set(data.query_heights) == {60.0}


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    import rasterio

    with rasterio.open(
        path, "w", driver="GTiff", width=image.shape[1], height=image.shape[0], count=3, dtype="uint8", **options
    ) as file:
        file.write(image.transpose(2, 0, 1))
    return path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "all"}, "split"),
        ({"tile_m": 0}, "tile_m"),
        ({"tile_m": 300.0}, "too small for a tile"),
        ({"stride_m": float("nan")}, "stride_m"),
        ({"tile_px": 0}, "tile_px"),
        ({"views": 0}, "views"),
        ({"test_share": 1.2}, "test_share"),
        ({"test_share": 0.0}, "too small"),
        ({"light": -1.0}, "light"),
        ({"seed": -1}, "seed"),
        ({"height_m": -5.0}, "height_m"),
        ({"camera": "/nowhere/camera.yaml"}, "no such file"),
    ],
)
def test_unusable_options(town: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_map_set(town / "map.tif", **{**SMALL, **options})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_unusable_maps(tmp_path: Path) -> None:
    bare = write(tmp_path / "bare.tif", np.full((80, 80, 3), 90, np.uint8))
    torn = tmp_path / "torn.tif"
    torn.write_bytes(b"II*\x00nothing")
    for path, words in (
        (tmp_path / "absent.tif", "no such file"),
        (bare, "no georeference"),
        (torn, "not readable"),
    ):
        with pytest.raises(DatasetError, match=words) as caught:
            read_map_set(path, **SMALL)
        assert caught.value.file == path
