"""ROS' attitudes and flight's say the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.geometry import rotation_body_to_ned
from cvgl.node.attitude import (
    Attitude,
    attitude_of,
    interpolate_degrees,
    interpolate_quaternion,
    turn_of,
)

# Axes of NED in ENU, and of forward-right-down in forward-left-up.
ENU_FROM_NED = np.array([[0, 1, 0], [1, 0, 0], [0, 0, -1]])
FRD_FROM_FLU = np.diag([1, -1, -1])


def matrix(turn: tuple[float, float, float, float]) -> np.ndarray:
    x, y, z, w = turn
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(st.floats(0, 359.9), st.floats(-80, 80), st.floats(-170, 170))
def test_quaternions_are_the_sdks_rotations(heading: float, pitch: float, roll: float) -> None:
    turn = turn_of(Attitude(heading, pitch, roll))
    expected = ENU_FROM_NED @ rotation_body_to_ned(heading, pitch, roll) @ FRD_FROM_FLU
    np.testing.assert_allclose(matrix(turn), expected, atol=1e-12)
    back = attitude_of(turn)
    assert back.heading is not None and back.pitch is not None and back.roll is not None
    assert math.cos(math.radians(back.heading - heading)) == pytest.approx(1.0)
    assert (back.pitch, back.roll) == pytest.approx((pitch, roll), abs=1e-6)


@pytest.mark.parametrize(
    ("turn", "heading"),
    [
        ((0.0, 0.0, 0.0, 1.0), 90.0),  # no rotation: forward is east
        ((0.0, 0.0, math.sqrt(0.5), math.sqrt(0.5)), 0.0),  # a quarter anticlockwise: north
        ((0.0, 0.0, 1.0, 0.0), 270.0),
    ],
)
def test_heading_of_known_turns(turn: tuple[float, float, float, float], heading: float) -> None:
    attitude = attitude_of(turn)
    assert attitude.heading is not None
    assert math.cos(math.radians(attitude.heading - heading)) == pytest.approx(1.0)
    assert (attitude.pitch, attitude.roll) == pytest.approx((0.0, 0.0))


@pytest.mark.parametrize(
    ("first", "second", "share", "expected"),
    [(350.0, 10.0, 0.5, 0.0), (10.0, 350.0, 0.25, 5.0), (90.0, 100.0, 0.0, 90.0), (359.0, 359.0, 0.3, 359.0)],
)
def test_directions_go_the_shorter_way(first: float, second: float, share: float, expected: float) -> None:
    assert interpolate_degrees(first, second, share) == pytest.approx(expected)


def test_turns_go_the_shorter_way_whatever_their_sign() -> None:
    first, second = turn_of(Attitude(350.0, 0.0, 0.0)), turn_of(Attitude(10.0, 4.0, -8.0))
    for sign in (1, -1):
        flipped = tuple(sign * value for value in second)
        middle = attitude_of(interpolate_quaternion(first, flipped, 0.5))  # type: ignore[arg-type]
        assert middle.heading is not None
        assert math.cos(math.radians(middle.heading)) == pytest.approx(1.0, abs=1e-3)
        assert (middle.pitch, middle.roll) == pytest.approx((2.0, -4.0), abs=0.4)
