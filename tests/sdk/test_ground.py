"""Where cameras look on level ground: by first principles, and there and back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.footprint import border_rays, footprint, footprint_sides, footprint_wgs84
from cvgl.geo import LocalFrame
from cvgl.geometry import Attitude, Mount, camera_to_enu, gimbal_attitude
from cvgl.ground import aim, aircraft_from_ground, ground_from_aircraft, ground_offset, ground_points
from cvgl.rectify import rectify

Array = NDArray[Any]

CAMERA = Camera.from_field_of_view(640, 480, 62.0)
WIDE = Camera(640, 480, 260.0, 260.0, 321.0, 238.0, (-0.02, 0.01, -0.004, 0.0006), model="fisheye")
BARREL = Camera(640, 480, 400.0, 401.0, 318.0, 243.0, (-0.2, 0.05, 0.001, -0.001))
HEIGHT = 100.0
TAN30, TAN60 = math.tan(math.radians(30.0)), math.tan(math.radians(60.0))
NORTH, EAST, SOUTH, WEST = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, -1.0], [-1.0, 0.0]])


def looks(rotation: Array) -> tuple[Array, Array]:
    """Offset of the image's middle on the ground, in heights, and the direction of image-up on the ground."""
    middle = ground_offset(CAMERA, rotation, HEIGHT, max_slant=math.inf)
    above = ground_offset(CAMERA, rotation, HEIGHT, CAMERA.center - (0, 1), max_slant=math.inf)
    return middle / HEIGHT, (above - middle) / np.linalg.norm(above - middle)


# A gimbal reports (yaw, pitch, roll) of the optical axis: pitch 0 is the horizon, -90 straight down.
GIMBALS = {
    "nadir, image-up north": ((0, -90, 0), (0, 0), NORTH),
    "nadir, image-up east": ((90, -90, 0), (0, 0), EAST),
    "30 degrees forward, to the north": ((0, -60, 0), TAN30 * NORTH, NORTH),
    "30 degrees forward, to the east": ((90, -60, 0), TAN30 * EAST, EAST),
    "60 degrees forward, to the south": ((180, -30, 0), TAN60 * SOUTH, SOUTH),
    "60 degrees forward, to the west": ((-90, -30, 0), TAN60 * WEST, WEST),
    "beyond nadir by 30 degrees: backward": ((0, -120, 0), TAN30 * SOUTH, NORTH),
    "nadir, rolled about its axis by 30 degrees": (
        (0, -90, 30),
        (0, 0),
        (math.sin(math.pi / 6), math.cos(math.pi / 6)),
    ),
    "nadir, flipped": ((0, -90, 180), (0, 0), SOUTH),
}


@pytest.mark.parametrize("gimbal", GIMBALS)
def test_gimbals_by_first_principles(gimbal: str) -> None:
    angles, place, up = GIMBALS[gimbal]
    a = gimbal_attitude(Attitude(*angles))
    found = looks(camera_to_enu(Mount(), a.heading_deg, a.pitch_deg, a.roll_deg))
    np.testing.assert_allclose(found[0], place, atol=1e-9)
    np.testing.assert_allclose(found[1], up, atol=1e-9)


# A camera that is fixed to the vehicle: (heading, pitch, roll) of the vehicle, (roll, pitch, yaw) of the mount.
BODIES = {
    "level": ((0, 0, 0), (0, 0, 0), (0, 0), NORTH),
    "heading east": ((90, 0, 0), (0, 0, 0), (0, 0), EAST),
    "nose up by 30": ((0, 30, 0), (0, 0, 0), TAN30 * NORTH, NORTH),
    "nose up by 30, heading east": ((90, 30, 0), (0, 0, 0), TAN30 * EAST, EAST),
    "right side down by 30": ((0, 0, 30), (0, 0, 0), TAN30 * WEST, NORTH),
    "left side down by 30, heading south": ((180, 0, -30), (0, 0, 0), TAN30 * WEST, SOUTH),
    "mounted 30 forward": ((0, 0, 0), (0, 30, 0), TAN30 * NORTH, NORTH),
    "mounted 60 forward, heading west": ((270, 0, 0), (0, 60, 0), TAN60 * WEST, WEST),
    "mounted 30 forward, nose up by 30": ((0, 30, 0), (0, 30, 0), TAN60 * NORTH, NORTH),
    "mounted with image-up to the right": ((0, 0, 0), (0, 0, 90), (0, 0), EAST),
    "mounted to the right, looking out 30 to the right": ((0, 0, 0), (0, 30, 90), TAN30 * EAST, EAST),
}


@pytest.mark.parametrize("body", BODIES)
def test_fixed_cameras_by_first_principles(body: str) -> None:
    attitude, mount, place, up = BODIES[body]
    found = looks(camera_to_enu(Mount(*mount), *attitude))
    np.testing.assert_allclose(found[0], place, atol=1e-9)
    np.testing.assert_allclose(found[1], up, atol=1e-9)


cameras = st.sampled_from([CAMERA, WIDE, BARREL])
rotations = st.builds(
    lambda heading, pitch, roll: camera_to_enu(Mount(), heading, pitch, roll),
    st.floats(0, 360),
    st.floats(-59, 59),
    st.floats(-30, 30),
)
places = st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000))


@settings(max_examples=200, deadline=None)
@given(
    camera=cameras,
    rotation=rotations,
    height=st.floats(10.0, 3000.0),
    aircraft=places,
    at=st.none() | st.tuples(st.floats(0.1, 0.9), st.floats(0.1, 0.9)),
)
def test_there_and_back(
    camera: Camera, rotation: Array, height: float, aircraft: tuple[float, float], at: tuple[float, float] | None
) -> None:
    pixel = None if at is None else np.array(at) * (camera.width, camera.height)
    try:
        ground = ground_from_aircraft(aircraft, camera, rotation, height, pixel)
    except FrameError:
        assume(False)
    np.testing.assert_allclose(aircraft_from_ground(ground, camera, rotation, height, pixel), aircraft, atol=1e-6)
    # And the ground point is drawn at that very pixel.
    ray = np.append(ground - aircraft, -height) @ rotation
    np.testing.assert_allclose(camera.project([ray])[0], camera.center if pixel is None else pixel, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(camera=cameras, rotation=rotations)
def test_ground_points_are_those_within_sixty_degrees(camera: Camera, rotation: Array) -> None:
    pixels = np.random.default_rng(0).uniform(-0.5, (639.5, 479.5), (200, 2))
    found = ground_points(camera, rotation, HEIGHT, pixels)
    seen = np.isfinite(found).all(axis=1)
    assert (np.hypot(*found[seen].T) <= TAN60 * HEIGHT * (1 + 1e-12)).all()
    rays = camera.rays(pixels) @ rotation.T
    off = np.degrees(np.arccos(-rays[:, 2] / np.linalg.norm(rays, axis=1)))
    np.testing.assert_array_equal(seen, off <= 60.0)


def test_a_camera_aims_at_its_middle_unless_it_sees_too_far() -> None:
    assert aim(CAMERA, camera_to_enu(Mount(), 20.0, 30.0)) is None
    pixel = aim(CAMERA, camera_to_enu(Mount(), 20.0, 60.0))
    assert pixel is not None
    assert pixel[0] == pytest.approx(CAMERA.center[0], abs=1.0)
    # About half of the image looks further: the middle of the lower half.
    assert 300.0 < pixel[1] < 400.0
    with pytest.raises(FrameError, match="does not look at the ground"):
        aim(CAMERA, camera_to_enu(Mount(), 20.0, 120.0))


def area(polygon: Array) -> float:
    x, y = polygon.T
    return 0.5 * float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


def test_footprint_of_a_level_camera() -> None:
    found = footprint(CAMERA, camera_to_enu(Mount(), 0.0), HEIGHT, points_a_side=1)
    across, along = HEIGHT * 320 / CAMERA.fx, HEIGHT * 240 / CAMERA.fx
    expected = {(-across, -along), (across, -along), (across, along), (-across, along)}
    assert {tuple(np.round(point, 6)) for point in found} == {tuple(np.round(point, 6)) for point in expected}
    assert footprint_sides(CAMERA, HEIGHT) == pytest.approx((2 * along, 2 * across))


@settings(max_examples=40, deadline=None)
@given(camera=cameras, rotation=rotations)
def test_the_footprint_is_what_rectification_fills(camera: Camera, rotation: Array) -> None:
    white = np.full((camera.height, camera.width), 255, np.uint8)
    size, gsd = 400, 1.0
    try:
        patch = rectify(white, camera, rotation, HEIGHT, gsd, size, 1)
    except FrameError:  # pitched and rolled beyond 60 degrees
        assume(False)
    outline = footprint(camera, rotation, HEIGHT, points_a_side=16)
    assert area(outline) > 0, "anticlockwise"
    half = (size - 1) / 2
    u, v = np.meshgrid(np.arange(size), np.arange(size))
    x, y = (u - half) * gsd + patch.offset[0], (half - v) * gsd + patch.offset[1]
    inside = contains(outline, x, y)
    # Within a pixel or so of the outline, either may be right.
    edge = np.abs(np.diff(inside.astype(int), axis=0, prepend=0)) + np.abs(
        np.diff(inside.astype(int), axis=1, prepend=0)
    )
    wrong = (inside != (patch.mask > 0)).sum()
    assert wrong <= 2.0 * max(edge.sum(), 20)


def contains(polygon: Array, x: Array, y: Array) -> NDArray[np.bool_]:
    """Which points lie in a polygon, by counting how often its sides are crossed on the way east."""
    inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        across = (ay > y) != (by > y)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= across & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside


def test_the_horizon_is_cut_off_at_sixty_degrees() -> None:
    found = footprint(CAMERA, camera_to_enu(Mount(), 0.0, 60.0), HEIGHT)
    away = np.hypot(*found.T)
    assert away.max() == pytest.approx(HEIGHT * TAN60)
    nearest = HEIGHT * math.tan(math.radians(60.0) - math.atan(240 / CAMERA.fx))
    assert found[:, 1].min() == pytest.approx(nearest)
    wider = footprint(CAMERA, camera_to_enu(Mount(), 0.0, 60.0), HEIGHT, off_nadir_deg=75.0)
    assert np.hypot(*wider.T).max() == pytest.approx(HEIGHT * math.tan(math.radians(75.0)))


def test_a_camera_that_sees_all_of_the_disc_has_a_round_footprint() -> None:
    wide = Camera(640, 640, 180.0, 180.0, 319.5, 319.5, model="fisheye")
    found = footprint(wide, camera_to_enu(Mount(), 30.0, 5.0), HEIGHT)
    np.testing.assert_allclose(np.hypot(*found.T), HEIGHT * TAN60)
    assert area(found) == pytest.approx(math.pi * (HEIGHT * TAN60) ** 2, rel=0.01)
    assert footprint_sides(wide, HEIGHT) == pytest.approx((2 * HEIGHT * TAN60,) * 2)
    np.testing.assert_allclose(np.hypot(*border_rays(wide, 8)[:, :2].T), TAN60)


def test_a_camera_that_looks_up_has_none() -> None:
    assert footprint(CAMERA, camera_to_enu(Mount(), 0.0, 150.0), HEIGHT).shape == (0, 2)


def test_a_lens_that_draws_a_part_of_the_image_has_a_round_footprint() -> None:
    # It folds at 0.41 radians, well inside the picture.
    lens = Camera(640, 640, 300.0, 300.0, 319.5, 319.5, (-2.0, 0.0, 0.0, 0.0), model="fisheye")
    found = footprint(lens, camera_to_enu(Mount(), 0.0), HEIGHT)
    np.testing.assert_allclose(np.hypot(*found.T), HEIGHT * math.tan(6**-0.5), rtol=1e-6)


def test_a_footprint_on_the_earth() -> None:
    rotation = camera_to_enu(Mount(), 40.0, 20.0)
    local = LocalFrame(47.4, 9.7)
    found = footprint_wgs84(CAMERA, rotation, HEIGHT, 47.4, 9.7)
    np.testing.assert_allclose(
        np.column_stack(local.to_local(*found.T)), footprint(CAMERA, rotation, HEIGHT), atol=1e-6
    )
