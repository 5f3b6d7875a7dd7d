"""Rotations between a camera, its vehicle and the local tangent plane.

Frames of reference
    camera  x right, y down, z along the optical axis (OpenCV)
    body    x forward, y right, z down
    ENU     x east, y north, z up

Angles are in degrees. Heading is clockwise from true north, pitch is nose up, roll is right side down, applied in the
aerospace order Rz(heading) Ry(pitch) Rx(roll). All zero: the camera looks straight down, image-up points north.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Mount", "camera_to_enu", "rotation_body_to_ned", "wrap_degrees"]

# Zero mount: image right = body right, image down = body backward, optical axis = body down.
_BODY_FROM_CAMERA = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
_ENU_FROM_NED = np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])


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
