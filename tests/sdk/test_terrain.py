"""Elevation models: read as they are, carried with a mission, and where rays meet their ground."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.warp
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.elevation import read_terrain
from cvgl.errors import FrameError, MapError, MissionError
from cvgl.frame import Frame, Prior
from cvgl.geo import LocalFrame
from cvgl.localizer import Localizer
from cvgl.settings import Settings
from cvgl.terrain import Terrain

LOCAL = LocalFrame(47.05, 9.5)
BOUNDS = (-600.0, -500.0, 600.0, 500.0)


def slope(easting: Any, northing: Any) -> Any:
    """Height of a plane that rises to the north-east."""
    return 430.0 + 0.15 * np.asarray(easting) + 0.05 * np.asarray(northing)


def dem(path: Path, crs: str, step: float, *, nodata: float | None = None, unit: str = "") -> Path:
    """The plane as a GeoTIFF of some CRS, some kilometres around the place; where it has nodata, its west has none."""
    corners = LOCAL.to_wgs84(np.array([-2000.0, 2000.0]), np.array([-2000.0, 2000.0]))
    xs, ys = rasterio.warp.transform("EPSG:4326", crs, corners[1].tolist(), corners[0].tolist())
    columns, rows = (math.ceil((max(v) - min(v)) / step) for v in (xs, ys))
    x = min(xs) + (np.arange(columns) + 0.5) * step
    y = max(ys) - (np.arange(rows) + 0.5) * step
    grid = [axis.ravel() for axis in np.meshgrid(x, y)]
    longitude, latitude = rasterio.warp.transform(crs, "EPSG:4326", *(axis.tolist() for axis in grid))
    easting, northing = LOCAL.to_local(latitude, longitude)
    heights = slope(easting, northing).reshape(rows, columns).astype(np.float32)
    if nodata is not None:
        heights[easting.reshape(rows, columns) < -300.0] = nodata
    transform = rasterio.Affine(step, 0, min(xs), 0, -step, max(ys))
    shape: dict[str, Any] = {"width": columns, "height": rows, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", driver="GTiff", crs=crs, transform=transform, nodata=nodata, **shape) as file:
        file.write(heights, 1)
        if unit:
            file.units = (unit,)
    return path


@pytest.mark.parametrize(("crs", "step"), [("EPSG:32632", 20.0), ("EPSG:4326", 0.0003), ("EPSG:3857", 25.0)])
def test_any_coordinate_system_is_read(tmp_path: Path, crs: str, step: float) -> None:
    terrain = read_terrain(dem(tmp_path / "dem.tif", crs, step), LOCAL, BOUNDS)
    rng = np.random.default_rng(0)
    easting, northing = rng.uniform(-550, 550, 50), rng.uniform(-450, 450, 50)
    np.testing.assert_allclose(terrain.at(easting, northing), slope(easting, northing), atol=0.3)
    assert np.isnan(terrain.at(700.0, 0.0))
    assert (terrain.source, terrain.datum, terrain.geoid_separation) == ("dem.tif", "mean_sea_level", None)


def test_nodata_is_unknown(tmp_path: Path) -> None:
    path = dem(tmp_path / "dem.tif", "EPSG:32632", 20.0, nodata=-9999.0)
    terrain = read_terrain(path, LOCAL, BOUNDS)
    assert np.isnan(terrain.at(-450.0, 0.0))
    assert terrain.at(100.0, 50.0) == pytest.approx(slope(100.0, 50.0), abs=0.3)
    assert np.nanmin(terrain.heights) > 300.0
    with pytest.raises(MapError, match="nothing of the map's area"):
        read_terrain(path, LOCAL, (-1500.0, -500.0, -800.0, 500.0))


def test_a_large_area_is_reduced(tmp_path: Path) -> None:
    path = dem(tmp_path / "dem.tif", "EPSG:32632", 2.0)
    terrain = read_terrain(path, LOCAL, (-1900.0, -1900.0, 1900.0, 1900.0))
    assert max(terrain.heights.shape) <= 512
    assert terrain.at(300.0, -200.0) == pytest.approx(slope(300.0, -200.0), abs=0.1)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    with pytest.raises(MapError, match="no such file"):
        read_terrain(tmp_path / "none.tif", LOCAL, BOUNDS)
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(MapError, match="not readable"):
        read_terrain(tmp_path / "text.tif", LOCAL, BOUNDS)
    feet = dem(tmp_path / "feet.tif", "EPSG:32632", 100.0, unit="foot")
    with pytest.raises(MapError, match="not in metres"):
        read_terrain(feet, LOCAL, BOUNDS)
    with pytest.raises(MapError, match="unknown datum"):
        read_terrain(feet, LOCAL, BOUNDS, datum="sea")


def plane(gsd: float = 20.0, **more: Any) -> Terrain:
    half = 50
    axis = (np.arange(2 * half) + 0.5) * gsd - half * gsd
    return Terrain(slope(axis[None], -axis[:, None]).astype(np.float32), gsd, -half * gsd, half * gsd, **more)


def hills() -> Terrain:
    axis = (np.arange(200) + 0.5) * 10.0 - 1000.0
    east, north = axis[None], -axis[:, None]
    heights = 300.0 + 60.0 * np.sin(east / 150.0) * np.cos(north / 200.0) + 0.05 * east
    return Terrain(heights.astype(np.float32), 10.0, -1000.0, 1000.0)


def test_it_is_carried_with_the_mission(tmp_path: Path) -> None:
    before = plane(datum="ellipsoid", geoid_separation=48.5, source="x.tif")
    before.save(tmp_path / "terrain")
    after = Terrain.open(tmp_path / "terrain")
    np.testing.assert_array_equal(after.heights, before.heights)
    for name in ("gsd", "west", "north", "datum", "geoid_separation", "source"):
        assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize("damage", ["heights", "manifest", "absent"])
def test_a_damaged_one_is_refused(tmp_path: Path, damage: str) -> None:
    plane().save(tmp_path / "terrain")
    heights = tmp_path / "terrain" / "heights.npy"
    if damage == "heights":
        data = bytearray(heights.read_bytes())
        data[-1] ^= 1
        heights.write_bytes(data)
    elif damage == "manifest":
        (tmp_path / "terrain" / "manifest.json").write_text("{}")
    else:
        heights.unlink()
    with pytest.raises(MissionError):
        Terrain.open(tmp_path / "terrain")


@settings(max_examples=200, deadline=None)
@given(
    off=st.floats(0.0, 75.0),
    around=st.floats(0.0, 360.0),
    above=st.floats(5.0, 300.0),
    at=st.tuples(st.floats(-200.0, 200.0), st.floats(-200.0, 200.0)),
)
def test_a_ray_meets_the_ground_where_the_ground_is(
    off: float, around: float, above: float, at: tuple[float, float]
) -> None:
    terrain = hills()
    origin = np.array([*at, float(terrain.at(*at)) + above])
    a, b = np.radians([off, around])
    direction = np.array([np.sin(a) * np.sin(b), np.sin(a) * np.cos(b), -np.cos(a)])
    met = terrain.intersect(origin, direction)
    if met is None:  # it left the model
        return
    assert met[2] == pytest.approx(float(terrain.at(met[0], met[1])), abs=1e-6)
    # Back along the ray is where it came from, and nothing of the way there lies below the ground.
    apart = origin - met
    np.testing.assert_allclose(apart / np.linalg.norm(apart), -direction, atol=1e-9)
    way = met + np.linspace(0.01, 1.0, 200)[:, None] * apart
    assert (way[:, 2] - terrain.at(way[:, 0], way[:, 1]) > -1.0).all()


def test_on_a_plane_it_is_exact() -> None:
    terrain = plane()
    origin, direction = np.array([10.0, -20.0, slope(10.0, -20.0) + 120.0]), np.array([0.5, 0.2, -1.0])
    met = terrain.intersect(origin, direction)
    # 120 - t (1 + 0.15 * 0.5 + 0.05 * 0.2) = 0
    np.testing.assert_allclose(met, origin + 120.0 / 1.085 * direction, atol=1e-3)


@pytest.mark.parametrize(
    ("origin", "direction"),
    [
        ((0.0, 0.0, 1000.0), (0.0, 0.0, 1.0)),
        ((0.0, 0.0, 1000.0), (1.0, 0.0, 0.0)),
        ((0.0, 0.0, 100.0), (0.0, 0.0, -1.0)),  # below the ground
        ((900.0, 0.0, 1000.0), (5.0, 0.0, -1.0)),  # leaves the model
        ((5000.0, 0.0, 1000.0), (0.0, 0.0, -1.0)),
    ],
)
def test_a_ray_may_meet_none(origin: tuple[float, ...], direction: tuple[float, ...]) -> None:
    assert plane().intersect(origin, direction) is None


@pytest.mark.parametrize(
    ("datum", "separation", "msl", "ellipsoid", "expected"),
    [
        ("mean_sea_level", None, 500.0, None, 500.0),
        ("mean_sea_level", None, 500.0, 547.0, 500.0),
        ("mean_sea_level", 48.0, None, 548.0, 500.0),
        ("ellipsoid", None, None, 548.0, 548.0),
        ("ellipsoid", 48.0, 500.0, None, 548.0),
    ],
)
def test_altitudes_in_the_model_s_datum(
    datum: str, separation: float | None, msl: float | None, ellipsoid: float | None, expected: float
) -> None:
    assert plane(datum=datum, geoid_separation=separation).altitude(msl, ellipsoid) == expected


@pytest.mark.parametrize(
    ("datum", "msl", "ellipsoid"),
    [("mean_sea_level", None, 548.0), ("ellipsoid", 500.0, None), ("ellipsoid", None, None)],
)
def test_a_geoid_is_never_invented(datum: str, msl: float | None, ellipsoid: float | None) -> None:
    with pytest.raises(FrameError, match="altitude"):
        plane(datum=datum).altitude(msl, ellipsoid)


IMAGE: NDArray[np.uint8] = np.zeros((48, 64), np.uint8)


def height_of(frame: Frame, terrain: Terrain | None) -> tuple[float, float]:
    mission = SimpleNamespace(settings=Settings(), terrain=terrain)
    camera = Camera.from_field_of_view(64, 48, 60.0)
    gallery = SimpleNamespace(local=LOCAL, manifest=SimpleNamespace(bounds=(-300.0, -300.0, 300.0, 300.0)))
    fake: Any = SimpleNamespace(mission=mission, gallery=gallery, camera=camera)
    frame.check()
    return Localizer._height(fake, frame)


def prior(easting: float, northing: float, sigma: float) -> Prior:
    latitude, longitude = LOCAL.to_wgs84(easting, northing)
    return Prior(float(latitude), float(longitude), sigma)


def test_a_height_that_is_given_stands() -> None:
    frame = Frame(IMAGE, 0.0, 120.0, altitude_msl=900.0)
    assert height_of(frame, plane()) == (120.0, Settings().height_sigma)


def test_an_altitude_becomes_the_height_over_what_is_looked_at() -> None:
    over = {"altitude_msl": 560.0, "prior": prior(100.0, 0.0, 5.0)}
    straight, sigma = height_of(Frame(IMAGE, 0.0, math.nan, heading=90.0, **over), plane())
    assert straight == pytest.approx(560.0 - slope(100.0, 0.0), abs=1.0)
    assert sigma == pytest.approx(Settings().height_sigma, abs=0.02)
    # Looking 45 degrees to the east, where the ground is higher.
    ahead, _ = height_of(Frame(IMAGE, 0.0, math.nan, heading=90.0, pitch=45.0, roll=0.0, **over), plane())
    met = (560.0 - slope(100.0, 0.0)) / 1.15
    assert ahead == pytest.approx(560.0 - slope(100.0 + met, 0.0), abs=2.0)


def test_when_lost_the_map_s_mean_is_taken_and_its_spread_told() -> None:
    height, sigma = height_of(Frame(IMAGE, 0.0, math.nan, altitude_msl=560.0), plane())
    assert height == pytest.approx(130.0, abs=1.0)
    _, spread = plane().around(0.0, 0.0, 300.0 * math.sqrt(2.0))
    assert sigma == pytest.approx(math.hypot(Settings().height_sigma, spread / height))
    assert 30.0 < spread < 40.0  # a slope of 0.158 over a disc of 424 m: 0.158 * 424 / 2


@pytest.mark.parametrize(
    ("terrain", "altitude", "message"), [(None, 500.0, "not given"), (plane(), 300.0, "not above the terrain")]
)
def test_without_ground_below_there_is_no_height(terrain: Terrain | None, altitude: float, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        height_of(Frame(IMAGE, 0.0, math.nan, altitude_msl=altitude), terrain)


@pytest.mark.parametrize("change", [{}, {"altitude_msl": math.nan}, {"altitude_ellipsoid": "high"}])
def test_a_frame_without_either_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(FrameError):
        Frame(IMAGE, 0.0, math.nan, **change).check()
