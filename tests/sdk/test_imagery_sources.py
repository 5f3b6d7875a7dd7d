"""Imagery of every kind that users have shows the same ground at the same place."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_bounds
from rasterio.warp import reproject, transform

from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.imagery import MapSource

UTM = "EPSG:32630"
SIZE, GSD = 600, 0.5
HALF = math.pi * 6378137.0


def ground(seed: int = 0) -> np.ndarray:
    """(SIZE, SIZE, 3) smooth texture."""
    rng = np.random.default_rng(seed)
    image = sum(
        cv2.resize(rng.normal(0, 1, (SIZE // cell, SIZE // cell, 3)).astype(np.float32), (SIZE, SIZE), interpolation=2)
        * weight
        for cell, weight in ((60, 40), (20, 30))
    )
    return np.clip(np.asarray(image) + 125, 10, 250).astype(np.uint8)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ground as a plain GeoTIFF."""
    path = tmp_path_factory.mktemp("truth") / "truth.tif"
    with rasterio.open(
        path, "w", driver="GTiff", width=SIZE, height=SIZE, count=3, dtype="uint8", crs=UTM,
        transform=Affine(GSD, 0, 607_000.0, 0, -GSD, 5_776_000.0),
    ) as file:  # fmt: skip
        file.write(ground().transpose(2, 0, 1))
    return path


def mercator_tiles(truth: Path, folder: Path, zoom: int, suffix: str = ".png", tms: bool = False) -> Path:
    """The ground as web map tiles of 256 pixels."""
    with rasterio.open(truth) as file:
        data = file.read()
        xs, ys = transform(
            UTM, "EPSG:3857", *zip(*[file.xy(r, c) for r in (0, SIZE - 1) for c in (0, SIZE - 1)], strict=True)
        )
        size = 2 * HALF / 2**zoom
        for column in range(int((min(xs) + HALF) // size), int((max(xs) + HALF) // size) + 1):
            for row in range(int((HALF - max(ys)) // size), int((HALF - min(ys)) // size) + 1):
                west, north = column * size - HALF, HALF - row * size
                tile = np.zeros((4, 256, 256), np.uint8)
                reproject(
                    np.concatenate([data, np.full((1, SIZE, SIZE), 255, np.uint8)]), tile,
                    src_transform=file.transform, src_crs=UTM, dst_crs="EPSG:3857", src_alpha=4, dst_alpha=4,
                    dst_transform=from_bounds(west, north - size, west + size, north, 256, 256),
                    resampling=Resampling.cubic, tolerance=0.02,
                )  # fmt: skip
                target = folder / str(zoom) / str(column) / f"{2**zoom - 1 - row if tms else row}{suffix}"
                target.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(target), cv2.cvtColor(tile.transpose(1, 2, 0), cv2.COLOR_RGBA2BGRA))
    return folder


def degrees(truth: Path) -> tuple[np.ndarray, tuple[float, float, float, float]]:
    """The ground as (H, W, 3) over degrees, and its west, south, east, north."""
    with rasterio.open(truth) as file:
        b = file.bounds
        lon, lat = transform(UTM, "EPSG:4326", [b.left, b.right, b.left, b.right], [b.top, b.top, b.bottom, b.bottom])
        west, south, east, north = max(lon[0], lon[2]), max(lat[2:]), min(lon[1], lon[3]), min(lat[:2])
        out = np.zeros((3, SIZE, SIZE), np.uint8)
        reproject(
            file.read(), out, src_transform=file.transform, src_crs=UTM, dst_crs="EPSG:4326",
            dst_transform=from_bounds(west, south, east, north, SIZE, SIZE), resampling=Resampling.cubic,
            tolerance=0.02,
        )  # fmt: skip
    return out.transpose(1, 2, 0), (west, south, east, north)


def image_folder(truth: Path, folder: Path, header: str, suffix: str = ".png") -> Path:
    """The ground as four images with a table of their corners; one more in the table, and its file absent."""
    picture, (west, south, east, north) = degrees(truth)
    folder.mkdir()
    lines, half = [header], SIZE // 2
    for number, (row, column) in enumerate((r, c) for r in (0, 1) for c in (0, 1)):
        cv2.imwrite(
            str(folder / f"part {number}{suffix}"),
            picture[row * half : (row + 1) * half, column * half : (column + 1) * half, ::-1],
        )
        middle_lat, middle_lon = (south + north) / 2, (west + east) / 2
        top, bottom = (north, middle_lat) if row == 0 else (middle_lat, south)
        left, right = (west, middle_lon) if column == 0 else (middle_lon, east)
        lines.append(f'"part {number}.png",   {top!r},    {left!r},  {bottom!r},   {right!r}')
    lines.append(f'"absent.png", {north + 1!r}, {west!r}, {north!r}, {east!r}')
    (folder / "bounds.csv").write_text("\r\n".join(lines))
    (folder / "attribution.txt").write_text("(c) somebody\n")
    return folder


HEADER = "Filename, Top_left_lat,Top_left_lon,Bottom_right_lat,Bottom_right_long"


def make(kind: str, truth: Path, folder: Path) -> Path:
    """The ground as one kind of map."""
    if kind in ("xyz", "xyz jpeg"):
        return mercator_tiles(truth, folder / "tiles", 18, ".png" if kind == "xyz" else ".jpg")
    if kind == "tms":
        mercator_tiles(truth, folder / "tiles", 18, tms=True)
        (folder / "tiles" / "metadata.json").write_text(json.dumps({"scheme": "tms", "attribution": "(c) somebody"}))
        return folder / "tiles"
    if kind == "images":
        return image_folder(truth, folder / "images", HEADER)
    if kind == "images named otherwise":
        return image_folder(truth, folder / "images", "file,north,west,south,east", ".jpg")
    path = folder / {"cog": "map.tif", "vrt": "map.vrt", "mbtiles": "map.mbtiles", "gpkg": "map.gpkg"}[kind]
    with rasterio.open(truth) as file:
        data, profile = file.read(), file.profile
    if kind == "vrt":
        from rasterio.shutil import copy

        copy(truth, path, driver="VRT")
    elif kind == "cog":
        from rasterio.shutil import copy

        copy(truth, path, driver="COG", compress="deflate", blocksize=128, overview_resampling="average")
    elif kind == "gpkg":
        profile.update(driver="GPKG")
        with rasterio.open(path, "w", **{k: v for k, v in profile.items() if k in GPKG}, tile_format="PNG") as out:
            out.write(data)
    elif kind == "mbtiles":
        from rasterio.shutil import copy

        copy(truth, path, driver="MBTiles", tile_format="PNG", zoom_level_strategy="upper")
    return path


GPKG = ("driver", "width", "height", "count", "dtype", "crs", "transform")
KINDS = ["xyz", "xyz jpeg", "tms", "images", "images named otherwise", "cog", "vrt", "mbtiles", "gpkg"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_shows_the_ground_where_it_is(truth: Path, tmp_path: Path, kind: str) -> None:
    with MapSource.open(truth) as right, MapSource.open(make(kind, truth, tmp_path), right.local) as source:
        assert source.local == right.local
        assert source.native_gsd == pytest.approx(GSD, rel=0.5)
        for gsd in (1.0, 2.5):
            window = -80.3, 70.7, int(150 / gsd), int(140 / gsd), gsd
            expected, _ = right.read(*window)
            rgb, valid = source.read(*window)
            assert valid.all() and rgb.shape == expected.shape
            # A tenth of a window's pixel is what the texture below would show as about two grey levels.
            shift, response = cv2.phaseCorrelate(
                expected.mean(axis=2).astype(np.float64), rgb.mean(axis=2).astype(np.float64)
            )
            assert np.hypot(*shift) < 0.15 and response > 0.5, (gsd, shift)
            assert np.abs(rgb.astype(int) - expected).mean() < 6
        west, _, _, north = source.bounds
        rgb, valid = source.read(west - 30, north + 30, 40, 40, 1.0)
        assert not valid[:25, :25].any() and (rgb[~valid] == 0).all()
        assert len(source.identity()) == 64


@pytest.mark.parametrize("kind", KINDS)
def test_windows_of_every_kind_join_without_a_seam(truth: Path, tmp_path: Path, kind: str) -> None:
    with MapSource.open(make(kind, truth, tmp_path)) as source:
        whole, valid = source.read(-60.0, 60.0, 150, 120, 0.8)
        parts = [source.read(-60.0, 60.0 - 0.8 * top, 150, 40, 0.8)[0] for top in (0, 40, 80)]
    assert valid.all()
    assert np.abs(np.concatenate(parts).astype(int) - whole).max() <= 2


def test_attribution_and_identity(truth: Path, tmp_path: Path) -> None:
    tms, images = make("tms", truth, tmp_path), make("images", truth, tmp_path)
    for path in (tms, images):
        with MapSource.open(path) as source:
            assert source.attribution == "(c) somebody"
            assert source.identity() == source.identity()
            before = source.identity()
        changed = next(file for file in sorted(path.rglob("*.png")))
        cv2.imwrite(str(changed), cv2.imread(str(changed)) // 2 + 3)
        with MapSource.open(path) as source:
            assert source.identity() != before


def test_coarser_levels_serve_windows_that_reduce(truth: Path, tmp_path: Path) -> None:
    tiles = mercator_tiles(truth, tmp_path / "tiles", 18)
    mercator_tiles(truth, tiles, 15)
    with MapSource.open(tiles) as source:
        fine, _ = source.read(-60, 60, 24, 24, 5.0)
        shutil.rmtree(tiles / "18")
        # What was read is remembered; a window of 5 m/px needs level 15 alone.
        coarse, valid = source.read(-60, 60, 24, 24, 20.0)
    assert valid[:6, :6].all() and abs(int(coarse[:6, :6].mean()) - int(fine.mean())) < 6


def test_the_first_of_several_maps_counts_and_the_next_fills_it(truth: Path, tmp_path: Path) -> None:
    """Another picture with a hole, over the ground."""
    other = tmp_path / "other.tif"
    with rasterio.open(truth) as file:
        profile = {**file.profile, "nodata": 0}
    picture = ground(5)
    picture[200:400, 200:400] = 0
    with rasterio.open(other, "w", **profile) as file:
        file.write(picture.transpose(2, 0, 1))
        file.update_tags(ATTRIBUTION="(c) other")
    images = make("images", truth, tmp_path)
    with (
        MapSource.open(other) as first,
        MapSource.open(images, first.local) as second,
        MapSource.open([other, images]) as both,
    ):
        window = -70.0, 70.0, 140, 140, 1.0
        (rgb, valid), (one, there), (two, _) = both.read(*window), first.read(*window), second.read(*window)
        assert valid.all() and not there.all()
        np.testing.assert_array_equal(rgb[there], one[there])
        np.testing.assert_array_equal(rgb[~there], two[~there])
        assert both.attribution == "(c) other; (c) somebody" and both.source == "other.tif, images"
        assert both.local == first.local and both.bounds[0] <= first.bounds[0]
    with pytest.raises(MapError, match=r"absent\.tif: no such file"):
        MapSource.open([other, tmp_path / "absent.tif"])


def test_a_plane_may_be_given(truth: Path) -> None:
    with MapSource.open(truth) as own:
        _, south, _, north = own.bounds
        latitude, longitude = own.local.to_wgs84(0.0, 0.0)
        local = LocalFrame(float(latitude) + 0.01, float(longitude))
        middle, _ = own.read(-20, 20, 40, 40, 1.0)
    with MapSource.open(truth, local) as moved:
        assert (moved.bounds[1] + moved.bounds[3]) / 2 == pytest.approx((south + north) / 2 - 1112.6, abs=2)
        easting, northing = (float(v) for v in local.to_local(latitude, longitude))
        same, _ = moved.read(easting - 20, northing + 20, 40, 40, 1.0)
    assert np.abs(same.astype(int) - middle).mean() < 3


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("no images", "none of its images"),
        ("short line", "line 3: too few columns"),
        ("word", "line 2: not a number"),
        ("upside down", "line 2: not the corners"),
        ("no column", "east: no column"),
        ("empty", "an empty table"),
        ("damaged image", "not readable as an image"),
        ("no tiles", "no tile z/x/y"),
        ("damaged tile", "damaged, or not a square"),
        ("damaged metadata", "not readable as JSON"),
        ("two sizes", "different sizes"),
    ],
)
def test_unusable_folders_are_refused_by_file_and_field(truth: Path, tmp_path: Path, fault: str, says: str) -> None:
    path: Path
    if fault in ("no tiles", "damaged tile", "damaged metadata", "two sizes"):
        path = mercator_tiles(truth, tmp_path / "tiles", 18)
        files = sorted(path.rglob("*.png"))
        if fault == "no tiles":
            for file in files:
                file.unlink()
        elif fault == "damaged tile":
            for file in files:
                file.write_bytes(file.read_bytes()[:60])
        elif fault == "two sizes":
            for file in files[1:]:
                cv2.imwrite(str(file), np.zeros((128, 128, 3), np.uint8))
        else:
            (path / "metadata.json").write_text("{")
    else:
        path = make("images", truth, tmp_path)
        table = path / "bounds.csv"
        lines = table.read_text().splitlines()
        if fault == "no images":
            for file in path.glob("*.png"):
                file.unlink()
        elif fault == "damaged image":
            (path / "part 1.png").write_text("no image")
        elif fault == "short line":
            lines[2] = lines[2].rpartition(",")[0]
        elif fault == "word":
            lines[1] = lines[1].replace(",   ", ", north ", 1)
        elif fault == "upside down":
            name, top, left, bottom, right = lines[1].split(",")
            lines[1] = ",".join([name, bottom, left, top, right])
        elif fault == "no column":
            lines[0] = lines[0].replace("Bottom_right_long", "width")
        elif fault == "empty":
            lines = []
        table.write_text("\n".join(lines))
    with pytest.raises(MapError, match=says) as caught:
        read_all(path)
    assert str(path) in str(caught.value)


def read_all(path: Path) -> Any:
    with MapSource.open(path) as source:
        return source.read(-150, 150, 300, 300, 1.0)


@pytest.mark.data
def test_the_real_folders_are_read(cvgl_data: Path) -> None:
    with MapSource.open(cvgl_data / "maps" / "rural_fi") as source:
        west, south, east, north = source.bounds
        assert 580 < east - west < 620 and 840 < north - south < 880
        _, valid = source.read(west, north, 200, 280, (east - west) / 200)
        # Three of its images are absent.
        assert 0.75 < valid.mean() < 0.85
    with MapSource.open(cvgl_data / "maps" / "xyz_z18") as source:
        assert source.native_gsd == pytest.approx(0.51, abs=0.01)
        west, south, east, north = source.bounds
        _, valid = source.read(west, north, 200, 200, (east - west) / 200)
        assert valid.mean() > 0.95
