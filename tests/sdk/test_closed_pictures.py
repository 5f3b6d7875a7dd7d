"""What simulated flights see: grounds, clouds, motion, darkness."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu
from cvgl.sim import World, write_map
from cvgl.sim.closed.effects import Sky, darken, image_motion, light_level, motion_blur, rolling_shutter
from cvgl.sim.closed.ground import BasemapSource, MapGround, WorldGround, open_ground
from cvgl.sim.closed.scenario import Scenario

CAMERA = Camera.from_field_of_view(160, 120, 60.0)
LOCAL = LocalFrame(47.0, 9.5)


class Ramp:
    """A map whose colours tell where they are: red grows to the east, green to the north."""

    local = LOCAL
    native_gsd = 0.5

    def __init__(self, half: float = 200.0, hole: bool = False) -> None:
        self.bounds = (-half, -half, half, half)
        self._hole = hole

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        east = west + (np.arange(width) + 0.5) * gsd
        up = north - (np.arange(height) + 0.5) * gsd
        x, y = np.meshgrid(east, up)
        rgb = np.stack([(x + 200) / 400 * 255, (y + 200) / 400 * 255, np.full_like(x, 60)], axis=-1)
        valid = np.hypot(x, y) > 30 if self._hole else np.ones(x.shape, bool)
        rgb = np.clip(rgb, 0, 255).astype(np.uint8)
        rgb[~valid] = 0
        return rgb, valid


def seen_from(
    ground: MapGround, east: float, north: float, heading: float = 0.0, tilt: float = 0.0
) -> NDArray[np.uint8]:
    return ground.view(CAMERA, np.array([east, north, 60.0]), (heading, tilt, 0.0), 1, 0, 0.0)


@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (60.0, -80.0), (-100.0, 40.0)])
@pytest.mark.parametrize("heading", [0.0, 90.0, 215.0])
def test_a_map_is_seen_where_the_camera_is(east: float, north: float, heading: float) -> None:
    picture = seen_from(MapGround(Ramp(), CAMERA, 60.0), east, north, heading)
    rotation = camera_to_enu(CAMERA.mount, heading)
    for pixel in ((20, 20), (80, 60), (140, 100)):
        ray = rotation @ CAMERA.rays([pixel])[0]
        place = np.array([east, north]) + ray[:2] / -ray[2] * 60.0
        expected = (place + 200) / 400 * 255
        np.testing.assert_allclose(picture[pixel[1], pixel[0], 2:0:-1], expected, atol=1.5)


@pytest.mark.parametrize("attitude", [(30.0, 0.0, 0.0), (200.0, 8.0, -6.0), (300.0, 25.0, 3.0)])
def test_a_lens_that_hardly_bends_sees_what_an_ideal_one_does(attitude: tuple[float, float, float]) -> None:
    # The one is looked up by a homography, the other pixel by pixel.
    ground = MapGround(Ramp(), CAMERA, 60.0)
    bent = replace(CAMERA, distortion=(1e-12, 0.0, 0.0, 0.0))
    where = np.array([10.0, -20.0, 60.0]), attitude, 1, 0, 0.0
    difference = ground.view(CAMERA, *where).astype(int) - ground.view(bent, *where)
    assert np.abs(difference).max() <= 1


def test_beyond_the_edge_lies_the_mirror_image() -> None:
    ground = MapGround(Ramp(), CAMERA, 60.0)
    outside, inside = seen_from(ground, 300.0, 0.0), seen_from(ground, 100.0, 0.0)
    np.testing.assert_allclose(outside[:, ::-1].astype(int), inside.astype(int), atol=3)


def test_no_black_where_the_map_has_no_data() -> None:
    picture = seen_from(MapGround(Ramp(hole=True), CAMERA, 60.0), 0.0, 0.0)
    assert picture[..., 0].min() > 40


def test_a_tilted_camera_looks_elsewhere() -> None:
    ground = MapGround(Ramp(), CAMERA, 60.0)
    ahead = seen_from(ground, 0.0, 0.0, tilt=10.0)[60, 80, 1] - seen_from(ground, 0.0, 0.0)[60, 80, 1].astype(float)
    assert ahead == pytest.approx(60 * math.tan(math.radians(10)) / 400 * 255, abs=2)


def test_light_stays_through_a_flight_and_noise_does_not() -> None:
    ground = MapGround(Ramp(), CAMERA, 60.0)
    place = np.array([0.0, 0.0, 60.0])
    first, again, next_frame, next_day = (
        ground.view(CAMERA, place, (0.0, 0.0, 0.0), day, frame, 1.0).astype(float)
        for day, frame in ((5, 0), (5, 0), (5, 1), (9, 0))
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - next_frame).max() > 0
    assert abs(np.median(first) - np.median(next_frame)) < 4
    assert np.abs(cv2.blur(first, (15, 15)) - cv2.blur(next_day, (15, 15))).mean() > 8


def test_the_basemap_is_a_map() -> None:
    pixels = np.tile(np.arange(1, 201, dtype=np.uint8), (150, 1))
    pixels[100:, :] = 0
    source = BasemapSource(Basemap(pixels, 0.5, -50.0, 40.0), LOCAL)
    rgb, valid = source.read(-50.0, 40.0, 200, 150, 0.5)
    np.testing.assert_array_equal(rgb[:90, :, 1], pixels[:90])
    assert valid[:98].all() and not valid[102:].any()


def test_a_map_of_a_world_is_rendered_as_that_world(tmp_path: Path) -> None:
    world = World.generate(3, 200.0, "suburban")
    write_map(world, tmp_path / "map.tif", gsd=1.0, latitude=47.0, longitude=9.5)
    basemap = Basemap(np.ones((64, 64), np.uint8), 1.0, -32.0, 32.0)
    ground = open_ground(tmp_path / "map.tif", basemap, LOCAL, CAMERA, 60.0)
    assert isinstance(ground, WorldGround)
    again = WorldGround(world, 47.0, 9.5)
    where = (CAMERA, np.array([10.0, 5.0, 60.0]), (30.0, 0.0, 0.0), 4, 2, 1.0)
    np.testing.assert_array_equal(ground.view(*where), again.view(*where))
    assert isinstance(open_ground(None, basemap, LOCAL, CAMERA, 60.0), MapGround)


def test_a_map_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "map.tif").write_bytes(b"no picture")
    basemap = Basemap(np.ones((64, 64), np.uint8), 1.0, -32.0, 32.0)
    with pytest.raises(MapError, match=r"map\.tif"):
        open_ground(tmp_path / "map.tif", basemap, LOCAL, CAMERA, 60.0)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.8])
def test_clouds_cover_their_share(share: float) -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    sky = Sky(Scenario(clouds=share), np.array([5.0, 0.0]), np.random.default_rng(1))
    covered = [
        sky.over(black, CAMERA, camera_to_enu(CAMERA.mount, 0.0), np.array([x, 37.0 * x % 411, 60.0]), 0.0).mean()
        for x in np.linspace(0, 4000, 80)
    ]
    assert np.mean(covered) / 225 == pytest.approx(share, abs=0.12)


def test_shadows_darken_and_no_weather_changes_nothing() -> None:
    grey = np.full((120, 160, 3), 200, np.uint8)
    rotation, place = camera_to_enu(CAMERA.mount, 0.0), np.array([0.0, 0.0, 60.0])
    dark = Sky(Scenario(shadows=1.0), np.zeros(2), np.random.default_rng(0)).over(grey, CAMERA, rotation, place, 0.0)
    np.testing.assert_allclose(dark, 90, atol=1)
    none = Sky(Scenario(), np.zeros(2), np.random.default_rng(0)).over(grey, CAMERA, rotation, place, 0.0)
    assert none is grey


def test_clouds_stay_over_the_ground_that_drifts_with_them() -> None:
    black = np.zeros((120, 160, 3), np.uint8)
    sky = Sky(Scenario(clouds=0.4), np.array([4.0, -3.0]), np.random.default_rng(2))
    rotation = camera_to_enu(CAMERA.mount, 20.0)
    first = sky.over(black, CAMERA, rotation, np.array([50.0, 60.0, 60.0]), 0.0)
    later = sky.over(black, CAMERA, rotation, np.array([90.0, 30.0, 60.0]), 10.0)
    np.testing.assert_allclose(first.astype(int), later.astype(int), atol=1)


@pytest.mark.parametrize(
    ("heading", "velocity", "expected"),
    [
        (0.0, (0.0, 10.0), (0, 1)),
        (0.0, (10.0, 0.0), (-1, 0)),
        (90.0, (10.0, 0.0), (0, 1)),
        (180.0, (0.0, 10.0), (0, -1)),
    ],
)
def test_the_ground_moves_against_the_flight(
    heading: float, velocity: tuple[float, float], expected: tuple[float, float]
) -> None:
    motion = image_motion(CAMERA, camera_to_enu(CAMERA.mount, heading), np.array(velocity), 50.0)
    np.testing.assert_allclose(motion, CAMERA.fx * 10 / 50 * np.array(expected), atol=1e-9)


def test_blur_spreads_along_the_motion_and_keeps_the_light() -> None:
    image = np.zeros((61, 61, 3), np.uint8)
    image[30, 30] = 255
    blurred = motion_blur(image, np.array([12.0, 0.0]))
    row, column = blurred[30, :, 0] > 2, blurred[:, 30, 0] > 2
    assert 11 <= row.sum() <= 16
    assert column.sum() <= 3
    assert motion_blur(image, np.array([0.5, 0.5])) is image


def test_rolling_shutter_shears() -> None:
    image = np.zeros((100, 80, 3), np.uint8)
    image[:, 40] = 255
    # The ground moves right by 100 px/s; the last row is read 0.1 s after the first.
    rolled = rolling_shutter(image, np.array([100.0, 0.0]), 0.0, 0.1)
    at = [int(rolled[row, :, 0].argmax()) for row in (2, 50, 97)]
    assert at[0] == pytest.approx(40 - 4.8, abs=1.1)
    assert at[1] == pytest.approx(40, abs=1.1)
    assert at[2] == pytest.approx(40 + 4.8, abs=1.1)
    assert rolling_shutter(image, np.array([1.0, 0.0]), 0.0, 0.1) is image


def test_a_late_row_of_a_turning_camera_shows_the_turned_picture() -> None:
    # Turning clockwise, things above the middle move to the left in the picture, the later the more.
    image = np.zeros((101, 101, 3), np.uint8)
    image[:, 50] = 255
    rolled = rolling_shutter(image, np.zeros(2), 50.0, 0.5)
    below = int(rolled[98, :, 0].argmax())
    late = 48 / 101 * 0.5
    assert below == pytest.approx(50 + math.radians(50.0) * late * 48, abs=2)


@pytest.mark.parametrize(("progress", "level"), [(0.0, 1.0), (0.5, 1e-4), (1.0, 1.0), (0.25, 1e-2)])
def test_light_falls_and_comes_back(progress: float, level: float) -> None:
    assert light_level(1.0, progress) == pytest.approx(level)
    assert light_level(0.0, progress) == 1.0


def test_less_light_is_darker_and_noisier() -> None:
    image = np.full((80, 80, 3), 160, np.uint8)
    rng = np.random.default_rng(0)
    levels = [darken(image, level, rng).astype(float) for level in (0.5, 0.1, 1e-3)]
    means = [picture.mean() for picture in levels]
    assert means[0] > means[1] > means[2]
    contrast = [picture.std() / picture.mean() for picture in levels]
    assert contrast[0] < contrast[1] < contrast[2]
    assert darken(image, 1.0, rng) is image


def test_a_scenario_knows_all_its_weather() -> None:
    assert replace(Scenario(), clouds=0.3).to_dict()["clouds"] == 0.3
