"""UAV-VisLoc's tree: its tables, the blank in a file's name, a map in four files, and tiles cut from pixels."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.geo import LocalFrame
from cvgl_train.data.base import DatasetError
from cvgl_train.data.uav_visloc import RANGES, read_uav_visloc

HEADER = "num,filename,date,lat,lon,height,Omega,Kappa,Phi1,Phi2\n"
# Corners of maps of about 400 x 400 m at 32 degrees north. A pixel has equal steps in latitude and longitude.
TOP, LEFT, BOTTOM, RIGHT = 32.0036, 119.0, 32.0, 119.00424
HEIGHT, WIDTH = 180, 212
PHOTO = (12, 16)


def place(row: float, column: float) -> tuple[float, float]:
    """Latitude and longitude of a corner-based pixel of the map."""
    return TOP + row / HEIGHT * (BOTTOM - TOP), LEFT + column / WIDTH * (RIGHT - LEFT)


def write_tif(path: Path, image: np.ndarray, **options: Any) -> None:
    import warnings

    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        bands = image.transpose(2, 0, 1)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=image.shape[1],
            height=image.shape[0],
            count=len(bands),
            dtype=image.dtype,
            **options,
        ) as file:
            file.write(bands)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flights 02, 04, 11 and 09, of which 09's map is in four files; 11's table is short, as 07's is."""
    root = tmp_path_factory.mktemp("visloc") / "UAV_VisLoc_dataset"
    rng = np.random.default_rng(0)
    # Each pixel tells where it is: red counts rows, green columns.
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    photos = [(50.0, 40.0), (100.0, 170.0), (500.0, 40.0)]
    ranges = ["mapname,LT_lat_map,LT_lon_map,RB_lat_map,RB_lon_map,region"]
    for number, flight in enumerate(("02", "04", "09", "11")):
        (root / flight / "drone").mkdir(parents=True)
        picture = np.dstack([rows, columns, np.full_like(rows, number)]).astype(np.uint8)
        if flight == "09":
            half, split = HEIGHT // 2, 100
            for name, part in (
                ("01-01", picture[:half, :split]),
                ("01-02", picture[:half, split:]),
                ("02-01", picture[half:, :split]),
                ("02-02", picture[half:, split:]),
            ):
                write_tif(root / flight / f"satellite09_{name}.tif", part)
        else:
            write_tif(root / flight / f"satellite{flight}.tif", picture)
        ranges.append(f"satellite{flight}.tif,{TOP},{LEFT},{BOTTOM},{RIGHT},Town-{number}")
        lines = []
        for shot, (row, column) in enumerate(photos, start=1):
            name = f"{flight}_{shot:04d}.JPG"
            cv2.imwrite(str(root / flight / "drone" / name), rng.integers(0, 255, (*PHOTO, 3), np.uint8))
            latitude, longitude = place(row, column)
            cells = f"{shot},{name},2021-07-01T10:00:0{shot},{latitude:.8f},{longitude:.8f},{500 + shot}.5"
            lines.append(cells if flight == "11" else f"{cells},0.1,-0.2,90.0,88.0")
        header = "num,filename,date,lat,lon,height\n" if flight == "11" else HEADER
        (root / flight / f"{flight}.csv").write_text(header + "\n".join(lines) + "\n")
    (root / RANGES[0]).write_text("\n".join(ranges) + "\n")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "visloc"
    shutil.copytree(original, copy)
    return copy


def test_reading(original: Path) -> None:
    data = read_uav_visloc(original, "test", tile_m=100.0, stride_m=50.0, tile_px=32)
    # The third photo of each flight lies outside its map.
    assert [source.name for source in data.queries] == [
        f"{flight}/drone/{flight}_000{shot}.JPG" for flight in ("02", "04", "11") for shot in (1, 2)
    ]
    assert data.queries[0].read().shape == (*PHOTO, 3)
    assert data.query_heights is not None and data.query_heights[:2].tolist() == [501.5, 502.5]
    assert data.query_positions is not None and data.reference_positions is not None and data.semi is not None
    assert np.allclose(data.query_positions[0], place(50, 40), atol=1e-7)
    assert len({source.name for source in data.references}) == len(data.references)
    local = LocalFrame(TOP, LEFT)
    tiles = np.column_stack(local.to_local(*data.reference_positions.T))
    for number, position in enumerate(data.query_positions):
        best = int(data.matches[number][0])
        here = np.array(local.to_local(*position))
        # Half a stride away at most, in the flight's own map, and found again by its class.
        assert np.abs(tiles[best] - here).max() <= 25.5
        assert data.references[best].name[:2] == data.queries[number].name[:2]
        assert data.reference_labels[best] == data.query_labels[number]
        own = [i for i, tile in enumerate(data.references) if tile.name[:2] == data.queries[number].name[:2]]
        overlap = [i for i in own if i != best and np.abs(tiles[i] - tiles[best]).max() < 98.0]
        assert data.semi[number].tolist() == overlap
        assert len(overlap) >= 3
    assert data.classes == len(data.queries)


def test_a_tile_shows_where_it_says_it_is(original: Path) -> None:
    for flight, blue in (("04", 1), ("09", 2)):
        data = read_uav_visloc(original, flights=[flight], tile_m=100.0, tile_px=20)
        assert data.reference_positions is not None
        for tile, (latitude, longitude) in zip(data.references, data.reference_positions, strict=True):
            image = tile.read()
            assert image.shape == (20, 20, 3)
            row = (latitude - TOP) / (BOTTOM - TOP) * HEIGHT - 0.5
            column = (longitude - LEFT) / (RIGHT - LEFT) * WIDTH - 0.5
            assert image.reshape(-1, 3).mean(axis=0) == pytest.approx([row, column, blue], abs=0.4)
            # A tile is square on the ground, so it has fewer rows than columns of the map.
            extent = np.ptp(image[..., 0].astype(int)), np.ptp(image[..., 1].astype(int))
            assert extent[0] / extent[1] == pytest.approx(np.cos(np.radians(32.0)), rel=0.06)


def test_tiles_cover_the_map(original: Path) -> None:
    data = read_uav_visloc(original, flights=["2"], tile_m=150.0, stride_m=150.0, tile_px=16)
    windows: Any = data.references
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for window in windows:
        covered[window.row : window.row + window.height, window.column : window.column + window.width] = True
    assert covered.all()
    assert max(w.row + w.height for w in windows) == HEIGHT and max(w.column + w.width for w in windows) == WIDTH


def test_the_file_of_corners_may_have_no_blank(root: Path) -> None:
    (root / RANGES[0]).rename(root / RANGES[1])
    assert len(read_uav_visloc(root, flights=[11], tile_m=100.0).queries) == 2


def edit(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        text = (root / name).read_text()
        assert old in text
        (root / name).write_text(text.replace(old, new, 1))

    return change


def drop(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def other_map(name: str, shape: tuple[int, ...], kind: str) -> Callable[[Path], None]:
    return lambda root: write_tif(root / name, np.zeros(shape, kind))


@pytest.mark.parametrize(
    ("damage", "file", "words"),
    [
        (lambda root: shutil.rmtree(root / "02"), "02", "no such folder"),
        (drop(RANGES[0]), RANGES[0], "no such file"),
        (edit(RANGES[0], "LT_lat_map", "lat"), RANGES[0], "LT_lat_map: missing column"),
        (edit(RANGES[0], "satellite02.tif", "satellite20.tif"), RANGES[0], "satellite02.tif"),
        (edit(RANGES[0], f"{TOP}", "north"), RANGES[0], "line 2, LT_lat_map: not a number"),
        (edit(RANGES[0], f"{TOP}", "31.0"), RANGES[0], "line 2: not the corners"),
        (drop("02/02.csv"), "02/02.csv", "no such file"),
        (edit("02/02.csv", "filename", "name"), "02/02.csv", "filename: missing column"),
        (edit("02/02.csv", ",501.5", ","), "02/02.csv", "line 2, height: not a number"),
        (edit("02/02.csv", ",501.5,0.1,-0.2,90.0,88.0", ""), "02/02.csv", "line 2: cells missing"),
        (edit("02/02.csv", ",32.", ",232."), "02/02.csv", "line 2: no place on Earth"),
        (lambda root: (root / "02/02.csv").write_text(HEADER), "02/02.csv", "no rows"),
        (drop("02/drone/02_0002.JPG"), "02/drone/02_0002.JPG", "no such image"),
        (drop("02/satellite02.tif"), "02/satellite02.tif", "no such file"),
        (lambda root: (root / "02/satellite02.tif").write_bytes(b"II*"), "02/satellite02.tif", "not readable"),
        (other_map("02/satellite02.tif", (HEIGHT, WIDTH, 1), "uint8"), "02/satellite02.tif", "not an RGB image"),
        (other_map("02/satellite02.tif", (HEIGHT, WIDTH, 3), "uint16"), "02/satellite02.tif", "not an RGB image"),
        (drop("09/satellite09_02-01.tif"), "09/satellite09_02-01.tif", "no such file"),
        (other_map("09/satellite09_01-02.tif", (80, 112, 3), "uint8"), "09/satellite09_01-02.tif", "height"),
        (other_map("09/satellite09_02-02.tif", (90, 99, 3), "uint8"), "09/satellite09_02-02.tif", "width"),
    ],
)
def test_damage_is_named(root: Path, damage: Callable[[Path], None], file: str, words: str) -> None:
    damage(root)
    with pytest.raises(DatasetError, match=words) as caught:
        read_uav_visloc(root, flights=["02", "09"], tile_m=100.0)
    assert caught.value.file == root / file


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "val"}, "split"),
        ({"flights": [12]}, "flights"),
        ({"flights": ["x"]}, "flights"),
        ({"flights": []}, "flights"),
        ({"tile_m": 0.0}, "tile_m"),
        ({"tile_m": 900.0}, "no tile fits the map"),
        ({"stride_m": -1}, "stride_m"),
        ({"tile_px": 2.5}, "tile_px"),
    ],
)
def test_unusable_options(original: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        read_uav_visloc(original, **options)


def test_no_photo_over_the_map(root: Path) -> None:
    for flight in ("02",):
        table = root / flight / f"{flight}.csv"
        table.write_text(table.read_text().replace(",119.0", ",118.0"))
    with pytest.raises(DatasetError, match="no query lies in a tile"):
        read_uav_visloc(root, flights=["02"], tile_m=100.0)


def test_a_file_damaged_later_is_named_when_it_is_read(root: Path) -> None:
    data = read_uav_visloc(root, flights=["04"], tile_m=100.0)
    path = root / "04/satellite04.tif"
    size = path.stat().st_size
    with open(path, "r+b") as file:
        file.truncate(size // 2)
    with pytest.raises(DatasetError) as caught:
        [tile.read() for tile in data.references]
    assert caught.value.file == path
