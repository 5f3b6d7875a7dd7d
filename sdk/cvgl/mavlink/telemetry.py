"""What an autopilot says of itself, checked and kept by time: attitude, height above ground, velocity, camera triggers.

Stamps of the autopilot (time since its boot) become ours by TIMESYNC; until that is known a message counts from when it
arrived. Heights, in the order of their preference:

- ``range``: DISTANCE_SENSOR, looking down, within its own limits, corrected for the lean of the body. A measurement of
  what the camera sees.
- ``clearance``: ALTITUDE.bottom_clearance, the autopilot's own estimate from its range finder.
- ``terrain``: TERRAIN_REPORT.current_height, altitude less the terrain database where the autopilot believes itself
  to be: as wrong as that position is in hilly country.
- ``relative``: GLOBAL_POSITION_INT.relative_alt, above the take-off: right over level ground only.

Velocity is the autopilot's estimate (LOCAL_POSITION_NED), which this node's own fixes go into. It is used where that is
asked for, while the autopilot says that the estimate is good, and never while it reports a GNSS fix: a false GNSS would
come back in through it.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from cvgl.errors import FrameError
from cvgl.mavlink.timesync import ClockOffset
from cvgl.node.attitude import Attitude, Turn, attitude_of, interpolate_quaternion, turn_of
from cvgl.node.tracks import NANOSECONDS, Track, linear

__all__ = ["HEIGHTS", "MESSAGES", "Telemetry", "between"]

#: Sources of height, best first, with the age (seconds) from which on they are not used: measurements come at 5 Hz and
#: more, TERRAIN_REPORT at 1 to 2 Hz.
HEIGHTS = {"range": 0.5, "clearance": 0.5, "terrain": 2.0, "relative": 1.0}
#: What is listened to, and at which rate (Hz) it is asked for; 0 is not asked for.
MESSAGES = {
    "ATTITUDE_QUATERNION": 50.0,
    "ATTITUDE": 0.0,
    "DISTANCE_SENSOR": 10.0,
    "ALTITUDE": 10.0,
    "TERRAIN_REPORT": 2.0,
    "GLOBAL_POSITION_INT": 10.0,
    "LOCAL_POSITION_NED": 10.0,
    "ESTIMATOR_STATUS": 1.0,
    "EKF_STATUS_REPORT": 1.0,
    "GPS_RAW_INT": 1.0,
    "GPS2_RAW": 0.0,
    "CAMERA_TRIGGER": 0.0,
    "CAMERA_IMAGE_CAPTURED": 0.0,
    "GPS_GLOBAL_ORIGIN": 0.0,
}

_JUMP_S = 1.0
_ATTITUDE_AGE_S = 0.5
_VELOCITY_AGE_S = 0.5
# A stamp that is further from now than this is not of this flight: a clock that was set, or a lie.
_OLDEST_S, _AHEAD_S = 5.0, 0.2
_DOWNWARD = 25  # MAV_SENSOR_ROTATION_PITCH_270
_INVALID_SIGNAL = 1
_VELOCITY_HORIZ = 2  # both ESTIMATOR_VELOCITY_HORIZ and EKF_VELOCITY_HORIZ
_BELIEVED_S, _GNSS_S = 5.0, 10.0
_GNSS_2D = 2
_TRIGGERS = 64
# Microseconds since 1970 are larger than any time since boot.
_UNIX_US = 10**15


class Telemetry:
    """Not locked: the node calls it under its worker's lock.

    Args:
        offset: the autopilot's clock.
        height: a name of ``HEIGHTS`` that alone is to be used, or ``auto``.
    """

    def __init__(self, offset: ClockOffset, height: str = "auto") -> None:
        self._offset = offset
        self._sources = tuple(HEIGHTS) if height == "auto" else (height,)
        self.attitudes: Track[Turn] = Track(interpolate_quaternion, _ATTITUDE_AGE_S, _JUMP_S)
        self.heights = {name: Track(linear, HEIGHTS[name], _JUMP_S) for name in self._sources}
        self._velocities: Track[tuple[float, float]] = Track(between, _VELOCITY_AGE_S, _JUMP_S)
        self._triggers: deque[int] = deque(maxlen=_TRIGGERS)
        self._believed_at = self._gnss_at = -(10**18)
        self.origin: tuple[float, float] | None = None
        self.last_height = ""

    def take(self, message: Any, now: int) -> str:
        """Note a message.

        Args:
            message: as pymavlink decodes it, one of ``MESSAGES``.
            now: nanoseconds on our clock.

        Returns:
            What it measured, for the node's health; empty if nothing that is waited for.

        Raises:
            FrameError: it cannot be used.
        """
        kind = message.get_type()
        if kind in ("ATTITUDE", "ATTITUDE_QUATERNION"):
            self.attitudes.add(self._stamp(message, now), _turn(message))
            return "attitude"
        if kind == "DISTANCE_SENSOR":
            if message.orientation != _DOWNWARD:
                return ""
            return self._height("range", self._stamp(message, now), _distance(message))
        if kind == "ALTITUDE":
            # Its clock is not said; a negative value or NaN stands for none.
            if not message.bottom_clearance > 0:
                return ""
            return self._height("clearance", now, _bounded(message.bottom_clearance, "bottom_clearance", 0.0, 20_000.0))
        if kind == "TERRAIN_REPORT":
            if message.spacing == 0 or message.loaded == 0:
                return ""
            return self._height("terrain", now, _bounded(message.current_height, "current_height", -100.0, 20_000.0))
        if kind == "GLOBAL_POSITION_INT":
            relative = _bounded(message.relative_alt * 1e-3, "relative_alt", -2_000.0, 20_000.0)
            return self._height("relative", self._stamp(message, now), relative)
        if kind == "LOCAL_POSITION_NED":
            north, east = (_bounded(value, "velocity", -1_000.0, 1_000.0) for value in (message.vx, message.vy))
            self._velocities.add(self._stamp(message, now), (east, north))
        elif kind in ("ESTIMATOR_STATUS", "EKF_STATUS_REPORT"):
            self._believed_at = now if message.flags & _VELOCITY_HORIZ else -(10**18)
        elif kind in ("GPS_RAW_INT", "GPS2_RAW"):
            self._gnss_at = now if message.fix_type >= _GNSS_2D else self._gnss_at
        elif kind == "CAMERA_TRIGGER":
            if message.time_usec >= _UNIX_US:
                raise FrameError("on another clock", field="time_usec", expected="microseconds since boot")
            self._triggers.append(self._dated(message.time_usec * 1000, now))
        elif kind == "CAMERA_IMAGE_CAPTURED" and message.capture_result == 1:
            self._triggers.append(self._stamp(message, now))
        elif kind == "GPS_GLOBAL_ORIGIN":
            latitude = _bounded(message.latitude * 1e-7, "origin.latitude", -90.0, 90.0)
            self.origin = latitude, _bounded(message.longitude * 1e-7, "origin.longitude", -180.0, 180.0)
        return ""

    def attitude_at(self, stamp: int) -> Attitude:
        """At a time (nanoseconds on our clock); unknown where nothing is near."""
        turn = self.attitudes.at(stamp)
        return Attitude(None) if turn is None else attitude_of(turn)

    def height_at(self, stamp: int, attitude: Attitude) -> float:
        """Above ground at a time, metres, from the best source that has it.

        Raises:
            FrameError: none has.
        """
        for name in self._sources:
            value = self.heights[name].at(stamp)
            if value is None:
                continue
            self.last_height = name
            if name == "range" and attitude.pitch is not None and attitude.roll is not None:
                # The sensor is fixed to the body: its axis leans with it.
                value *= math.cos(math.radians(attitude.pitch)) * math.cos(math.radians(attitude.roll))
            return value
        raise FrameError(f"no {' or '.join(self._sources)} near the exposure", field="height")

    def velocity_at(self, stamp: int, now: int) -> tuple[float, float] | None:
        """(east, north), m/s, where the module's conditions hold."""
        believed = now - self._believed_at <= _BELIEVED_S * NANOSECONDS
        gnss = now - self._gnss_at <= _GNSS_S * NANOSECONDS
        return self._velocities.at(stamp) if believed and not gnss else None

    def trigger_before(self, arrival: int, within_s: float) -> int | None:
        """The exposure of a frame that arrived at a time: the latest trigger before it, if it is near and no other
        frame's. Right as long as a frame takes less time to arrive than the next trigger to come."""
        found = max((stamp for stamp in self._triggers if stamp <= arrival), default=None)
        if found is None or arrival - found > within_s * NANOSECONDS:
            return None
        self._triggers = deque((stamp for stamp in self._triggers if stamp > found), maxlen=_TRIGGERS)
        return found

    @property
    def jumps(self) -> int:
        """How often stamps stepped back by more than a second."""
        tracks: list[Track[Any]] = [self.attitudes, self._velocities, *self.heights.values()]
        return sum(track.jumps for track in tracks)

    def _height(self, name: str, stamp: int, value: float) -> str:
        if name not in self.heights:
            return ""
        self.heights[name].add(stamp, value)
        return "height"

    def _stamp(self, message: Any, now: int) -> int:
        return self._dated(message.time_boot_ms * 1_000_000, now)

    def _dated(self, boot: int, now: int) -> int:
        stamp = self._offset.ours(boot)
        if stamp is None:
            return now
        if not now - _OLDEST_S * NANOSECONDS <= stamp <= now + _AHEAD_S * NANOSECONDS:
            raise FrameError("not of now", field="time", found=f"{(stamp - now) / NANOSECONDS:.1f} s off")
        return stamp


def between(first: tuple[float, float], second: tuple[float, float], share: float) -> tuple[float, float]:
    """The straight line between two velocities."""
    return linear(first[0], second[0], share), linear(first[1], second[1], share)


def _turn(message: Any) -> Turn:
    """Forward-left-up in east-north-up, of a message's forward-right-down in north-east-down."""
    if message.get_type() == "ATTITUDE":
        angles = [_bounded(value, "attitude", -10.0, 10.0) for value in (message.roll, message.pitch, message.yaw)]
        roll, pitch, yaw = (math.degrees(value) for value in angles)
    else:
        w, x, y, z = (float(value) for value in (message.q1, message.q2, message.q3, message.q4))
        length = math.sqrt(w * w + x * x + y * y + z * z)
        if not 0.9 <= length <= 1.1:
            raise FrameError("not a rotation", field="attitude", found=(w, x, y, z), expected="a unit quaternion")
        w, x, y, z = w / length, x / length, y / length, z / length
        roll = math.degrees(math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)))
        pitch = math.degrees(math.asin(max(-1.0, min(1.0, 2 * (w * y - z * x)))))
        yaw = math.degrees(math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)))
    return turn_of(Attitude(yaw % 360.0, pitch, roll))


def _distance(message: Any) -> float:
    low, high, found = message.min_distance, message.max_distance, message.current_distance
    if message.signal_quality == _INVALID_SIGNAL or not max(1, low) <= found <= high:
        raise FrameError("nothing in range", field="distance", found=f"{found} cm", expected=f"{low} to {high} cm")
    return found * 0.01


def _bounded(value: float, what: str, low: float, high: float) -> float:
    if not low <= value <= high:
        raise FrameError("not usable", field=what, found=value, expected=f"a number from {low:g} to {high:g}")
    return float(value)
