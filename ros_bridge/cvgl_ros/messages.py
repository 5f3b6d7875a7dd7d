"""From a fix to the field values of ``sensor_msgs/NavSatFix``.

What the consumers of that message make of it decides the rules here: altitude is above the WGS84 ellipsoid,
and robot_localization drops a message whose altitude is NaN; it copies the covariance whatever the covariance
type says, so that zeros become certainty; the stamp is when the frame was exposed, not when the answer came.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cvgl.errors import CvglError
from cvgl.fix import Fix

__all__ = [
    "COVARIANCE_TYPE_KNOWN",
    "COVARIANCE_TYPE_UNKNOWN",
    "STATUS_FIX",
    "STATUS_NO_FIX",
    "Altitude",
    "NavSatFields",
    "nav_sat_fields",
    "stamp_of",
]

# sensor_msgs/NavSatStatus and sensor_msgs/NavSatFix.
STATUS_NO_FIX = -1
STATUS_FIX = 0
COVARIANCE_TYPE_UNKNOWN = 0
COVARIANCE_TYPE_KNOWN = 3

_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True)
class Altitude:
    """The vehicle's altitude as another source measured it; a camera looking down does not.

    Args:
        ellipsoid_m: above the WGS84 ellipsoid (not above mean sea level, not above ground), metres.
        sigma_m: its standard deviation, metres.

    Raises:
        CvglError: a value that is not finite, or a sigma that is not positive.
    """

    ellipsoid_m: float
    sigma_m: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.ellipsoid_m):
            raise CvglError(
                "not usable",
                field="altitude",
                found=self.ellipsoid_m,
                expected="metres above the WGS84 ellipsoid",
            )
        if not (math.isfinite(self.sigma_m) and self.sigma_m > 0):
            raise CvglError("not usable", field="altitude_sigma_m", found=self.sigma_m, expected="a positive number")


@dataclass(frozen=True)
class NavSatFields:
    """Field values of one ``sensor_msgs/NavSatFix``. True in a boolean context when it holds a position.

    Args:
        stamp: seconds and nanoseconds of the frame's exposure.
        frame_id: frame on the vehicle whose position this is.
        status: ``STATUS_FIX`` or ``STATUS_NO_FIX``.
        service: bit mask of the satellite systems used; always 0, there are none.
        latitude, longitude: WGS84 degrees; NaN without a fix.
        altitude: above the WGS84 ellipsoid, metres.
        position_covariance: (9,) east, north, up; row-major, m^2.
        position_covariance_type: ``COVARIANCE_TYPE_KNOWN``, or ``COVARIANCE_TYPE_UNKNOWN`` without a fix.
    """

    stamp: tuple[int, int]
    frame_id: str
    status: int
    service: int
    latitude: float
    longitude: float
    altitude: float
    position_covariance: tuple[float, ...]
    position_covariance_type: int

    def __bool__(self) -> bool:
        return self.status == STATUS_FIX


def stamp_of(time: float) -> tuple[int, int]:
    """Seconds and nanoseconds (0 to 999 999 999) of a time in seconds."""
    seconds = math.floor(time)
    nanoseconds = round((time - seconds) * _NANOSECONDS)
    if nanoseconds == _NANOSECONDS:
        return seconds + 1, 0
    return seconds, nanoseconds


def nav_sat_fields(fix: Fix, altitude: Altitude, frame_id: str, stamp: tuple[int, int] | None = None) -> NavSatFields:
    """The message that answers one frame.

    Args:
        fix: the SDK's answer.
        altitude: of the vehicle when the frame was taken, from another source.
        frame_id: frame on the vehicle, not empty.
        stamp: of the image message, taken over to the nanosecond; by default from ``fix.time``, which as a
            float of Unix seconds is good to a quarter of a microsecond.

    Returns:
        The fields; false, with ``STATUS_NO_FIX``, where the fix carries no position.

    Raises:
        CvglError: an empty ``frame_id``, or a position without a usable covariance (it would be read as
            certainty).
    """
    if not frame_id:
        raise CvglError("empty", field="frame_id", found=frame_id, expected="a frame on the vehicle")
    stamp = stamp_of(fix.time) if stamp is None else stamp
    if not fix:
        return NavSatFields(
            stamp=stamp,
            frame_id=frame_id,
            status=STATUS_NO_FIX,
            service=0,
            latitude=math.nan,
            longitude=math.nan,
            altitude=altitude.ellipsoid_m,
            position_covariance=(0.0,) * 9,
            position_covariance_type=COVARIANCE_TYPE_UNKNOWN,
        )
    if not (math.isfinite(fix.latitude) and math.isfinite(fix.longitude)):
        found = (fix.latitude, fix.longitude)
        raise CvglError("a fix without a position", field="latitude, longitude", found=found)
    (east, east_north), (north_east, north) = _horizontal_covariance(fix)
    return NavSatFields(
        stamp=stamp,
        frame_id=frame_id,
        status=STATUS_FIX,
        service=0,
        latitude=fix.latitude,
        longitude=fix.longitude,
        altitude=altitude.ellipsoid_m,
        position_covariance=(
            *(east, east_north, 0.0),
            *(north_east, north, 0.0),
            *(0.0, 0.0, altitude.sigma_m**2),
        ),
        position_covariance_type=COVARIANCE_TYPE_KNOWN,
    )


def _horizontal_covariance(fix: Fix) -> tuple[tuple[float, float], tuple[float, float]]:
    covariance = fix.covariance
    if covariance is None or covariance.shape != (2, 2):
        raise CvglError("a fix without its covariance", field="covariance", found=covariance, expected="2x2")
    (a, b), (c, d) = matrix = covariance.tolist()
    # Positive definite, by its leading minors; false for NaN as well.
    if not (math.isfinite(a + b + c + d) and a > 0 and a * d - b * c > 0):
        raise CvglError("not a covariance", field="covariance", found=matrix, expected="positive definite")
    return (a, b), (c, d)
