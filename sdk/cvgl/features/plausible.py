"""Whether a homography from a rectified frame to the map is one that the camera's attitude and height allow."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.rectify import Patch
from cvgl.register import PoseSigmas

__all__ = ["PlanePose", "implausible", "plane_pose", "pose_noise"]

# A pose this many standard deviations from what the telemetry says is not the frame's.
_SIGMAS = 3.5
# Buildings that lean and ground that is not flat bend a homography by more than its points scatter: standard deviations
# of turn, relative height, tilt (degrees) and of aspect and shear.
_TURN_DEG, _SCALE, _TILT_DEG, _BENT = 1.0, 0.02, 4.0, 0.03
# Step of the numerical derivative, in pixels at the patch's edge.
_STEP_PX = 0.1


@dataclass(frozen=True)
class PlanePose:
    """What a homography says of the camera, against the pose that the frame came with.

    Args:
        turn_deg: heading, clockwise.
        scale: height above ground, relative.
        tilt_deg: (east, north) further lean of the optical axis.
        aspect: how much longer it draws things eastwards than northwards, relative; no camera over a plane does.
        shear: how much it slants northward lines eastwards; no camera over a plane does.
    """

    turn_deg: float
    scale: float
    tilt_deg: tuple[float, float]
    aspect: float
    shear: float

    def values(self) -> NDArray[np.float64]:
        """(6,) all of it: turn, scale, both tilts, aspect, shear."""
        return np.array([self.turn_deg, self.scale, *self.tilt_deg, self.aspect, self.shear])


def plane_pose(
    homography: NDArray[np.float64], patch: Patch, rotation: NDArray[np.float64], height: float
) -> PlanePose | None:
    """The camera's pose from a homography between a rectified frame and a map.

    A camera with rotation R at height h over a plane draws the plane by the product of an upper triangular matrix (its
    height and place) and R: an RQ decomposition finds both (Hartley and Zisserman, Multiple View Geometry, 2nd ed.,
    8.1 and A4.1). What the triangle then holds that a camera's could not is aspect and shear.

    Args:
        homography: (3, 3) from pixels of the patch to pixels of the map, of one size.
        patch: how the frame was drawn; its ``to_camera`` tells the attitude and height that drew it.
        rotation: (3, 3) camera to ENU that the frame came with.
        height: above ground that the frame came with, metres.

    Returns:
        The pose, or None where no camera above the ground sees the map so: mirrored, or behind it.
    """
    grid = np.diag([patch.gsd, -patch.gsd, 1.0])
    # From a ray, as telemetry turns it into east, north and up, to metres on the map.
    ground = grid @ homography @ np.linalg.inv(patch.to_camera) @ rotation.T
    if not np.isfinite(ground).all():
        return None
    upper, turned = _rq(ground)
    # Height on the diagonal, and minus one for the third coordinate of a ray, which looks down.
    signs = np.where(np.diag(upper) < 0, -1.0, 1.0) * (1.0, 1.0, -1.0)
    upper, turned = upper * signs, signs[:, None] * turned
    # A homography's sign means nothing.
    turned = turned if np.linalg.det(turned) > 0 else -turned
    if not (min(upper[0, 0], upper[1, 1], -upper[2, 2]) > 1e-9):
        return None
    upper = upper / -upper[2, 2]
    axis = turned @ (0.0, 0.0, -1.0)
    if axis[2] >= 0.0:
        return None
    lean = axis[:2] / -axis[2]
    level = _tilt(lean).T @ turned
    found = math.sqrt(upper[0, 0] * upper[1, 1])
    return PlanePose(
        turn_deg=math.degrees(math.atan2(level[0, 1], level[0, 0])),
        scale=found / height - 1.0,
        tilt_deg=(math.degrees(math.atan(lean[0])), math.degrees(math.atan(lean[1]))),
        aspect=float(upper[0, 0] / upper[1, 1]) - 1.0,
        shear=float(upper[0, 1] / upper[1, 1]),
    )


def pose_noise(
    homography: NDArray[np.float64],
    points: NDArray[np.float32],
    sigma_px: float,
    patch: Patch,
    rotation: NDArray[np.float64],
    height: float,
) -> NDArray[np.float64]:
    """Standard deviations (6,) of what :func:`plane_pose` finds, from the scatter of the points it was fitted to.

    First-order propagation from the points to the homography (Hartley and Zisserman, 5.2.3) and on to the pose.

    Args:
        homography, patch, rotation, height: as of :func:`plane_pose`.
        points: (N, 2) pixels of the patch, at least four.
        sigma_px: standard deviation of each of them, per axis.

    Returns:
        Turn, scale, both tilts, aspect and shear, in the units of :class:`PlanePose`; infinite where the points do not
        say.
    """
    size = patch.mask.shape[0]
    # Pixels about the middle, in half sides: the eight numbers are of one size then.
    to_unit = np.array([[2 / size, 0, -1.0], [0, 2 / size, -1.0], [0, 0, 1.0]])
    unit = to_unit @ homography @ np.linalg.inv(to_unit)
    unit = unit / unit[2, 2]

    def pose_of(change: NDArray[np.float64]) -> NDArray[np.float64]:
        changed = unit + np.append(change, 0.0).reshape(3, 3)
        pose = plane_pose(np.linalg.inv(to_unit) @ changed @ to_unit, patch, rotation, height)
        return np.full(6, np.nan) if pose is None else pose.values()

    x, y = (points * (2 / size) - 1.0).T
    u, v, w = unit @ np.stack([x, y, np.ones_like(x)])
    none = np.zeros_like(x)
    rows = np.concatenate(
        [
            np.stack([x, y, none + 1, none, none, none, -x * u / w, -y * u / w], axis=1) / w[:, None],
            np.stack([none, none, none, x, y, none + 1, -x * v / w, -y * v / w], axis=1) / w[:, None],
        ]
    )
    step = 2 * _STEP_PX / size
    derivative = np.stack([(pose_of(d) - pose_of(-d)) / (2 * step) for d in step * np.eye(8)], axis=1)
    try:
        covariance = derivative @ np.linalg.inv(rows.T @ rows) @ derivative.T * (2 * sigma_px / size) ** 2
    except np.linalg.LinAlgError:
        return np.full(6, np.inf)
    noise = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    return np.where(np.isfinite(noise), noise, np.inf)


def implausible(pose: PlanePose | None, sigmas: PoseSigmas, noise: NDArray[np.float64]) -> str:
    """Why a homography's pose cannot be the frame's, or nothing where it can.

    Args:
        pose: as :func:`plane_pose` found it.
        sigmas: of the telemetry that the pose is measured against.
        noise: (6,) the homography's own, see :func:`pose_noise`.
    """
    if pose is None:
        return "no camera above the ground sees the map so"
    turn, scale, east, north, aspect, shear = noise.tolist()
    checks = (
        ("heading", abs(pose.turn_deg), math.hypot(sigmas.heading_deg, _TURN_DEG, turn), "degrees"),
        ("height", abs(pose.scale), math.hypot(sigmas.scale, _SCALE, scale), "of it"),
        ("tilt", math.hypot(*pose.tilt_deg), math.hypot(sigmas.tilt_deg, _TILT_DEG, east, north), "degrees"),
        ("aspect", abs(pose.aspect), math.hypot(_BENT, aspect), "of it"),
        ("shear", abs(pose.shear), math.hypot(_BENT, shear), "of it"),
    )
    for name, off, sigma, unit in checks:
        if not off <= _SIGMAS * sigma:
            return f"{name} off by {off:.2g} {unit}, at most {_SIGMAS * sigma:.2g} is plausible"
    return ""


def _rq(matrix: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An upper triangular and an orthogonal matrix whose product is the given one (3, 3)."""
    q, r = np.linalg.qr(np.flipud(matrix).T)
    return np.flipud(np.fliplr(r.T)), np.flipud(q.T)


def _tilt(lean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The smallest rotation (3, 3) that moves the plumb line by a lean (east, north; metres a metre of height)."""
    east, north = lean
    slope = math.hypot(east, north)
    if slope == 0.0:
        return np.eye(3)
    axis, angle = np.array([north, -east, 0.0]) / slope, math.atan(slope)
    cross = np.array([[0.0, -axis[2], axis[1]], [axis[2], 0.0, -axis[0]], [-axis[1], axis[0], 0.0]])
    return np.asarray(np.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross)
