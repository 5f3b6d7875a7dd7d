"""What PX4 and ArduPilot make of the messages, as rules of their own.

``PX4`` as its EKF2 has it (aux_global_position_control.cpp, of 2026): a sample is used where latitude and longitude are
finite; the noise is the greater of ``eph`` and the slot's own; ``epv`` only counts while there is no origin yet; the
sample's time is the transmission's less the processing time. ``ArduPilot`` as GCS_Common.cpp has it: COMMAND_INT in a
global frame, the processing time taken from the transmission time, an accuracy above 0 or NaN for the EKF's own.
"""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymavlink.dialects.v20 import ardupilotmega as dialect
from pymavlink.dialects.v20 import common

from cvgl.errors import CvglError
from cvgl.fix import Fix, FixStatus
from cvgl.geo import LocalFrame
from cvgl.mavlink import outgoing
from cvgl.mavlink.outgoing import Target, Times

TARGET = Target(3)
ORIGIN = LocalFrame(47.0, 9.5)


def received(message: Any, other: Any = dialect) -> Any:
    """The message after its way over the wire, read with a dialect's own definitions."""
    packed = message.pack(dialect.MAVLink(None, 3, 197))
    return other.MAVLink(None).decode(bytearray(packed))


@st.composite
def fixes(draw: st.DrawFn) -> Fix:
    east, north = draw(st.floats(0.01, 500.0)), draw(st.floats(0.01, 500.0))
    cross = draw(st.floats(-0.99, 0.99)) * east * north
    return Fix(
        draw(st.sampled_from([FixStatus.REFINED, FixStatus.COARSE])),
        time=1.0,
        latitude=draw(st.floats(-80.0, 80.0)),
        longitude=draw(st.floats(-180.0, 180.0)),
        covariance=np.array([[east**2, cross], [cross, north**2]]),
    )


@st.composite
def moments(draw: st.DrawFn) -> Times:
    now = draw(st.integers(10**9, 2 * 10**18))
    return Times(now - draw(st.integers(0, 10**9)), now)


@given(fixes(), moments(), st.integers(1, 255))
def test_px4_fuses_every_fix_and_is_told_no_more_than_is_claimed(fix: Fix, times: Times, sensor: int) -> None:
    # The common dialect is the one that PX4 is built with.
    message = received(outgoing.global_position(dialect, fix, times, TARGET, sensor), common)
    assert message.get_type() == "GLOBAL_POSITION_SENSOR" and message.id == sensor
    assert (message.target_system, message.target_component) == (3, 1)
    assert message.source == common.GLOBAL_POSITION_SRC_VISION and message.flags == 0
    assert message.lat * 1e-7 == pytest.approx(fix.latitude, abs=6e-8)
    assert message.lon * 1e-7 == pytest.approx(fix.longitude, abs=6e-8)
    # In no direction is the claim wider than what PX4 will assume: eph squared on both axes covers the covariance.
    assert fix.covariance is not None
    assert message.eph >= fix.sigma_m
    assert np.linalg.eigvalsh(np.eye(2) * message.eph**2 - fix.covariance)[0] >= -1e-6 * message.eph**2
    assert message.eph <= fix.sigma_m * (1 + 1e-6)
    assert math.isnan(message.epv) and math.isnan(message.alt) and math.isnan(message.alt_ellipsoid)
    assert abs(message.time_usec - message.processing_time - times.exposure // 1000) <= 1
    assert message.time_usec == times.now // 1000


@given(fixes(), moments())
def test_ardupilot_takes_every_fix(fix: Fix, times: Times) -> None:
    message = received(outgoing.external_position(dialect, fix, times, TARGET))
    assert message.get_type() == "COMMAND_INT" and message.command == dialect.MAV_CMD_EXTERNAL_POSITION_ESTIMATE
    assert message.frame in (dialect.MAV_FRAME_GLOBAL, dialect.MAV_FRAME_GLOBAL_INT)
    assert (message.current, message.autocontinue) == (0, 0)
    # The sender's time wraps at 250 s, so that 4 bytes tell tens of microseconds.
    sent = times.now % 250_000_000_000 * 1e-9
    assert 0.0 <= message.param1 <= 250.0 and message.param1 == pytest.approx(sent, abs=2e-5)
    assert message.param2 == pytest.approx(times.spent * 1e-9, rel=1e-6)
    assert message.param3 >= fix.sigma_m > 0.0 and math.isnan(message.z)
    assert message.x * 1e-7 == pytest.approx(fix.latitude, abs=6e-8)


@given(fixes(), moments(), st.integers(0, 3))
def test_gps_input_ignores_all_but_the_position_and_its_accuracy(fix: Fix, times: Times, gps: int) -> None:
    message = received(outgoing.gps_input(dialect, fix, times, gps))
    flags = {
        name: bool(message.ignore_flags & number)
        for number, name in ((n, e.name) for n, e in dialect.enums["GPS_INPUT_IGNORE_FLAGS"].items())
        if not name.endswith("ENUM_END")
    }
    assert flags.pop("GPS_INPUT_IGNORE_FLAG_HORIZONTAL_ACCURACY") is False
    assert flags and all(flags.values())
    assert message.horiz_accuracy >= fix.sigma_m and message.gps_id == gps
    assert message.satellites_visible == 0 and message.yaw == 0


@given(fixes(), moments(), st.integers(0, 1000))
def test_local_positions_claim_no_height_and_no_attitude(fix: Fix, times: Times, resets: int) -> None:
    for make in (outgoing.vision_position, outgoing.odometry):
        near = LocalFrame(fix.latitude + 0.001, max(-179.0, min(179.0, fix.longitude)))
        message = received(make(dialect, fix, times, near, resets))
        covariance = message.covariance if make is outgoing.vision_position else message.pose_covariance
        assert fix.covariance is not None
        assert covariance[0] >= fix.covariance[1, 1] and covariance[6] >= fix.covariance[0, 0]
        assert covariance[11] >= 1e8 and message.z == 0.0
        # Roll, pitch, yaw: unknown.
        assert all(math.isnan(covariance[index]) for index in (15, 18, 20))
        assert message.reset_counter == resets % 256


@pytest.mark.parametrize(
    "changes",
    [
        {"covariance": None},
        {"covariance": np.zeros((2, 2))},
        {"covariance": np.array([[4.0, 0.0], [0.0, math.nan]])},
        {"covariance": np.array([[1.0, 2.0], [2.0, 1.0]])},
        {"latitude": math.nan},
        {"longitude": math.inf},
    ],
)
@pytest.mark.parametrize("make", [outgoing.external_position, outgoing.global_position])
def test_a_claim_that_no_filter_can_use_is_not_sent(make: Any, changes: dict[str, Any]) -> None:
    values = {"latitude": 47.0, "longitude": 9.5, "covariance": np.eye(2), **changes}
    fix = Fix(FixStatus.REFINED, 1.0, **values)
    extra = (1,) if make is outgoing.global_position else ()
    with pytest.raises(CvglError):
        make(dialect, fix, Times(0, 1), TARGET, *extra)


@pytest.mark.parametrize("sigma", [1.0, 1.0 / 3.0, 2.7182818284590451, 123.456789])
def test_rounding_to_four_bytes_is_upward(sigma: float) -> None:
    fix = Fix(FixStatus.REFINED, 1.0, latitude=1.0, longitude=2.0, covariance=np.eye(2) * sigma**2)
    (short,) = struct.unpack("f", struct.pack("f", outgoing.accuracy(fix)))
    assert short >= fix.sigma_m
