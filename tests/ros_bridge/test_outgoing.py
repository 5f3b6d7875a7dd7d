"""What the consumers of the messages rely on: real altitude and covariance, exposure time, nothing invented."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus
from cvgl.geo import LocalFrame
from cvgl.node.attitude import Attitude
from cvgl_ros.msgs import Time
from cvgl_ros.outgoing import (
    COVARIANCE_TYPE_KNOWN,
    COVARIANCE_TYPE_UNKNOWN,
    STATUS_FIX,
    STATUS_NO_FIX,
    UNKNOWN_ANGLE_VARIANCE,
    UNKNOWN_HEIGHT_VARIANCE,
    Altitude,
    MapFrame,
    PoseSigmas,
    map_origin,
    nanoseconds_of,
    nav_sat_fix,
    pose_of,
    time_of,
    transform_of,
)

FIX = Fix(
    FixStatus.REFINED,
    time=1730253915.25,
    latitude=24.25,
    longitude=120.72,
    covariance=np.array([[4.0, 1.5], [1.5, 9.0]]),
    heading_deg=30.0,
    heading_sigma_deg=2.0,
)
ALTITUDE = Altitude(ellipsoid_m=375.6, sigma_m=3.0)
STAMP = Time(1730253915, 250_000_001)
LEVEL = Attitude(28.0, 1.0, -2.0)
SIGMAS = PoseSigmas(tilt_deg=1.5, heading_deg=6.0)
MAP = MapFrame("map", LocalFrame(24.25, 120.72), altitude_m=300.0)


@pytest.mark.parametrize("status", [FixStatus.REFINED, FixStatus.COARSE])
def test_a_fix_becomes_a_position(status: FixStatus) -> None:
    message = nav_sat_fix(replace(FIX, status=status), ALTITUDE, "base_link", STAMP)
    assert message.status.status == STATUS_FIX
    assert message.status.service == 0
    assert (message.latitude, message.longitude, message.altitude) == (24.25, 120.72, 375.6)
    assert message.header.frame_id == "base_link"
    assert message.header.stamp == STAMP


def test_covariance_is_east_north_up_row_major() -> None:
    message = nav_sat_fix(FIX, ALTITUDE, "base_link", STAMP)
    assert message.position_covariance == (4.0, 1.5, 0.0, 1.5, 9.0, 0.0, 0.0, 0.0, 9.0)
    assert message.position_covariance_type == COVARIANCE_TYPE_KNOWN


def test_no_fix_is_no_position() -> None:
    message = nav_sat_fix(Fix.none(12.0, "nothing agrees"), ALTITUDE, "base_link", STAMP)
    assert message.status.status == STATUS_NO_FIX
    assert math.isnan(message.latitude) and math.isnan(message.longitude)
    assert message.altitude == 375.6
    assert message.position_covariance_type == COVARIANCE_TYPE_UNKNOWN


@given(st.integers(-(2**31) * 10**9, (2**31 - 1) * 10**9))
def test_stamps_are_kept_to_the_nanosecond(nanoseconds: int) -> None:
    stamp = time_of(nanoseconds)
    assert 0 <= stamp.nanosec < 1_000_000_000
    assert nanoseconds_of(stamp) == nanoseconds


def test_stamps_before_the_epoch() -> None:
    assert time_of(-250_000_000) == Time(-1, 750_000_000)


@pytest.mark.parametrize(
    "covariance",
    [
        None,
        np.zeros((2, 2)),
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        np.full((2, 2), np.nan),
        np.diag([np.inf, 1.0]),
        np.eye(3),
    ],
)
def test_a_position_without_a_usable_covariance_is_refused(covariance: np.ndarray | None) -> None:
    fix = replace(FIX, covariance=covariance)
    with pytest.raises(CvglError, match="covariance"):
        nav_sat_fix(fix, ALTITUDE, "base_link", STAMP)
    with pytest.raises(CvglError, match="covariance"):
        pose_of(fix, ALTITUDE, LEVEL, SIGMAS, MAP, STAMP)


def test_a_position_that_is_not_finite_is_refused() -> None:
    with pytest.raises(CvglError, match="latitude"):
        nav_sat_fix(replace(FIX, latitude=math.nan), ALTITUDE, "base_link", STAMP)


def test_frame_id_is_required() -> None:
    with pytest.raises(CvglError, match="frame_id"):
        nav_sat_fix(FIX, ALTITUDE, "", STAMP)


@pytest.mark.parametrize(
    ("ellipsoid_m", "sigma_m", "field"),
    [
        (math.nan, 1.0, "altitude"),
        (math.inf, 1.0, "altitude"),
        (1.0, 0.0, "altitude_sigma_m"),
        (1.0, math.nan, "altitude_sigma_m"),
    ],
)
def test_altitude_is_never_unknown(ellipsoid_m: float, sigma_m: float, field: str) -> None:
    with pytest.raises(CvglError, match=field):
        Altitude(ellipsoid_m, sigma_m)


def test_a_pose_lies_in_the_map_frame() -> None:
    latitude, longitude = MAP.local.to_wgs84(30.0, -40.0)
    fix = replace(FIX, latitude=float(latitude), longitude=float(longitude))
    message = pose_of(fix, ALTITUDE, LEVEL, SIGMAS, MAP, STAMP)
    at = message.pose.pose.position
    assert (at.x, at.y, at.z) == pytest.approx((30.0, -40.0, 75.6), abs=1e-6)
    assert message.header.frame_id == "map"
    assert message.header.stamp == STAMP
    covariance = np.reshape(message.pose.covariance, (6, 6))
    assert covariance[:2, :2].tolist() == [[4.0, 1.5], [1.5, 9.0]]
    tilt = math.radians(1.5) ** 2
    assert np.diag(covariance)[2:] == pytest.approx([9.0, tilt, tilt, math.radians(2.0) ** 2])
    transform = transform_of(message, "base_link")
    assert (transform.child_frame_id, transform.transform.translation.x) == ("base_link", at.x)


def test_the_matched_heading_is_preferred_and_telemetrys_stands_in() -> None:
    # Heading 30 is yaw 60 from east, whose half is 30: sin 30 = 0.5.
    level = Attitude(90.0, 0.0, 0.0)
    assert pose_of(FIX, None, level, SIGMAS, MAP, STAMP).pose.pose.orientation.z == pytest.approx(0.5)
    unmatched = replace(FIX, heading_deg=math.nan, heading_sigma_deg=math.nan)
    message = pose_of(unmatched, None, level, SIGMAS, MAP, STAMP)
    assert message.pose.pose.orientation.w == pytest.approx(1.0)
    assert message.pose.covariance[35] == pytest.approx(math.radians(6.0) ** 2)


def test_what_nobody_measured_is_said_to_be_unknown() -> None:
    fix = replace(FIX, heading_deg=math.nan, heading_sigma_deg=math.nan)
    message = pose_of(fix, None, Attitude(None), SIGMAS, MAP, STAMP)
    unknown = [UNKNOWN_HEIGHT_VARIANCE, *[UNKNOWN_ANGLE_VARIANCE] * 3]
    assert [message.pose.covariance[7 * i] for i in range(2, 6)] == unknown
    assert message.pose.pose.position.z == 0.0


def test_the_maps_origin_is_no_fix_that_a_filter_would_fuse() -> None:
    message = map_origin(MAP, STAMP)
    assert message.status.status == STATUS_NO_FIX
    assert (message.latitude, message.longitude, message.altitude) == (24.25, 120.72, 300.0)
    assert message.header.frame_id == "map"
