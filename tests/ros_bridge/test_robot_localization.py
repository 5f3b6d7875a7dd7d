"""What robot_localization does with the messages, as rules of its own.

``accepted`` states when navsat_transform_node uses a NavSatFix, and ``usable`` what an EKF needs of a covariance, as
the source of robot_localization (Humble and Jazzy) has it: status is not NO_FIX, and latitude, longitude and altitude
are numbers; the covariance is taken as it is, whatever its type says; an empty frame_id means "at the robot's origin".
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus
from cvgl.geo import LocalFrame
from cvgl.node.attitude import Attitude
from cvgl_ros.msgs import NavSatFix, Time
from cvgl_ros.outgoing import PLANAR, Altitude, MapFrame, PoseSigmas, map_origin, nav_sat_fix, pose_of

STAMP = Time(1730253915, 1)
MAP = MapFrame("map", LocalFrame(47.0, 9.5))


def accepted(message: NavSatFix) -> bool:
    numbers = (message.latitude, message.longitude, message.altitude)
    return message.status.status != -1 and not any(math.isnan(number) for number in numbers)


def usable(covariance: np.ndarray) -> bool:
    return bool(
        np.isfinite(covariance).all()
        and np.allclose(covariance, covariance.T)
        and (np.diag(covariance) > 0).all()
        and np.linalg.eigvalsh(covariance)[0] > 0
    )


@st.composite
def fixes(draw: st.DrawFn) -> Fix:
    status = draw(st.sampled_from(list(FixStatus)))
    if status is FixStatus.NO_FIX:
        return Fix.none(1.0, "nothing agrees")
    east, north = draw(st.floats(0.01, 500.0)), draw(st.floats(0.01, 500.0))
    correlation = draw(st.floats(-0.99, 0.99))
    known = draw(st.booleans())
    return Fix(
        status,
        time=1.0,
        latitude=draw(st.floats(46.9, 47.1)),
        longitude=draw(st.floats(9.4, 9.6)),
        covariance=np.array([[east**2, correlation * east * north], [correlation * east * north, north**2]]),
        heading_deg=draw(st.floats(0, 360)) if known else math.nan,
        heading_sigma_deg=draw(st.floats(0, 20)) if known else math.nan,
    )


ALTITUDES = st.one_of(st.just(PLANAR), st.builds(Altitude, st.floats(-500, 9000), st.floats(0.01, 1e4)))
ANGLES = st.one_of(st.none(), st.floats(-80, 80))


@given(fixes(), ALTITUDES)
def test_every_fix_is_accepted_and_nothing_else(fix: Fix, altitude: Altitude) -> None:
    message = nav_sat_fix(fix, altitude, "base_link", STAMP)
    assert accepted(message) == bool(fix)
    assert message.header.frame_id
    if fix:
        assert message.position_covariance_type == 3
        assert usable(np.reshape(message.position_covariance, (3, 3)))
        # East and north as the localiser claims them, not less.
        horizontal = np.reshape(message.position_covariance, (3, 3))[:2, :2]
        np.testing.assert_array_equal(horizontal, fix.covariance)


@given(fixes(), st.one_of(st.none(), ALTITUDES), ANGLES, ANGLES, ANGLES)
def test_every_pose_can_be_fused(
    fix: Fix, altitude: Altitude | None, heading: float | None, pitch: float | None, roll: float | None
) -> None:
    if not fix:
        return
    message = pose_of(fix, altitude, Attitude(heading, pitch, roll), PoseSigmas(1.5, 6.0), MAP, STAMP)
    assert usable(np.reshape(message.pose.covariance, (6, 6)))
    turn = message.pose.pose.orientation
    assert math.hypot(turn.x, turn.y, turn.z, turn.w) == pytest.approx(1.0)
    at = message.pose.pose.position
    assert all(math.isfinite(value) for value in (at.x, at.y, at.z))
    assert message.header.frame_id == "map"


def test_the_maps_origin_is_not_taken_for_a_fix() -> None:
    assert not accepted(map_origin(MAP, STAMP))


@given(st.floats(allow_nan=True, allow_infinity=True), st.floats(allow_nan=True, allow_infinity=True))
def test_no_altitude_that_would_be_dropped_or_believed_blindly_can_be_stated(value: float, sigma: float) -> None:
    try:
        altitude = Altitude(value, sigma)
    except CvglError:
        assert not (math.isfinite(value) and math.isfinite(sigma) and sigma > 0)
        return
    assert math.isfinite(altitude.ellipsoid_m) and altitude.sigma_m > 0
