"""Rotations between a camera, its vehicle and the local tangent plane; all conventions for attitudes are here.

Frames of reference
    camera  x right, y down, z along the optical axis (OpenCV)
    body    x forward, y right, z down
    ENU     x east, y north, z up

Angles are in degrees. Heading is clockwise from true north, pitch is nose up, roll is right side down, applied in the
aerospace order Rz(heading) Ry(pitch) Rx(roll). All zero: the camera looks straight down, image-up points north.

What drones report, and how it becomes a frame's heading, pitch and roll
    Camera fixed to the vehicle: the vehicle's heading, pitch and roll as they are; the camera's ``mount`` says how it
    sits (pitch 30 looks 30 degrees ahead), and ``stabilized`` is false.
    Gimbal that keeps the camera level: the vehicle's heading; no pitch and no roll. The mount says where it points.
    Gimbal that reports angles from north and horizon (DJI's GimbalYawDegree, GimbalPitchDegree and GimbalRollDegree,
    MAVLink's gimbals locked to the earth): pitch 0 looks at the horizon and -90 straight down. :func:`gimbal_attitude`
    turns them into heading, pitch and roll; the mount is zero but for what calibration finds. Where the gimbal's yaw
    is told from the vehicle's nose, the vehicle's heading is added to it first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Attitude", "Mount", "camera_to_enu", "gimbal_attitude", "rotation_body_to_ned", "wrap_degrees"]

# Zero mount: image right = body right, image down = body backward, optical axis = body down.
_BODY_FROM_CAMERA = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_ENU_FROM_NED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


@dataclass(frozen=True)
class Attitude:
    """Heading, pitch and roll in degrees: clockwise from true north, nose up, right side down."""

    heading_deg: float
    pitch_deg: float
    roll_deg: float


@dataclass(frozen=True)
class Mount:
    """How the camera sits on the vehicle (or on its gimbal), degrees; zero looks straight down, image-up forward."""

    roll_deg: float = 0.0
    pitch_deg: float = 0.0
    yaw_deg: float = 0.0


def wrap_degrees(angle: float) -> float:
    """The same angle in [-180, 180)."""
    return (angle + 180.0) % 360.0 - 180.0


def rotation_body_to_ned(heading_deg: float, pitch_deg: float, roll_deg: float) -> NDArray[np.float64]:
    """(3, 3) rotation from the body frame to north-east-down."""
    h, p, r = np.radians([heading_deg, pitch_deg, roll_deg])
    ch, sh, cp, sp, cr, sr = np.cos(h), np.sin(h), np.cos(p), np.sin(p), np.cos(r), np.sin(r)
    return np.array(
        [
            [ch * cp, ch * sp * sr - sh * cr, ch * sp * cr + sh * sr],
            [sh * cp, sh * sp * sr + ch * cr, sh * sp * cr - ch * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def camera_to_enu(
    mount: Mount, heading_deg: float, pitch_deg: float = 0.0, roll_deg: float = 0.0
) -> NDArray[np.float64]:
    """(3, 3) rotation that takes camera coordinates to ENU, for a vehicle (or gimbal) attitude and a mount."""
    vehicle = rotation_body_to_ned(heading_deg, pitch_deg, roll_deg)
    mounting = rotation_body_to_ned(mount.yaw_deg, mount.pitch_deg, mount.roll_deg)
    return _ENU_FROM_NED @ vehicle @ mounting @ _BODY_FROM_CAMERA


def gimbal_attitude(gimbal: Attitude) -> Attitude:
    """A gimbal's angles as the attitude of a camera whose zero is straight down with image-up to the north.

    With no roll this is (yaw, pitch + 90, 0). A gimbal's roll turns about the optical axis, which at nadir is
    a turn of the heading (some gimbals report a flip that way): angles are composed, not copied.
    """
    # Ry(90) takes "optical axis down" (ours) to "optical axis forward" (the gimbal's).
    rotation = rotation_body_to_ned(gimbal.heading_deg, gimbal.pitch_deg, gimbal.roll_deg) @ rotation_body_to_ned(
        0, 90, 0
    )
    level = math.hypot(rotation[0, 0], rotation[1, 0])
    # Not by arcsine, which knows a pitch near 90 degrees to eight digits only.
    pitch = math.atan2(-rotation[2, 0], level)
    if level < 1e-9:  # looking at the horizon: only heading - roll is defined, so no roll
        heading, roll = math.atan2(-rotation[0, 1], rotation[1, 1]), 0.0
    else:
        heading = math.atan2(rotation[1, 0], rotation[0, 0])
        roll = math.atan2(rotation[2, 1], rotation[2, 2])
    return Attitude(wrap_degrees(math.degrees(heading)), math.degrees(pitch), math.degrees(roll))
