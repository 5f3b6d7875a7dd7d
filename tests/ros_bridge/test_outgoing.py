"""What the consumers of NavSatFix rely on: real altitude and covariance, exposure time, nothing invented."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus
from cvgl_ros.messages import (
    COVARIANCE_TYPE_KNOWN,
    COVARIANCE_TYPE_UNKNOWN,
    STATUS_FIX,
    STATUS_NO_FIX,
    Altitude,
    nav_sat_fields,
    stamp_of,
)

FIX = Fix(
    FixStatus.REFINED,
    time=1730253915.25,
    latitude=24.25,
    longitude=120.72,
    covariance=np.array([[4.0, 1.5], [1.5, 9.0]]),
)
ALTITUDE = Altitude(ellipsoid_m=375.6, sigma_m=3.0)


@pytest.mark.parametrize("status", [FixStatus.REFINED, FixStatus.COARSE])
def test_a_fix_becomes_a_position(status: FixStatus) -> None:
    fields = nav_sat_fields(replace(FIX, status=status), ALTITUDE, "base_link")
    assert fields
    assert fields.status == STATUS_FIX
    assert fields.service == 0
    assert (fields.latitude, fields.longitude, fields.altitude) == (24.25, 120.72, 375.6)
    assert fields.frame_id == "base_link"
    assert fields.stamp == (1730253915, 250_000_000)


def test_covariance_is_east_north_up_row_major() -> None:
    fields = nav_sat_fields(FIX, ALTITUDE, "base_link")
    assert fields.position_covariance == (4.0, 1.5, 0.0, 1.5, 9.0, 0.0, 0.0, 0.0, 9.0)
    assert fields.position_covariance_type == COVARIANCE_TYPE_KNOWN


def test_no_fix_is_no_position() -> None:
    fields = nav_sat_fields(Fix.none(12.0, "nothing agrees"), ALTITUDE, "base_link")
    assert not fields
    assert fields.status == STATUS_NO_FIX
    assert math.isnan(fields.latitude) and math.isnan(fields.longitude)
    assert fields.altitude == 375.6
    assert fields.position_covariance_type == COVARIANCE_TYPE_UNKNOWN


def test_stamp_of_the_image_is_kept_to_the_nanosecond() -> None:
    stamp = (1730253915, 250_000_001)
    assert nav_sat_fields(FIX, ALTITUDE, "cam", stamp=stamp).stamp == stamp


@given(st.floats(0, 4e9))
def test_stamp_is_the_time(time: float) -> None:
    seconds, nanoseconds = stamp_of(time)
    assert 0 <= nanoseconds < 1_000_000_000
    assert seconds + nanoseconds * 1e-9 == pytest.approx(time, abs=1e-6)


def test_stamp_carries_into_the_next_second() -> None:
    assert stamp_of(math.nextafter(2.0, 0.0)) == (2, 0)
    assert stamp_of(-0.25) == (-1, 750_000_000)


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
    with pytest.raises(CvglError, match="covariance"):
        nav_sat_fields(replace(FIX, covariance=covariance), ALTITUDE, "base_link")


def test_a_position_that_is_not_finite_is_refused() -> None:
    with pytest.raises(CvglError, match="latitude"):
        nav_sat_fields(replace(FIX, latitude=math.nan), ALTITUDE, "base_link")


def test_frame_id_is_required() -> None:
    with pytest.raises(CvglError, match="frame_id"):
        nav_sat_fields(FIX, ALTITUDE, "")


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
