"""Rectification: one warp from the raw frame to a north-up patch at a chosen ground sampling distance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.native import rectify as _warp
from cvgl.native import resample

__all__ = ["Patch", "ground_offset", "rectify", "rectify_again"]

# Rays closer to the horizon than this see ground too far away to be of use (60 degrees off nadir).
_MIN_DOWNWARD = 0.5


@dataclass(frozen=True)
class Patch:
    """A north-up view of the ground as if the terrain were a plane.

    Args:
        image: (size, size[, 3]) uint8, zero where the camera sees nothing.
        mask: (size, size) uint8, 255 where the camera sees the ground.
        gsd: ground sampling distance, m/px.
        offset: (2,) east and north of the patch's centre from the point below the camera, metres.
        to_camera: (3, 3) from the patch's pixels to ideal camera coordinates (normalised, undistorted).
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    gsd: float
    offset: NDArray[np.float64]
    to_camera: NDArray[np.float64]


def ground_offset(camera: Camera, rotation: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """East and north (2,) from the point below the camera to the ground point at the middle of the image, metres.

    Args:
        rotation: (3, 3) camera to ENU, see :func:`cvgl.geometry.camera_to_enu`.
        height: of the camera above the ground, metres.

    Raises:
        FrameError: the middle of the image looks more than 60 degrees off nadir.
    """
    ray = rotation @ camera.rays(camera.center)[0]
    ray /= np.linalg.norm(ray)
    if ray[2] > -_MIN_DOWNWARD:
        raise FrameError(
            "the camera does not look at the ground",
            field="attitude",
            found=f"{np.degrees(np.arccos(np.clip(-ray[2], -1, 1))):.0f} degrees off nadir",
            expected="at most 60",
        )
    return ray[:2] / -ray[2] * height


def rectify(
    image: NDArray[np.uint8],
    camera: Camera,
    rotation: NDArray[np.float64],
    height: float,
    gsd: float,
    size: int,
    threads: int = 0,
) -> Patch:
    """Lens, attitude, heading and height out, in one antialiased resampling.

    Args:
        image: (H, W) or (H, W, 3) uint8, of the size the camera's intrinsics belong to.
        camera: intrinsics and distortion.
        rotation: (3, 3) camera to ENU.
        height: above the ground, metres.
        gsd: of the patch, m/px.
        size: side of the patch, pixels; its centre is the ground point at the middle of the image.
        threads: 0 for one a core.

    Raises:
        FrameError: the camera does not look at the ground.
    """
    offset = ground_offset(camera, rotation, height)
    to_camera = _patch_to_camera(rotation, offset, height, gsd, size)
    patch, mask = _warp(
        image,
        to_camera,
        camera.fx,
        camera.fy,
        camera.cx,
        camera.cy,
        camera.distortion,
        size,
        size,
        threads,
    )
    return Patch(patch, mask, gsd, offset, to_camera)


def rectify_again(patch: Patch, camera: Camera, rotation: NDArray[np.float64], height: float) -> Patch:
    """A patch as another attitude and height would have made it, resampled from the patch itself.

    For small corrections: a fraction of the cost of going back to the frame, at the price of a second interpolation.

    Raises:
        FrameError: the camera does not look at the ground.
    """
    size = patch.mask.shape[0]
    offset = ground_offset(camera, rotation, height)
    to_camera = _patch_to_camera(rotation, offset, height, patch.gsd, size)
    between = np.linalg.inv(patch.to_camera) @ to_camera
    image, mask = resample(patch.image, patch.mask, between)
    return Patch(image, mask, patch.gsd, offset, to_camera)


def _patch_to_camera(
    rotation: NDArray[np.float64], offset: NDArray[np.float64], height: float, gsd: float, size: int
) -> NDArray[np.float64]:
    """Patch pixel -> point on the ground plane, relative to the camera, ENU -> ray in camera coordinates."""
    half = (size - 1) / 2
    to_enu = np.array([[gsd, 0.0, offset[0] - half * gsd], [0.0, -gsd, offset[1] + half * gsd], [0.0, 0.0, -height]])
    return np.asarray(rotation.T @ to_enu)
