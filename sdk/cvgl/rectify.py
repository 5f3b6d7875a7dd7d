"""Rectification: one warp from the raw frame to a north-up view at a chosen ground sampling distance.

As a uint8 patch (`rectify`), or straight as the network's input (`warp_to_input`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.ground import MAX_SLANT, aim, ground_offset
from cvgl.native import rectify as _rectify
from cvgl.native import resample, warp_into

__all__ = [
    "Look",
    "NetworkInput",
    "Patch",
    "ground_offset",
    "look_again",
    "rectify",
    "rectify_again",
    "view_maps",
    "view_offset",
    "warp_to_input",
]

# A corrected attitude may look this much further than a given one before it is refused (70 degrees off nadir): what is
# beyond 60 by the given one is not in the patch.
_CORRECTED_SLANT = 3.0


@dataclass(frozen=True)
class Patch:
    """A north-up view of the ground as if the terrain were a plane.

    Args:
        image: (size, size[, 3]) uint8, zero where the camera sees nothing.
        mask: (size, size) uint8, 255 where the camera sees the ground.
        gsd: ground sampling distance, m/px.
        offset: (2,) east and north of the patch's centre from the point below the camera, metres.
        to_camera: (3, 3) from the patch's pixels to ideal camera coordinates (normalised, undistorted).
        aim: (2,) pixel of the image at the patch's centre; None for the image's middle.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    gsd: float
    offset: NDArray[np.float64]
    to_camera: NDArray[np.float64]
    aim: NDArray[np.float64] | None = None

    @cached_property
    def from_camera(self) -> NDArray[np.float64]:
        """(3, 3) from ideal camera coordinates to the patch's pixels."""
        return np.asarray(np.linalg.inv(self.to_camera), np.float64)

    @property
    def look(self) -> Look:
        """The patch as it is."""
        return Look(self.image, self.mask, None)


class Look(NamedTuple):
    """A grey patch as it is, or as another attitude and height would have made it, for the native core to look at.

    Args:
        image, mask: (size, size) of the patch.
        between: (3, 3) from the pixels of what is looked at to the patch's; None for the patch as it is.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]
    between: NDArray[np.float64] | None


@dataclass(frozen=True)
class NetworkInput:
    """North-up views of the ground under several rotations, as a network takes them.

    Args:
        tensor: (B, 3, size, size) float32 or float16, normalised; 0, the mean colour, where the camera sees nothing.
        masks: (B, size, size) uint8, 255 where the camera sees the ground.
        gsd: ground sampling distance, m/px.
        offsets: (B, 2) east and north of the views' centres from the point below the camera, metres.
        to_camera: (B, 3, 3) from the views' pixels to ideal camera coordinates (normalised, undistorted).
    """

    tensor: NDArray[Any]
    masks: NDArray[np.uint8]
    gsd: float
    offsets: NDArray[np.float64]
    to_camera: NDArray[np.float64]


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
        size: side of the patch, pixels; its centre is the ground point at the middle of the image or, where parts of
            the image look further than 60 degrees off nadir, at the middle of the others (:func:`cvgl.ground.aim`).
        threads: 0 for one a core.

    Raises:
        FrameError: the camera does not look at the ground.
    """
    pixel, offset = _center(camera, rotation, height)
    to_camera = _patch_to_camera(rotation, offset, height, gsd, size)
    patch, mask = _rectify(
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
        camera.model,
        MAX_SLANT,
    )
    return Patch(patch, mask, gsd, offset, to_camera, pixel)


def warp_to_input(
    image: NDArray[np.uint8],
    camera: Camera,
    rotations: Sequence[NDArray[np.float64]],
    height: float,
    gsd: float,
    size: int,
    scale: Sequence[float],
    offset: Sequence[float],
    *,
    pixels: str = "bgr",
    channels: str = "rgb",
    dtype: type[np.float32] | type[np.float16] = np.float32,
    out: tuple[NDArray[Any], NDArray[np.uint8]] | None = None,
    threads: int = 0,
) -> NetworkInput:
    """A raw frame straight to the network's input, under several rotations, in one antialiased resampling each.

    Args:
        image: uint8, in one of the formats of :class:`cvgl.frame.Frame`, of the size the camera's intrinsics belong to.
        camera: intrinsics and distortion.
        rotations: B of them, (3, 3) camera to ENU.
        height: above the ground, metres.
        gsd: of the views, m/px.
        size: side of the views, pixels; their centre lies as that of :func:`rectify`'s patch.
        scale, offset: (3,) by channel: the network sees grey * scale + offset of grey levels 0 to 255.
        pixels: how the image lies in memory, see :class:`cvgl.frame.Frame`.
        channels: the order that the network takes them in, "rgb" or "bgr".
        dtype: of the tensor.
        out: tensor and masks to write into, C-contiguous; by default new ones.
        threads: 0 for one a core.

    Raises:
        FrameError: the camera does not look at the ground.
        ValueError: an array or number that is not as described.
    """
    offsets, to_camera = view_maps(camera, rotations, height, gsd, size)
    count = len(to_camera)
    if out is None:
        out = np.empty((count, 3, size, size), dtype), np.empty((count, size, size), np.uint8)
    tensor, masks = out
    warp_into(
        tensor,
        masks,
        image,
        pixels,
        to_camera,
        camera.fx,
        camera.fy,
        camera.cx,
        camera.cy,
        camera.distortion,
        scale,
        offset,
        channels,
        threads,
        camera.model,
        MAX_SLANT,
    )
    return NetworkInput(tensor, masks, gsd, offsets, to_camera)


def view_maps(
    camera: Camera, rotations: Sequence[NDArray[np.float64]], height: float, gsd: float, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Where views of the ground lie: offsets (B, 2) and maps (B, 3, 3), see `NetworkInput`.

    Args:
        camera, rotations, height, gsd, size: as `warp_to_input` takes them.

    Raises:
        FrameError: the camera does not look at the ground.
    """
    offsets = [_center(camera, rotation, height)[1] for rotation in rotations]
    maps = [_patch_to_camera(*pair, height, gsd, size) for pair in zip(rotations, offsets, strict=True)]
    return np.array(offsets, np.float64).reshape(-1, 2), np.array(maps, np.float64).reshape(-1, 3, 3)


def view_offset(camera: Camera, rotation: NDArray[np.float64], height: float) -> NDArray[np.float64]:
    """East and north (2,) from the point below the camera to the centre of the view that :func:`rectify` makes, metres.

    Args:
        camera, rotation, height: as :func:`rectify` takes them.

    Raises:
        FrameError: the camera does not look at the ground.
    """
    return _center(camera, rotation, height)[1]


def rectify_again(patch: Patch, camera: Camera, rotation: NDArray[np.float64], height: float) -> Patch:
    """A patch as another attitude and height would have made it, resampled from the patch itself.

    For small corrections: a fraction of the cost of going back to the frame, at the price of a second interpolation.

    Raises:
        FrameError: under the other attitude the camera does not look at the ground.
    """
    offset, to_camera = _again(patch, camera, rotation, height)
    image, mask = resample(patch.image, patch.mask, patch.from_camera @ to_camera)
    return Patch(image, mask, patch.gsd, offset, to_camera, patch.aim)


def look_again(
    patch: Patch, camera: Camera, rotation: NDArray[np.float64], height: float
) -> tuple[Look, NDArray[np.float64]]:
    """What :func:`rectify_again` makes, not yet made, and its offset (2,) from the point below the camera, metres.

    Raises:
        FrameError: under the other attitude the camera does not look at the ground.
    """
    offset, to_camera = _again(patch, camera, rotation, height)
    return Look(patch.image, patch.mask, patch.from_camera @ to_camera), offset


def _again(
    patch: Patch, camera: Camera, rotation: NDArray[np.float64], height: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offset and map of a patch under another attitude and height."""
    offset = ground_offset(camera, rotation, height, patch.aim, _CORRECTED_SLANT)
    return offset, _patch_to_camera(rotation, offset, height, patch.gsd, patch.mask.shape[0])


def _center(
    camera: Camera, rotation: NDArray[np.float64], height: float
) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
    """The pixel at a view's centre, None for the image's middle, and its offset (2,).

    Raises:
        FrameError: the middle of the image looks more than 60 degrees off nadir.
    """
    middle = ground_offset(camera, rotation, height)
    pixel = aim(camera, rotation)
    return pixel, middle if pixel is None else ground_offset(camera, rotation, height, pixel)


def _patch_to_camera(
    rotation: NDArray[np.float64], offset: NDArray[np.float64], height: float, gsd: float, size: int
) -> NDArray[np.float64]:
    """Patch pixel -> point on the ground plane, relative to the camera, ENU -> ray in camera coordinates."""
    half = (size - 1) / 2
    to_enu = np.array([[gsd, 0.0, offset[0] - half * gsd], [0.0, -gsd, offset[1] + half * gsd], [0.0, 0.0, -height]])
    return np.asarray(rotation.T @ to_enu)
