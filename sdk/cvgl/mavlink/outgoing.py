"""From a fix to the messages that autopilots take. Accuracies are one standard deviation in metres; what was not
measured is NaN, flagged to be ignored, or not sent at all.

PX4 and ArduPilot take one number for both horizontal axes: it is the fix's largest standard deviation, in whatever
direction that is, and rounded up, so that no filter is told more than the localiser claims.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from cvgl.errors import CvglError
from cvgl.fix import Fix
from cvgl.geo import LocalFrame
from cvgl.node.claims import horizontal_covariance

__all__ = ["UNKNOWN_VARIANCE", "WRAP_S", "Target", "Times", "accuracy", "external_position", "global_position"]
__all__ += ["gps_input", "odometry", "vision_position"]

#: ``MAV_CMD_EXTERNAL_POSITION_ESTIMATE``'s time begins again after this many seconds, as the standard has it.
WRAP_S = 250
#: 10 km squared: for numbers that a receiver insists on and nobody measured.
UNKNOWN_VARIANCE = 1e8

_SOURCE_VISION = 2  # GLOBAL_POSITION_SRC_VISION
_EXTERNAL_POSITION = 43003  # MAV_CMD_EXTERNAL_POSITION_ESTIMATE
_FRAME_GLOBAL, _FRAME_LOCAL_NED, _FRAME_BODY_FRD = 0, 1, 12
_ESTIMATOR_VISION = 2
# GPS_INPUT_IGNORE_FLAGS: all but HORIZONTAL_ACCURACY (64): altitude, both dilutions, both velocities, their accuracy
# and that of the altitude.
_IGNORED = 1 | 2 | 4 | 8 | 16 | 32 | 128
_UNKNOWN_DOP = 65_535.0
_FIX_3D = 3


@dataclass(frozen=True)
class Target:
    """Who is addressed.

    Args:
        system, component: of the autopilot.
    """

    system: int
    component: int = 1


@dataclass(frozen=True)
class Times:
    """Nanoseconds on the clock that TIMESYNC tells the autopilot.

    Args:
        exposure: when the frame was taken.
        now: when the message is sent.
    """

    exposure: int
    now: int

    @property
    def spent(self) -> int:
        """From exposure to transmission, nanoseconds; never negative."""
        return max(0, self.now - self.exposure)


def accuracy(fix: Fix) -> float:
    """The standard deviation along the fix's worst direction, metres, as the next number that 4 bytes can hold.

    Raises:
        CvglError: a covariance that cannot be used.
    """
    horizontal_covariance(fix)
    return _up(fix.sigma_m)


def global_position(dialect: Any, fix: Fix, times: Times, target: Target, sensor: int) -> Any:
    """``GLOBAL_POSITION_SENSOR`` (#296), which PX4 takes as an auxiliary global position.

    Args:
        dialect: pymavlink's module of messages.
        fix: with a position.
        times: of exposure and transmission.
        target: the autopilot.
        sensor: 1 to 255: which of the autopilot's slots it is meant for.

    Raises:
        CvglError: a position or covariance that cannot be used.
    """
    return dialect.MAVLink_global_position_sensor_message(
        target.system,
        target.component,
        sensor,
        times.now // 1000,
        min(times.spent // 1000, 2**32 - 1),
        _SOURCE_VISION,
        0,
        *_place(fix),
        math.nan,
        math.nan,
        accuracy(fix),
        math.nan,
    )


def external_position(dialect: Any, fix: Fix, times: Times, target: Target) -> Any:
    """``MAV_CMD_EXTERNAL_POSITION_ESTIMATE`` in a ``COMMAND_INT``, which ArduPilot takes.

    Raises:
        CvglError: a position or covariance that cannot be used.
    """
    sent = times.now % (WRAP_S * 10**9) * 1e-9
    return dialect.MAVLink_command_int_message(
        target.system,
        target.component,
        _FRAME_GLOBAL,
        _EXTERNAL_POSITION,
        0,
        0,
        sent,
        times.spent * 1e-9,
        accuracy(fix),
        0.0,
        *_place(fix),
        math.nan,
    )


def gps_input(dialect: Any, fix: Fix, times: Times, gps_id: int) -> Any:
    """``GPS_INPUT`` (#232): a position and its accuracy, everything else flagged to be ignored.

    The type is that of a fix in three dimensions, since autopilots fuse no other; the altitude is flagged all the same.
    Satellites are none, the time of week is not given, the yaw is not available.

    Raises:
        CvglError: a position or covariance that cannot be used.
    """
    return dialect.MAVLink_gps_input_message(
        times.exposure // 1000,
        gps_id,
        _IGNORED,
        0,
        0,
        _FIX_3D,
        *_place(fix),
        0.0,
        _UNKNOWN_DOP,
        _UNKNOWN_DOP,
        0.0,
        0.0,
        0.0,
        0.0,
        accuracy(fix),
        0.0,
        0,
        0,
    )


def vision_position(dialect: Any, fix: Fix, times: Times, origin: LocalFrame, resets: int) -> Any:
    """``VISION_POSITION_ESTIMATE``: north and east of the autopilot's origin.

    The altitude is 0 with ``UNKNOWN_VARIANCE``, since PX4 takes no position without; attitude is NaN.

    Args:
        dialect: pymavlink's module of messages.
        fix: with a position.
        times: of exposure and transmission.
        origin: of the autopilot's local frame.
        resets: how often the sequence began anew.

    Raises:
        CvglError: a position or covariance that cannot be used.
    """
    north, east = _local(fix, origin)
    return dialect.MAVLink_vision_position_estimate_message(
        times.exposure // 1000, north, east, 0.0, math.nan, math.nan, math.nan, _covariance(fix), resets % 256
    )


def odometry(dialect: Any, fix: Fix, times: Times, origin: LocalFrame, resets: int) -> Any:
    """``ODOMETRY`` in the local north-east-down frame; the same position, velocity and attitude NaN.

    Raises:
        CvglError: a position or covariance that cannot be used.
    """
    north, east = _local(fix, origin)
    unknown = [math.nan] * 21
    return dialect.MAVLink_odometry_message(
        times.exposure // 1000,
        _FRAME_LOCAL_NED,
        _FRAME_BODY_FRD,
        north,
        east,
        0.0,
        [math.nan] * 4,
        *[math.nan] * 6,
        _covariance(fix),
        unknown,
        resets % 256,
        _ESTIMATOR_VISION,
        0,
    )


def _up(value: float) -> float:
    """The next number that 4 bytes can hold."""
    short = np.float32(value)
    return float(short if float(short) >= value else np.nextafter(short, np.float32(np.inf)))


def _place(fix: Fix) -> tuple[int, int]:
    """Latitude and longitude in 1e-7 degrees."""
    if not (abs(fix.latitude) <= 90.0 and abs(fix.longitude) <= 180.0):
        found = (fix.latitude, fix.longitude)
        raise CvglError("a fix without a position", field="latitude, longitude", found=found)
    return round(fix.latitude * 1e7), round(fix.longitude * 1e7)


def _local(fix: Fix, origin: LocalFrame) -> tuple[float, float]:
    _place(fix)
    east, north = origin.to_local(fix.latitude, fix.longitude)
    return float(north), float(east)


def _covariance(fix: Fix) -> list[float]:
    """Upper triangle of x (north), y (east), z, roll, pitch, yaw, row by row."""
    (east, cross), (_, north) = horizontal_covariance(fix)
    values = [math.nan] * 21
    values[0], values[1], values[2] = _up(north), cross, 0.0
    values[6], values[7] = _up(east), 0.0
    values[11] = UNKNOWN_VARIANCE
    return values
