"""From the messages that are received to checked numbers.

Messages may come from rclpy, from the DDS bus or from a test: only the fields of the standard definitions are read.
"""

from __future__ import annotations

import math
from typing import Any

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.frame import Prior
from cvgl.geo import LocalFrame
from cvgl.node.attitude import Turn

__all__ = ["camera_of", "number_of", "orientation_of", "prior_of_fix", "prior_of_pose", "range_of", "stamp_of"]

_NANOSECONDS = 1_000_000_000
_LENSES = {"plumb_bob": (0, 4, 5), "rational_polynomial": (8,), "equidistant": (4,), "fisheye": (4,)}
_FISHEYES = ("equidistant", "fisheye")


def stamp_of(message: Any, what: str) -> int:
    """Nanoseconds of a message's header.

    Raises:
        FrameError: no stamp (zero), or nanoseconds that are none.
    """
    stamp = message.header.stamp
    if not 0 <= stamp.nanosec < _NANOSECONDS:
        raise FrameError("not a time", field=f"{what}.header.stamp", found=(stamp.sec, stamp.nanosec))
    nanoseconds = int(stamp.sec) * _NANOSECONDS + int(stamp.nanosec)
    if nanoseconds == 0:
        raise FrameError("not stamped", field=f"{what}.header.stamp", expected="the time of exposure or measurement")
    return nanoseconds


def number_of(message: Any, what: str, low: float, high: float) -> float:
    """The number of a ``std_msgs/Float64``.

    Raises:
        FrameError: not finite or out of bounds.
    """
    return _bounded(message.data, what, low, high)


def orientation_of(message: Any, what: str) -> Turn:
    """Unit quaternion (x, y, z, w) of a ``sensor_msgs/Imu`` or ``nav_msgs/Odometry``.

    Raises:
        FrameError: the message says that it has no orientation, or the quaternion is none.
    """
    if hasattr(message, "orientation"):
        if float(message.orientation_covariance[0]) == -1.0:
            raise FrameError("carries no orientation", field=f"{what}.orientation_covariance")
        turn = message.orientation
    else:
        turn = message.pose.pose.orientation
    parts = [float(turn.x), float(turn.y), float(turn.z), float(turn.w)]
    length = math.sqrt(sum(part * part for part in parts))
    # Drivers that have no orientation send zeros; rounding leaves a unit quaternion within a percent of one.
    if not 0.9 <= length <= 1.1:
        raise FrameError("not a rotation", field=f"{what}.orientation", found=parts, expected="a unit quaternion")
    x, y, z, w = (part / length for part in parts)
    return x, y, z, w


def range_of(message: Any) -> float:
    """Metres of a ``sensor_msgs/Range``.

    Raises:
        FrameError: nothing in range, or outside what the sensor says it can measure.
    """
    low, high = float(message.min_range), float(message.max_range)
    value = float(message.range)
    if not (math.isfinite(value) and low <= value <= high):
        raise FrameError("nothing in range", field="range", found=value, expected=f"{low:g} to {high:g} m")
    return value


def prior_of_fix(message: Any, sigma_max_m: float) -> Prior:
    """Where another source believes the vehicle to be, from a ``sensor_msgs/NavSatFix``.

    Raises:
        FrameError: no fix, no position, or no usable covariance.
    """
    if message.status.status < 0:
        raise FrameError("has no fix", field="prior.status", found=message.status.status, expected="0 or more")
    if message.position_covariance_type == 0:
        raise FrameError("of unknown accuracy", field="prior.position_covariance_type", found=0, expected="1 to 3")
    covariance = message.position_covariance
    sigma = _sigma(float(covariance[0]), float(covariance[4]), sigma_max_m)
    latitude = _bounded(message.latitude, "prior.latitude", -90.0, 90.0)
    longitude = _bounded(message.longitude, "prior.longitude", -180.0, 180.0)
    return Prior(latitude, longitude, sigma)


def prior_of_pose(message: Any, map_frame: str, local: LocalFrame, sigma_max_m: float) -> Prior:
    """The same from a ``geometry_msgs/PoseWithCovarianceStamped`` in the map frame, as RViz sends it.

    Raises:
        FrameError: another frame, no position, or no usable covariance.
    """
    if message.header.frame_id != map_frame:
        raise FrameError(
            "in another frame", field="prior_pose.frame_id", found=message.header.frame_id, expected=map_frame
        )
    covariance = message.pose.covariance
    sigma = _sigma(float(covariance[0]), float(covariance[7]), sigma_max_m)
    # A thousand kilometres: beyond that the tangent plane is none.
    x = _bounded(message.pose.pose.position.x, "prior_pose.x", -1e6, 1e6)
    y = _bounded(message.pose.pose.position.y, "prior_pose.y", -1e6, 1e6)
    latitude, longitude = local.to_wgs84(x, y)
    return Prior(float(latitude), float(longitude), sigma)


def camera_of(message: Any, mission: Camera) -> Camera:
    """The mission's camera with the intrinsics of a ``sensor_msgs/CameraInfo``; mount and gimbal stay the mission's.

    Raises:
        FrameError: not calibrated, or another lens model than OpenCV's.
        CameraError: intrinsics that are none.
    """
    model, lens = str(message.distortion_model), [float(value) for value in message.d]
    if float(message.k[0]) == 0.0:
        raise FrameError("not calibrated", field="camera_info.k", found=0.0, expected="focal lengths")
    # An uncalibrated lens may come without a model's name.
    if (model or "plumb_bob") not in _LENSES or len(lens) not in _LENSES[model or "plumb_bob"]:
        raise FrameError(
            "lens not supported",
            field="camera_info.distortion_model",
            found=f"{model} with {len(lens)} coefficients",
            expected="plumb_bob with 0, 4 or 5, rational_polynomial with 8, equidistant or fisheye with 4",
        )
    k = [float(value) for value in message.k]
    return Camera(
        width=int(message.width),
        height=int(message.height),
        fx=k[0],
        fy=k[4],
        cx=k[2],
        cy=k[5],
        distortion=tuple(lens),
        mount=mission.mount,
        stabilized=mission.stabilized,
        model="fisheye" if model in _FISHEYES else "pinhole",
    )


def _bounded(value: Any, what: str, low: float, high: float) -> float:
    number = float(value)
    if not low <= number <= high:
        raise FrameError("not usable", field=what, found=number, expected=f"a number from {low:g} to {high:g}")
    return number


def _sigma(first: float, second: float, most: float) -> float:
    variance = max(first, second)
    if not (min(first, second) > 0 and math.isfinite(variance)):
        raise FrameError("not a covariance", field="prior.covariance", found=(first, second), expected="above 0")
    if math.sqrt(variance) > most:
        raise FrameError(
            "too wide to help", field="prior.covariance", found=math.sqrt(variance), expected=f"up to {most:g} m"
        )
    return math.sqrt(variance)
