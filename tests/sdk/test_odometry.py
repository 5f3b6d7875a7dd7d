"""Two frames tell how far the aircraft went between them, or that they do not know."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cvgl.geometry import Mount, camera_to_enu
from cvgl.odometry import Glimpse, Odometer, compare
from cvgl.rectify import rectify

HEIGHT = 80.0


def glimpse(place: Any, east: float, north: float, heading: float = 20.0, told: float = 20.0) -> Glimpse:
    grey = place.grey_frame(east, north, HEIGHT, heading)
    return Glimpse(rectify(grey, place.camera, camera_to_enu(Mount(), told), HEIGHT, 0.6, 192), HEIGHT, 0.0)


@pytest.mark.parametrize("step", [(0.0, 0.0), (3.0, -2.0), (12.0, 8.0), (-25.0, 10.0)])
def test_the_step_between_two_frames(place: Any, step: tuple[float, float]) -> None:
    found = compare(glimpse(place, 5.0, 5.0), glimpse(place, 5.0 + step[0], 5.0 + step[1]), 0.5, 0.03, 1.0)
    assert found is not None and found.quality > 0.7
    assert (found.east, found.north) == pytest.approx(step, abs=0.6)
    assert abs(found.turn_deg) < 0.5 and abs(found.scale) < 0.02
    error = np.array([found.east, found.north]) - step
    assert error @ np.linalg.solve(found.covariance, error) < 9.0


def test_a_turn_that_the_heading_does_not_tell(place: Any) -> None:
    found = compare(glimpse(place, 0.0, 0.0), glimpse(place, 6.0, 0.0, heading=25.0), 0.5, 0.03, 1.0)
    assert found is not None
    assert abs(found.turn_deg) == pytest.approx(5.0, abs=0.5)
    assert (found.east, found.north) == pytest.approx((6.0, 0.0), abs=0.6)


def test_frames_without_common_ground_say_nothing(place: Any) -> None:
    assert compare(glimpse(place, -90.0, -90.0), glimpse(place, 90.0, 90.0), 0.5, 0.03, 1.0) is None


def test_nothing_to_see_says_nothing(place: Any) -> None:
    one = glimpse(place, 0.0, 0.0)
    one.patch.image[:] = 128
    assert compare(one, one, 0.5, 0.03, 1.0) is None


def test_velocities_of_a_sequence(place: Any) -> None:
    odometer, rotation = Odometer(0.03, 1.0, 20.0), camera_to_enu(Mount(), 20.0)
    found = []
    for index in range(6):
        grey = place.grey_frame(-20.0 + 4.0 * index, 2.0 * index, HEIGHT, 20.0)
        found.append(odometer.velocity(grey, place.camera, rotation, HEIGHT, 0.5 * index, 0.3))
    assert found[0] is None
    for each in found[1:]:
        assert each is not None
        assert each[0] == pytest.approx((8.0, 4.0), abs=1.5) and 0.0 < each[1] < 3.0
    # A clock that stands still or jumps has no velocity.
    assert odometer.velocity(grey, place.camera, rotation, HEIGHT, 1.0, 0.3) is None
    assert odometer.velocity(grey, place.camera, rotation, HEIGHT, 1e6, 0.3) is None
