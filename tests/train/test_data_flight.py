"""A flight folder over a map as a dataset: what frames match, how they are rectified, and what is refused."""

from __future__ import annotations

import csv
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cvgl.imagery import MapSource
from cvgl_train.data.base import DatasetError
from cvgl_train.data.flight import read_flight_set

TILE = {"tile_m": 70.0, "stride_m": 35.0, "tile_px": 48}


@pytest.fixture
def flight(town: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "flight"
    shutil.copytree(town / "flight", copy)
    return copy


def rewrite(flight: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    with open(flight / "frames.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    change(rows)
    with open(flight / "frames.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_reading(town: Path) -> None:
    data = read_flight_set(town / "flight", map=town / "map.tif", **TILE)
    assert len(data.queries) == 10 and len(data.references) > 100
    assert data.semi is not None and data.reference_positions is not None and data.query_positions is not None
    assert data.query_heights is not None and ((data.query_heights > 70) & (data.query_heights < 90)).all()
    assert data.queries[0].read().shape == data.references[0].read().shape == (48, 48, 3)
    with MapSource.open(town / "map.tif") as source:
        tiles = np.column_stack(source.local.to_local(*data.reference_positions.T))
        frames = np.column_stack(source.local.to_local(*data.query_positions.T))
    for number in range(10):
        best = data.matches[number][0]
        apart = np.linalg.norm(tiles - frames[number], axis=1)
        assert apart[best] == apart.min() < 26
        overlapping = np.abs(tiles - tiles[best]).max(axis=1) < 68
        assert sorted([*data.semi[number], best]) == np.flatnonzero(overlapping).tolist()
        assert data.reference_labels[best] == data.query_labels[number]


def test_a_rectified_frame_lies_on_its_tile(town: Path) -> None:
    """North up and to scale: it is more like the map around its position than like the map elsewhere."""
    from cvgl_train.data.windows import MapWindow

    def grey(image: np.ndarray) -> np.ndarray:
        small = image.astype(float).mean(axis=2)
        return (small - small.mean()).ravel()

    data = read_flight_set(town / "flight", map=town / "map.tif", **TILE)
    assert data.query_positions is not None
    alike = []
    with MapSource.open(town / "map.tif") as source:
        places = np.column_stack(source.local.to_local(*data.query_positions.T))
    for query, (easting, northing) in zip(data.queries, places.tolist(), strict=True):
        frame = grey(query.read())
        scores = []
        for east, north in ((0, 0), (40, 0), (-40, 0), (0, 40), (0, -40)):
            tile = MapWindow(town / "map.tif", easting + east - 35, northing + north + 35, 70.0, 48).read()
            scores.append(float(np.corrcoef(frame, grey(tile))[0, 1]))
        alike.append(int(np.argmax(scores)) == 0)
    assert sum(alike) >= 9


def test_tiles_suit_the_camera_by_default(town: Path) -> None:
    data = read_flight_set(town / "flight", map=town / "map.tif")
    assert data.references[0].read().shape == (256, 256, 3)
    tile: Any = data.references[0]
    assert tile.size_m == pytest.approx(0.9 * 80 * 1.2017 * np.sqrt(0.75), rel=0.05)


def test_frames_as_they_are(town: Path) -> None:
    data = read_flight_set(town / "flight", map=town / "map.tif", rectify=False, **TILE)
    assert data.queries[0].read().shape == (480, 640, 3)


def test_train_and_test_are_parts_of_the_flight(town: Path) -> None:
    def names(split: str) -> list[str]:
        data = read_flight_set(town / "flight", split, map=town / "map.tif", train_share=0.3, **TILE)
        return [source.name for source in data.queries]

    assert len(names("train")) == 3
    assert names("train") + names("test") == [f"frame_{number:04d}.jpg" for number in range(1, 11)]


def test_without_image_centres_the_attitude_tells_where_the_camera_looks(town: Path, flight: Path) -> None:
    def strip(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["image_center_latitude"] = ""

    rewrite(flight, strip)
    found = [
        read_flight_set(folder, map=town / "map.tif", **TILE).query_positions for folder in (town / "flight", flight)
    ]
    # The camera hangs level to within a degree or two: some metres.
    assert np.abs(found[0] - found[1]).max() < 6e-5
    text = (flight / "camera.yaml").read_text()
    (flight / "camera.yaml").write_text(text.replace("pitch_deg: 0.0", "pitch_deg: 20.0"))
    tilted = read_flight_set(flight, map=town / "map.tif", rectify=True, **TILE).query_positions
    metres = np.linalg.norm((tilted - found[1]) * [111_200, 75_900], axis=1)
    assert metres == pytest.approx(80 * np.tan(np.radians(20.0)), rel=0.1)


def test_frames_without_a_position_or_outside_the_map_are_left_out(town: Path, flight: Path) -> None:
    def change(rows: list[dict[str, str]]) -> None:
        for name in ("image_center_latitude", "gps_latitude"):
            rows[0][name] = ""
            rows[1][name] = "48.0"

    rewrite(flight, change)
    data = read_flight_set(flight, map=town / "map.tif", **TILE)
    assert data.queries[0].name == "frame_0003.jpg"
    assert len(data.queries) == 8


def test_sources_travel_to_other_processes(town: Path) -> None:
    data = read_flight_set(town / "flight", map=town / "map.tif", **TILE)
    for source in (data.queries[0], data.references[5]):
        assert np.array_equal(pickle.loads(pickle.dumps(source)).read(), source.read())


def clear(*names: str) -> Callable[[Path], None]:
    def change(rows: list[dict[str, str]]) -> None:
        for row in rows:
            for name in names:
                row[name] = ""

    return lambda flight: rewrite(flight, change)


def put(name: str, value: str) -> Callable[[Path], None]:
    return lambda flight: rewrite(flight, lambda rows: rows[2].update({name: value}))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "no such flight"),
        (lambda flight: (flight / "frames.csv").write_text("file,time\n"), "height_above_takeoff_m"),
        (put("yaw_deg", "north"), "row 4: yaw_deg: not a number"),
        (put("height_above_takeoff_m", ""), "row 4: height_above_takeoff_m: missing"),
        (put("yaw_deg", ""), "frame_0003.jpg, yaw_deg"),
        (put("file", "frame_0099.jpg"), "frame_0099.jpg.*no such image"),
        (clear("gps_latitude", "image_center_longitude"), "no frame with a position"),
        (lambda flight: (flight / "camera.yaml").unlink(), "camera.yaml"),
        (lambda flight: (flight / "camera.yaml").write_text("width: 3\n"), "height: missing field"),
    ],
)
def test_damage_is_named(town: Path, flight: Path, damage: Callable[[Path], None], words: str) -> None:
    damage(flight)
    with pytest.raises(DatasetError, match=words):
        read_flight_set(flight, map=town / "map.tif", **TILE)


def test_a_damaged_frame_is_named_when_it_is_read(town: Path, flight: Path) -> None:
    image = flight / "frames/frame_0001.jpg"
    image.write_bytes(image.read_bytes()[:2000])
    for rectify in (True, False):
        query = read_flight_set(flight, map=town / "map.tif", rectify=rectify, **TILE).queries[0]
        with pytest.raises(DatasetError, match="truncated") as caught:
            query.read()
        assert caught.value.file == image


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"map": None}, "map: must be given"),
        ({"map": "/nowhere/map.tif"}, "no such file"),
        ({"split": "val"}, "split"),
        ({"split": "train"}, "no frame"),
        ({"camera": "/nowhere/camera.yaml"}, "no such file"),
        ({"tile_m": -1.0}, "tile_m"),
        ({"stride_m": 0.0}, "stride_m"),
        ({"tile_px": 0}, "tile_px"),
        ({"train_share": 2.0}, "train_share"),
        ({"tile_m": 5000.0}, "no tile"),
    ],
)
def test_unusable_options(town: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_flight_set(town / "flight", **{"map": town / "map.tif", **TILE, **options})


def test_a_flight_elsewhere_matches_nothing(town: Path, flight: Path) -> None:
    def move(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["image_center_latitude"] = "48.0"

    rewrite(flight, move)
    with pytest.raises(DatasetError, match="no query lies in a tile"):
        read_flight_set(flight, map=town / "map.tif", **TILE)


@pytest.mark.data
def test_a_real_flight(cvgl_data: Path) -> None:
    folder = cvgl_data / "flights" / "fengyuan"
    data = read_flight_set(folder, map=folder / "map.tif", tile_m=80.0, tile_px=64, rectify=False)
    assert len(data.queries) >= 10
    assert data.queries[0].read().ndim == data.references[0].read().ndim == 3
    assert data.query_heights is not None and 100 < np.median(data.query_heights) < 140
