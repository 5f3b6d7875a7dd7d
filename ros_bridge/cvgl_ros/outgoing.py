"""From a fix to the messages that are published.

What their consumers make of them decides the rules here. ``sensor_msgs/NavSatFix``: altitude is above the WGS84
ellipsoid, and robot_localization drops a message whose altitude is NaN; it copies the covariance whatever the
covariance type says, so that zeros become certainty; the stamp is when the frame was exposed, not when the answer came.
A covariance that is not known is stated as a very large one, never as zero and never as NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from cvgl.errors import CvglError
from cvgl.fix import Fix
from cvgl.geo import LocalFrame
from cvgl.node.attitude import Attitude, turn_of
from cvgl.node.claims import horizontal_covariance
from cvgl.node.tracks import NANOSECONDS
from cvgl_ros.msgs import (
    DiagnosticArray,
    DiagnosticStatus,
    Header,
    KeyValue,
    NavSatFix,
    NavSatStatus,
    Point,
    Pose,
    PoseWithCovariance,
    PoseWithCovarianceStamped,
    Quaternion,
    Time,
    Transform,
    TransformStamped,
    Vector3,
)

__all__ = [
    "COVARIANCE_TYPE_KNOWN",
    "COVARIANCE_TYPE_UNKNOWN",
    "PLANAR",
    "STATUS_FIX",
    "STATUS_NO_FIX",
    "UNKNOWN_ANGLE_VARIANCE",
    "UNKNOWN_HEIGHT_VARIANCE",
    "Altitude",
    "MapFrame",
    "PoseSigmas",
    "map_origin",
    "nanoseconds_of",
    "nav_sat_fix",
    "pose_of",
    "status_of",
    "time_of",
    "transform_of",
]

# sensor_msgs/NavSatStatus and sensor_msgs/NavSatFix.
STATUS_NO_FIX = -1
STATUS_FIX = 0
COVARIANCE_TYPE_UNKNOWN = 0
COVARIANCE_TYPE_KNOWN = 3

# 10 km: says nothing about where on Earth a vehicle flies, and is still a number a filter can invert.
UNKNOWN_HEIGHT_VARIANCE = 1e8
# 180 degrees.
UNKNOWN_ANGLE_VARIANCE = math.pi**2


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


# For consumers that fuse east and north only: the altitude is not known, and the covariance says so.
PLANAR = Altitude(0.0, math.sqrt(UNKNOWN_HEIGHT_VARIANCE))


@dataclass(frozen=True)
class MapFrame:
    """The east-north-up frame of poses.

    Args:
        name: frame_id of the poses.
        local: the tangent plane, whose origin is the frame's.
        altitude_m: of the origin above the WGS84 ellipsoid; with 0, z is the altitude above the ellipsoid.
    """

    name: str
    local: LocalFrame
    altitude_m: float = 0.0


@dataclass(frozen=True)
class PoseSigmas:
    """Standard deviations (degrees) of the roll and pitch that telemetry gives, and of its heading."""

    tilt_deg: float
    heading_deg: float


def time_of(nanoseconds: int) -> Time:
    """ROS time of nanoseconds since the epoch."""
    return Time(nanoseconds // NANOSECONDS, nanoseconds % NANOSECONDS)


def nanoseconds_of(stamp: Time) -> int:
    """Nanoseconds since the epoch of a ROS time."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def nav_sat_fix(fix: Fix, altitude: Altitude, frame_id: str, stamp: Time) -> NavSatFix:
    """The position that answers one frame.

    Args:
        fix: the SDK's answer.
        altitude: of the vehicle when the frame was taken, from another source.
        frame_id: frame on the vehicle, not empty.
        stamp: of the image message, to the nanosecond.

    Returns:
        The message; with ``STATUS_NO_FIX`` and without a position where the fix carries none.

    Raises:
        CvglError: an empty ``frame_id``, or a position without a usable covariance (it would be read as
            certainty).
    """
    if not frame_id:
        raise CvglError("empty", field="frame_id", found=frame_id, expected="a frame on the vehicle")
    message = NavSatFix(
        header=Header(stamp, frame_id),
        status=NavSatStatus(STATUS_NO_FIX, 0),
        latitude=math.nan,
        longitude=math.nan,
        altitude=altitude.ellipsoid_m,
        position_covariance=(0.0,) * 9,
        position_covariance_type=COVARIANCE_TYPE_UNKNOWN,
    )
    if not fix:
        return message
    if not (math.isfinite(fix.latitude) and math.isfinite(fix.longitude)):
        found = (fix.latitude, fix.longitude)
        raise CvglError("a fix without a position", field="latitude, longitude", found=found)
    (east, east_north), (north_east, north) = horizontal_covariance(fix)
    message.status.status = STATUS_FIX
    message.latitude, message.longitude = float(fix.latitude), float(fix.longitude)
    message.position_covariance = (
        *(east, east_north, 0.0),
        *(north_east, north, 0.0),
        *(0.0, 0.0, altitude.sigma_m**2),
    )
    message.position_covariance_type = COVARIANCE_TYPE_KNOWN
    return message


def pose_of(
    fix: Fix, altitude: Altitude | None, attitude: Attitude, sigmas: PoseSigmas, frame: MapFrame, stamp: Time
) -> PoseWithCovarianceStamped:
    """The same position in the map frame, with the attitude: heading as the match measured it (telemetry's where it
    did not), pitch and roll as telemetry gave them.

    An altitude, an angle that nobody measured is zero with ``UNKNOWN_HEIGHT_VARIANCE``, ``UNKNOWN_ANGLE_VARIANCE``.

    Args:
        fix: an answer with a position.
        altitude: of the vehicle, or None.
        attitude: from telemetry.
        sigmas: of that telemetry.
        frame: the map frame.
        stamp: of the image message.

    Raises:
        CvglError: a position without a usable covariance.
    """
    (east, east_north), (north_east, north) = horizontal_covariance(fix)
    x, y = frame.local.to_local(fix.latitude, fix.longitude)
    z = 0.0 if altitude is None else altitude.ellipsoid_m - frame.altitude_m
    z_variance = altitude.sigma_m**2 if altitude is not None else UNKNOWN_HEIGHT_VARIANCE
    matched = math.isfinite(fix.heading_deg) and math.isfinite(fix.heading_sigma_deg)
    heading = fix.heading_deg if matched else attitude.heading
    if heading is None:
        yaw_variance = UNKNOWN_ANGLE_VARIANCE
    else:
        yaw_variance = math.radians(fix.heading_sigma_deg if matched else sigmas.heading_deg) ** 2
    tilt = math.radians(sigmas.tilt_deg) ** 2
    diagonal = {
        14: z_variance,
        21: UNKNOWN_ANGLE_VARIANCE if attitude.roll is None else tilt,
        28: UNKNOWN_ANGLE_VARIANCE if attitude.pitch is None else tilt,
        # A match may claim less than a filter can invert.
        35: max(yaw_variance, 1e-9),
    }
    covariance = [diagonal.get(index, 0.0) for index in range(36)]
    covariance[0], covariance[1], covariance[6], covariance[7] = east, east_north, north_east, north
    orientation = Quaternion(*turn_of(Attitude(heading, attitude.pitch, attitude.roll)))
    return PoseWithCovarianceStamped(
        header=Header(stamp, frame.name),
        pose=PoseWithCovariance(Pose(Point(float(x), float(y), z), orientation), tuple(covariance)),
    )


def transform_of(pose: PoseWithCovarianceStamped, frame_id: str) -> TransformStamped:
    """The pose as a transform from the map frame to the vehicle's."""
    at = pose.pose.pose.position
    turn = pose.pose.pose.orientation
    return TransformStamped(pose.header, frame_id, Transform(Vector3(at.x, at.y, at.z), turn))


def map_origin(frame: MapFrame, stamp: Time) -> NavSatFix:
    """Where the map frame begins. It is a definition and no measurement, so it carries no fix that a filter would
    fuse."""
    return NavSatFix(
        header=Header(stamp, frame.name),
        status=NavSatStatus(STATUS_NO_FIX, 0),
        latitude=frame.local.latitude,
        longitude=frame.local.longitude,
        altitude=frame.altitude_m,
        position_covariance=(0.0,) * 9,
        position_covariance_type=COVARIANCE_TYPE_UNKNOWN,
    )


def status_of(name: str, level: int, message: str, values: dict[str, str], stamp: Time) -> DiagnosticArray:
    """One component's state as a message."""
    pairs = [KeyValue(key, value) for key, value in values.items()]
    return DiagnosticArray(Header(stamp, ""), [DiagnosticStatus(level, name, message, "cvgl", pairs)])
