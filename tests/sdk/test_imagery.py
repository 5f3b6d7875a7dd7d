"""Maps of every kind put the same landmark at the same place, and what cannot be used is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from cvgl.basemap import Basemap, read_grey, write_overview
from cvgl.errors import MapError
from cvgl.imagery import MapSource

LATITUDE, LONGITUDE = 52.1234, -1.4321
GSD, SIZE = 0.5, 240
BACKGROUND, PEAK = 70.0, 160.0


def georeference(crs: str, gsd: float = GSD, size: int = SIZE, rotation: float = 0.0) -> Affine:
    """A raster of ``size`` pixels of about ``gsd`` metres, the landmark not far from its centre."""
    to = Transformer.from_crs("EPSG:4326", crs, always_xy=True)
    x, y = to.transform(LONGITUDE, LATITUDE)
    east, _ = to.transform(LONGITUDE + 1e-5, LATITUDE)
    _, north = to.transform(LONGITUDE, LATITUDE + 1e-5)
    px = (east - x) / (1e-5 * 111_320 * np.cos(np.radians(LATITUDE))) * gsd
    py = (north - y) / (1e-5 * 111_250) * gsd
    cos, sin = np.cos(np.radians(rotation)), np.sin(np.radians(rotation))
    a, b, d, e = px * cos, -px * sin, -py * sin, -py * cos
    return Affine(a, b, x + 11.3 * px - (a + b) * size / 2, d, e, y - 7.6 * py - (d + e) * size / 2)


def blob(crs: str, transform: Affine, size: int = SIZE, sigma: float = 3.0) -> np.ndarray:
    """(size, size) float image of a bright spot at the landmark, in the raster's own pixels."""
    x, y = Transformer.from_crs("EPSG:4326", crs, always_xy=True).transform(LONGITUDE, LATITUDE)
    inverse = ~transform
    column, row = inverse.a * x + inverse.b * y + inverse.c, inverse.d * x + inverse.e * y + inverse.f
    rows, columns = np.mgrid[:size, :size] + 0.5
    return BACKGROUND + PEAK * np.exp(-((columns - column) ** 2 + (rows - row) ** 2) / (2 * sigma**2))


def write(path: Path, bands: list[np.ndarray], crs: str | None, transform: Affine | None, **profile: Any) -> Path:
    """A GeoTIFF."""
    colours = profile.pop("colours", None)
    mask = profile.pop("mask", None)
    tags = profile.pop("tags", {})
    height, width = bands[0].shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=len(bands),
        dtype=bands[0].dtype,
        crs=crs,
        transform=transform,
        **profile,
    ) as file:
        file.write(np.stack(bands))
        if colours:
            file.colorinterp = colours
        if mask is not None:
            file.write_mask(mask)
        file.update_tags(**tags)
    return path


def landmark(source: MapSource, gsd: float) -> tuple[float, float]:
    """Latitude and longitude of the spot's centroid as the source places it."""
    e, n = source.local.to_local(LATITUDE, LONGITUDE)
    half = round(12 / gsd)
    # A window whose pixels are not aligned with the spot.
    west, north = float(e) - half * gsd + 0.31 * gsd, float(n) + half * gsd + 0.17 * gsd
    rgb, valid = source.read(west, north, 2 * half, 2 * half, gsd)
    assert valid.all()
    level = rgb.mean(axis=2)
    weight = np.clip(level - np.median(level) - 0.1 * np.ptp(level), 0, None)
    rows, columns = np.mgrid[: 2 * half, : 2 * half]
    column, row = (columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()
    latitude, longitude = source.local.to_wgs84(west + (column + 0.5) * gsd, north - (row + 0.5) * gsd)
    return float(latitude), float(longitude)


def off_by(source: MapSource, gsd: float) -> float:
    """Metres between where the landmark is and where the source shows it."""
    e, n = source.local.to_local(*landmark(source, gsd))
    true_e, true_n = source.local.to_local(LATITUDE, LONGITUDE)
    return float(np.hypot(e - true_e, n - true_n))


def basemap_of(source: MapSource, gsd: float) -> Basemap:
    """All of a map."""
    west, south, east, north = source.bounds
    size = int(np.ceil((east - west) / gsd)), int(np.ceil((north - south) / gsd))
    return Basemap(read_grey(source, west, north, *size, gsd), gsd, west, north)


def rgb8(image: np.ndarray) -> list[np.ndarray]:
    return [np.clip(np.rint(image * scale), 0, 255).astype(np.uint8) for scale in (1.0, 0.9, 0.8)]


UTM = "EPSG:32630"


def make(kind: str, folder: Path) -> Path:
    """One map of each kind that users have."""
    crs = {
        "mercator": "EPSG:3857",
        "geographic": "EPSG:4326",
        "national, another datum": "EPSG:27700",
        "lambert": "EPSG:2154",
    }.get(kind, UTM)
    rotation = {"rotated": 33.0, "turned around": 171.0}.get(kind, 0.0)
    transform = georeference(crs, rotation=rotation)
    image = blob(crs, transform)
    bands, extra = rgb8(image), {}
    whole = np.full((SIZE, SIZE), 255, np.uint8)
    if kind == "rgba":
        bands, extra = [*bands, whole], {"colours": (*COLOURS, ColorInterp.alpha)}
    elif kind == "grey":
        bands = bands[:1]
    elif kind == "grey with alpha":
        bands, extra = [bands[0], whole], {"colours": (ColorInterp.gray, ColorInterp.alpha)}
    elif kind == "five bands":
        bands = [*bands, 255 - bands[0], whole]
    elif kind == "uint16":
        bands = [(band.astype(np.uint16) * 9 + 200) for band in bands]
    elif kind == "float":
        bands = [(band.astype(np.float32) / 1000) for band in bands]
    elif kind == "int16":
        bands = [(band.astype(np.int16) - 100) for band in bands]
    elif kind == "nodata":
        extra = {"nodata": 0}
    elif kind == "mask":
        extra = {"mask": whole}
    elif kind == "jpeg":
        extra = {
            "compress": "jpeg",
            "photometric": "ycbcr",
            "tiled": True,
            "blockxsize": 64,
            "blockysize": 64,
        }
    elif kind == "south up":
        t = transform
        transform = Affine(t.a, -t.b, t.c + SIZE * t.b, t.d, -t.e, t.f + SIZE * t.e)
        bands = [band[::-1] for band in bands]
    return write(folder / "map.tif", bands, crs, transform, **extra)


COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
KINDS = [
    "rgb",
    "rgba",
    "grey",
    "grey with alpha",
    "five bands",
    "uint16",
    "int16",
    "float",
    "nodata",
    "mask",
    "jpeg",
    "rotated",
    "turned around",
    "south up",
    "mercator",
    "geographic",
    "lambert",
    "national, another datum",
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_map_puts_the_landmark_at_its_place(tmp_path: Path, kind: str) -> None:
    with MapSource.open(make(kind, tmp_path)) as source:
        assert source.native_gsd == pytest.approx(GSD, rel=0.02)
        for gsd in (GSD / 2, GSD, 1.7 * GSD, 4 * GSD):
            # A tenth of a pixel of the window, and of the raster where that is coarser.
            assert off_by(source, gsd) < 0.1 * max(gsd, GSD), gsd
        basemap = basemap_of(source, GSD)
        e, n = source.local.to_local(LATITUDE, LONGITUDE)
        column, row = basemap.to_pixel(e, n)
        top = basemap.read(round(float(column)) - 20, round(float(row)) - 20, 41, 41).astype(float)
        weight = np.clip(top - np.median(top) - 0.1 * np.ptp(top), 0, None)
        rows, columns = np.mgrid[:41, :41] - 20.0
        found = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum()
        expected = float(column) - round(float(column)), float(row) - round(float(row))
        assert np.hypot(*(found - expected)) < 0.1


@pytest.mark.parametrize("kind", ["uint16", "int16", "float"])
def test_deeper_images_fill_the_grey_levels(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(0)
    base = cv2.GaussianBlur(rng.normal(0, 1, (SIZE, SIZE)), (0, 0), 3)
    image = 1000 + 300 * base / base.std()
    dtype = {"uint16": np.uint16, "int16": np.int16, "float": np.float32}[kind]
    if kind == "float":
        image = np.where(np.arange(SIZE) < 20, np.nan, image / 5000)
    path = write(
        tmp_path / "map.tif",
        [image.astype(dtype)] * 3,
        UTM,
        georeference(UTM),
        nodata=np.nan if kind == "float" else None,
    )
    with MapSource.open(path) as source:
        west, _, _, north = source.bounds
        rgb, valid = source.read(west, north, SIZE, SIZE, GSD)
    levels = rgb[valid]
    assert np.percentile(levels, 2) < 40 and np.percentile(levels, 98) > 215
    assert 100 < levels.mean() < 155


def test_averaging_is_an_average(tmp_path: Path) -> None:
    """A pattern finer than the window must vanish, not alias."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    stripes = np.where((rows + columns) % 2, 220, 40).astype(np.uint8)
    with MapSource.open(write(tmp_path / "map.tif", [stripes] * 3, UTM, georeference(UTM))) as source:
        rgb, valid = source.read(-40, 30, 30, 30, 4 * GSD)
    assert valid.all()
    assert abs(float(rgb.mean()) - 130) < 2 and rgb.std() < 8


def test_windows_reach_outside_and_join_without_a_seam(tmp_path: Path) -> None:
    with MapSource.open(make("rotated", tmp_path)) as source:
        west, south, east, north = source.bounds
        width, height = int((east - west) / 0.7) + 20, int((north - south) / 0.7) + 20
        rgb, valid = source.read(west - 7, north + 7, width, height, 0.7)
        parts = [source.read(west - 7, north + 7 - 0.7 * top, width, 31, 0.7) for top in range(0, height - 31, 31)]
    assert not valid[:5].any() and not valid[:, :5].any() and not valid[0, 0]
    assert (rgb[~valid] == 0).all()
    joined, seen = np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
    assert (seen == valid[: len(seen)]).mean() > 0.999
    both = seen & valid[: len(seen)]
    assert np.abs(joined.astype(int) - rgb[: len(joined)])[both].max() <= 1
    true_area = (SIZE * source.native_gsd) ** 2
    assert valid.sum() * 0.7**2 == pytest.approx(true_area, rel=0.02)


@pytest.mark.parametrize("kind", ["alpha", "mask", "nodata"])
def test_declared_nodata_is_not_mixed_into_the_rest(tmp_path: Path, kind: str) -> None:
    image = np.full((SIZE, SIZE), 200, np.uint8)
    hole = np.zeros((SIZE, SIZE), bool)
    hole[100:140, 60:110] = True
    image[hole] = 0
    transform, opaque = georeference(UTM), np.where(hole, 0, 255).astype(np.uint8)
    path = tmp_path / "map.tif"
    if kind == "alpha":
        write(path, [image] * 3 + [opaque], UTM, transform, colours=(*COLOURS, ColorInterp.alpha))
    elif kind == "mask":
        write(path, [image] * 3, UTM, transform, mask=opaque)
    else:
        write(path, [image] * 3, UTM, transform, nodata=0)
    with MapSource.open(path) as source:
        west, _, _, north = source.bounds
        for gsd in (GSD, 3 * GSD):
            rgb, valid = source.read(west, north, int(SIZE * GSD / gsd), int(SIZE * GSD / gsd), gsd)
            inner = np.zeros_like(valid)
            edge = int(8 * GSD / gsd) + 1
            inner[edge:-edge, edge:-edge] = True
            assert np.abs(rgb[valid].astype(int) - 200).max() <= 2
            assert (~valid & inner).sum() * gsd**2 == pytest.approx(40 * 50 * GSD**2, rel=0.1)


def bordered(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A map with a noisy black wedge at its edges, a black shadow and a lake inside; the wedge's mask."""
    image = cv2.GaussianBlur(rng.integers(60, 200, (480, 480)).astype(np.float32), (0, 0), 2) + 20
    rows, columns = np.mgrid[:480, :480]
    wedge = (rows < 20 - columns / 25) | (columns > 470 - rows / 40)
    image[wedge] = rng.integers(0, 9, int(wedge.sum()))
    image[200:260, 150:230] = 0
    cv2.circle(image, (300, 350), 40, 4, -1)
    return image.astype(np.uint8), wedge


def test_a_black_border_is_nodata_and_black_content_is_not(tmp_path: Path) -> None:
    image, wedge = bordered(np.random.default_rng(3))
    path = write(tmp_path / "map.tif", [image] * 3, UTM, georeference(UTM, size=480))
    with MapSource.open(path) as source:
        west, south, east, north = source.bounds
        rgb, valid = source.read(west, north, int((east - west) / GSD), int((north - south) / GSD), GSD)
        share = valid.sum() * GSD**2 / (480 * source.native_gsd) ** 2
        assert share == pytest.approx(1 - wedge.mean(), abs=0.015)
        inner = rgb[40:-40, 40:-40], valid[40:-40, 40:-40]
        assert inner[1].all() and (inner[0] < 8).all(axis=2).sum() > 0.9 * (60 * 80 + np.pi * 40**2)
        assert (rgb[valid][:, 0] >= 40).mean() > 0.94, "what is left of the border"
        basemap = basemap_of(source, GSD)
    shadow = np.array(basemap.pixels[210:250, 160:220])
    assert (shadow >= 1).all() and (shadow < 8).mean() > 0.9


@pytest.mark.data
def test_the_real_map_loses_its_wedge_and_nothing_else(cvgl_data: Path) -> None:
    with MapSource.open(cvgl_data / "flights" / "fengyuan" / "map.tif") as source:
        west, south, east, north = source.bounds
        rgb, valid = source.read(west, north, int(east - west), int(north - south), 1.0)
    assert 0.92 < valid.mean() < 0.97
    rim = valid & ~cv2.erode(valid.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
    assert (rgb[rim].max(axis=1) <= 8).mean() < 0.02
    assert valid[30:-30, 30:-30].mean() > 0.998


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("absent", "no such file"),
        ("folder", "not readable as an image"),
        ("text", "not readable as an image"),
        ("empty", "not readable as an image"),
        ("truncated", "not readable"),
        ("no crs", "CRS: no georeference"),
        ("no transform", "geotransform: no georeference"),
        ("all nodata", "nothing but nodata"),
        ("all black", "nothing but nodata"),
        ("tiny", "size: too small"),
        ("palette", "gdal_translate"),
        ("complex", "data type"),
        ("flat uint16", "same value"),
        ("nowhere", "no place on Earth"),
    ],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_unusable_maps_are_refused_by_file_and_field(tmp_path: Path, fault: str, says: str) -> None:
    path = tmp_path / "map.tif"
    transform = georeference(UTM)
    rng = np.random.default_rng(0)
    bands = [rng.integers(30, 255, (SIZE, SIZE), np.uint8) for _ in range(3)]
    if fault == "folder":
        path.mkdir()
    elif fault == "text":
        path.write_text("no image")
    elif fault == "empty":
        path.touch()
    elif fault == "truncated":
        write(path, bands, UTM, transform)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) * 2 // 3])
    elif fault == "no crs":
        write(path, bands, None, transform)
    elif fault == "no transform":
        write(path, bands, UTM, None)
    elif fault == "all nodata":
        write(path, [np.full((SIZE, SIZE), 9, np.uint8)] * 3, UTM, transform, nodata=9)
    elif fault == "all black":
        write(path, [np.zeros((SIZE, SIZE), np.uint8)] * 3, UTM, transform)
    elif fault == "tiny":
        write(path, [band[:20, :20] for band in bands], UTM, transform)
    elif fault == "palette":
        write(path, bands[:1], UTM, transform, colours=(ColorInterp.palette,), photometric="palette")
    elif fault == "complex":
        write(path, [bands[0].astype(np.complex64)], UTM, transform)
    elif fault == "flat uint16":
        write(path, [np.full((SIZE, SIZE), 900, np.uint16)], UTM, transform)
    elif fault == "nowhere":
        write(path, bands, "EPSG:4326", Affine(0.1, 0, 0, 0, -0.1, 500))
    with pytest.raises(MapError, match=says) as caught:
        MapSource.open(path)
    assert str(path) in str(caught.value)


def test_damage_found_while_reading_names_the_file(tmp_path: Path) -> None:
    path = make("jpeg", tmp_path)
    with MapSource.open(path) as source:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        west, _, _, north = source.bounds
        with pytest.raises(MapError, match=r"map\.tif"):
            source.read(west, north, SIZE, SIZE, GSD)


def test_attribution_comes_from_the_tags(tmp_path: Path) -> None:
    path = write(
        tmp_path / "map.tif",
        rgb8(blob(UTM, georeference(UTM))),
        UTM,
        georeference(UTM),
        tags={"TIFFTAG_COPYRIGHT": "(c) A"},
    )
    with MapSource.open(path) as source:
        assert (source.source, source.attribution) == ("map.tif", "(c) A")
        assert "map.tif" in repr(source) and "0.5 m/px" in repr(source)


def test_large_maps_are_reduced_from_their_overviews(tmp_path: Path) -> None:
    """What an overview shows must lie where the full raster shows it."""
    size = 1024
    path = write(
        tmp_path / "map.tif",
        rgb8(blob(UTM, georeference(UTM, size=size), size=size, sigma=40)),
        UTM,
        georeference(UTM, size=size),
        tiled=True,
    )
    with MapSource.open(path) as source:
        west, _, _, north = source.bounds
        plain, _ = source.read(west, north, 64, 64, 16 * GSD)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    with MapSource.open(path) as source:
        reduced, _ = source.read(west, north, 64, 64, 16 * GSD)
    assert np.abs(plain.astype(int) - reduced)[1:-1, 1:-1].max() <= 3


def test_the_overview_lies_where_it_says(tmp_path: Path) -> None:
    with MapSource.open(make("lambert", tmp_path)) as source:
        place = write_overview(source, tmp_path / "overview.jpg")
        e, n = source.local.to_local(LATITUDE, LONGITUDE)
    image = cv2.imread(str(tmp_path / "overview.jpg"))
    assert image.shape[:2] == (place["height"], place["width"])
    _, _, _, brightest = cv2.minMaxLoc(cv2.GaussianBlur(image[..., 1], (0, 0), 2))
    expected = (e - place["west"]) / place["gsd_m"] - 0.5, (place["north"] - n) / place["gsd_m"] - 0.5
    assert np.hypot(brightest[0] - expected[0], brightest[1] - expected[1]) < 0.75


BASEMAP = Basemap(np.arange(1, 13, dtype=np.uint8).reshape(3, 4), 0.5, 100.0, 50.0)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ((1, 1, 2, 2), [[6, 7], [10, 11]]),
        ((-1, -1, 3, 2), [[0, 0, 0], [0, 1, 2]]),
        ((3, 2, 2, 2), [[12, 0], [0, 0]]),
        ((9, 9, 2, 1), [[0, 0]]),
        ((-5, 0, 2, 1), [[0, 0]]),
    ],
)
def test_basemap_windows_are_zero_outside(window: tuple[int, int, int, int], expected: list[list[int]]) -> None:
    np.testing.assert_array_equal(BASEMAP.read(*window), expected)


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e4, 1e4), st.floats(-1e4, 1e4))
def test_basemap_pixels_and_metres_are_inverse(column: float, row: float) -> None:
    back = BASEMAP.to_pixel(*BASEMAP.to_local(column, row))
    np.testing.assert_allclose(back, (column, row), atol=1e-8)


def test_the_first_pixels_centre_is_half_a_pixel_inside() -> None:
    assert BASEMAP.to_local(0, 0) == (100.25, 49.75)
    assert BASEMAP.bounds == (100.0, 48.5, 102.0, 50.0)
