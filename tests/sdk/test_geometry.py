"""Attitudes a pilot can picture, and rotations that are rotations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.geometry import Mount, camera_to_enu, rotation_body_to_ned, wrap_degrees

LEVEL = Mount()
EAST, NORTH, UP = np.eye(3)
SOUTH, WEST, DOWN = -NORTH, -EAST, -UP
RIGHT_OF_IMAGE, BOTTOM_OF_IMAGE, AXIS = np.eye(3)
FORWARD, STARBOARD, BELLY = np.eye(3)
TOP_OF_IMAGE = -BOTTOM_OF_IMAGE

angles = st.floats(-360.0, 360.0)
mounts = st.builds(Mount, roll_deg=angles, pitch_deg=angles, yaw_deg=angles)


def sloped(direction: np.ndarray, degrees: float) -> np.ndarray:
    """Down, swung up towards a horizontal direction."""
    return np.cos(np.radians(degrees)) * DOWN + np.sin(np.radians(degrees)) * direction


@pytest.mark.parametrize(
    ("heading", "up", "right"),
    [
        (0, NORTH, EAST),
        (90, EAST, SOUTH),
        (180, SOUTH, WEST),
        (270, WEST, NORTH),
        (-90, WEST, NORTH),
        (450, EAST, SOUTH),
    ],
)
def test_heading_turns_the_image_clockwise(heading: float, up: np.ndarray, right: np.ndarray) -> None:
    rotation = camera_to_enu(LEVEL, heading)
    np.testing.assert_allclose(rotation @ TOP_OF_IMAGE, up, atol=1e-12)
    np.testing.assert_allclose(rotation @ RIGHT_OF_IMAGE, right, atol=1e-12)
    np.testing.assert_allclose(rotation @ AXIS, DOWN, atol=1e-12)


@pytest.mark.parametrize(
    ("heading", "pitch", "roll", "axis"),
    [
        (0, 10, 0, sloped(NORTH, 10)),  # nose up: the camera below it looks ahead
        (0, -10, 0, sloped(SOUTH, 10)),
        (90, 10, 0, sloped(EAST, 10)),
        (0, 0, 10, sloped(WEST, 10)),  # right side down: the belly swings out to the left
        (0, 0, -10, sloped(EAST, 10)),
        (90, 0, 10, sloped(NORTH, 10)),
        (180, 30, 0, sloped(SOUTH, 30)),
        (0, 90, 0, NORTH),
    ],
)
@pytest.mark.parametrize("on_the_mount", [False, True])
def test_where_the_optical_axis_points(
    heading: float, pitch: float, roll: float, axis: np.ndarray, on_the_mount: bool
) -> None:
    if on_the_mount:
        rotation = camera_to_enu(Mount(roll_deg=roll, pitch_deg=pitch), heading)
    else:
        rotation = camera_to_enu(LEVEL, heading, pitch, roll)
    np.testing.assert_allclose(rotation @ AXIS, axis, atol=1e-12)


def test_forward_camera_sees_the_sky_above_and_the_right_at_right() -> None:
    rotation = camera_to_enu(Mount(pitch_deg=90.0), heading_deg=90.0)
    np.testing.assert_allclose(rotation @ AXIS, EAST, atol=1e-12)
    np.testing.assert_allclose(rotation @ TOP_OF_IMAGE, UP, atol=1e-12)
    np.testing.assert_allclose(rotation @ RIGHT_OF_IMAGE, SOUTH, atol=1e-12)


@pytest.mark.parametrize(
    ("attitude", "body", "ned"),
    [
        ((90, 0, 0), FORWARD, [0, 1, 0]),
        ((0, 90, 0), FORWARD, [0, 0, -1]),  # nose up
        ((0, 0, 90), STARBOARD, [0, 0, 1]),  # right side down
        ((0, 0, 90), BELLY, [0, -1, 0]),
        ((90, 90, 0), FORWARD, [0, 0, -1]),  # heading is applied last: a loop started eastwards
        ((90, 90, 0), BELLY, [0, 1, 0]),
    ],
)
def test_aerospace_angles(attitude: tuple[float, float, float], body: np.ndarray, ned: list[float]) -> None:
    np.testing.assert_allclose(rotation_body_to_ned(*attitude) @ body, ned, atol=1e-12)


@given(mount=mounts, heading=angles, pitch=angles, roll=angles)
def test_any_attitude_is_a_rotation(mount: Mount, heading: float, pitch: float, roll: float) -> None:
    rotation = camera_to_enu(mount, heading, pitch, roll)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1.0)


@given(yaw=angles, heading=angles)
def test_mount_yaw_adds_to_the_heading(yaw: float, heading: float) -> None:
    together = camera_to_enu(LEVEL, heading + yaw)
    np.testing.assert_allclose(camera_to_enu(Mount(yaw_deg=yaw), heading), together, atol=1e-12)


@given(mounted=angles, pitch=angles, heading=angles)
def test_mount_pitch_adds_to_the_pitch(mounted: float, pitch: float, heading: float) -> None:
    together = camera_to_enu(LEVEL, heading, pitch + mounted)
    np.testing.assert_allclose(camera_to_enu(Mount(pitch_deg=mounted), heading, pitch), together, atol=1e-12)


@given(mounted=angles, roll=angles, heading=angles)
def test_mount_roll_adds_to_the_roll(mounted: float, roll: float, heading: float) -> None:
    together = camera_to_enu(LEVEL, heading, 0.0, roll + mounted)
    np.testing.assert_allclose(camera_to_enu(Mount(roll_deg=mounted), heading, 0.0, roll), together, atol=1e-12)


@given(mount=mounts, heading=angles, pitch=angles, roll=angles, turn=angles)
def test_turning_the_vehicle_turns_all_it_sees_about_the_vertical(
    mount: Mount, heading: float, pitch: float, roll: float, turn: float
) -> None:
    before, after = (camera_to_enu(mount, h, pitch, roll) for h in (heading, heading + turn))
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    clockwise = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    np.testing.assert_allclose(after, clockwise @ before, atol=1e-12)


@pytest.mark.parametrize(
    ("angle", "expected"),
    [(0, 0), (179, 179), (180, -180), (-180, -180), (181, -179), (-181, 179), (360, 0), (725, 5), (-725, -5)],
)
def test_wrap(angle: float, expected: float) -> None:
    assert wrap_degrees(angle) == pytest.approx(expected)


@given(angle=st.floats(-1e6, 1e6))
def test_wrapped_is_the_same_direction(angle: float) -> None:
    wrapped = wrap_degrees(angle)
    assert -180.0 <= wrapped <= 180.0  # 180 itself where the last bit of a float is rounded
    assert np.cos(np.radians(wrapped)) == pytest.approx(np.cos(np.radians(angle)), abs=1e-6)
    assert np.sin(np.radians(wrapped)) == pytest.approx(np.sin(np.radians(angle)), abs=1e-6)
