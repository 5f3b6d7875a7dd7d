"""What comes between the ground and the picture: cloud, motion, darkness."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.sim.closed.scenario import Scenario

__all__ = ["Sky", "darken", "image_motion", "light_level", "motion_blur", "rolling_shutter"]

Image = NDArray[np.uint8]

_FIELD_PX = 512
# Metres a pixel of the fields of cloud: patches of a few tens of metres below the aircraft, shadows of hundreds.
_CLOUD_M, _SHADOW_M = 0.8, 3.0
# Clouds hang half way between aircraft and ground, so that they pass twice as fast as the ground does.
_CLOUD_DEPTH = 0.5
_CLOUD_GREY, _SHADOW_GAIN = 225.0, 0.45
_EDGE = 0.25
_GRID = 24
_DISPLAY_GAMMA = 2.2
_LEAST_BLUR_PX = 1.5


class Sky:
    """Clouds over one flight: two fields of noise, drifting with the wind.

    Args:
        scenario: how much cloud and shadow.
        wind: (2,) m/s east and north.
        rng: draws the fields.
    """

    def __init__(self, scenario: Scenario, wind: NDArray[np.float64], rng: np.random.Generator) -> None:
        self._wind = np.asarray(wind, np.float64)
        self._cloud = _cover(rng, scenario.clouds) if scenario.clouds > 0 else None
        self._shadow = _cover(rng, scenario.shadows) if scenario.shadows > 0 else None

    def over(
        self,
        image: Image,
        camera: Camera,
        rotation: NDArray[np.float64],
        position: NDArray[np.float64],
        time: float,
    ) -> Image:
        """The picture (H, W, 3) with the clouds' shadows on the ground and clouds before it.

        Args:
            image: BGR.
            camera: of the picture's size.
            rotation: (3, 3) camera to ENU.
            position: (3,) east, north, up; metres.
            time: seconds.
        """
        if self._cloud is None and self._shadow is None:
            return image
        u = np.linspace(0, camera.width - 1, _GRID)
        v = np.linspace(0, camera.height - 1, _GRID)
        pixels = np.stack(np.meshgrid(u, v), axis=-1).reshape(-1, 2)
        rays = camera.rays(pixels) @ rotation.T
        ground = rays[:, :2] / np.maximum(-rays[:, 2:], 0.05) * position[2]
        size = (camera.width, camera.height)
        out = image.astype(np.float32)
        if self._shadow is not None:
            at = position[:2] + ground - self._wind * time
            share = _sampled(self._shadow, at / _SHADOW_M, size)
            out *= 1 - (1 - _SHADOW_GAIN) * share[..., None]
        if self._cloud is not None:
            at = position[:2] + _CLOUD_DEPTH * ground - self._wind * time
            share = _sampled(self._cloud, at / _CLOUD_M, size)[..., None]
            out += share * (_CLOUD_GREY - out)
        return np.asarray(np.clip(out, 0, 255), np.uint8)


def image_motion(
    camera: Camera, rotation: NDArray[np.float64], velocity: NDArray[np.float64], height: float
) -> NDArray[np.float64]:
    """(2,) pixels a second by which the ground at the image's middle moves, right and down, for a camera about level.

    Args:
        camera: of the picture's size.
        rotation: (3, 3) camera to ENU.
        velocity: (2,) of the camera, m/s east and north.
        height: above ground, metres.
    """
    moved = rotation.T @ np.array([-velocity[0], -velocity[1], 0.0])
    return np.array([camera.fx, camera.fy]) * moved[:2] / height


def motion_blur(image: Image, shift_px: NDArray[np.float64]) -> Image:
    """The mean of the picture over a shift (2,), right and down, pixels; short shifts blur nothing."""
    length = float(np.hypot(*shift_px))
    if length < _LEAST_BLUR_PX:
        return image
    side = 2 * math.ceil(length / 2) + 3
    kernel = np.zeros((side, side), np.float32)
    middle = (side - 1) / 2
    ends = [np.round((middle + sign * 0.5 * shift_px) * 16).astype(int) for sign in (-1, 1)]
    cv2.line(kernel, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1.0, 1, cv2.LINE_AA, 4)
    blurred = cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, np.uint8)


def rolling_shutter(image: Image, motion_px_s: NDArray[np.float64], turn_deg_s: float, readout_s: float) -> Image:
    """The picture of a sensor that reads its rows one after another; its middle row is exposed at the frame's time.

    Args:
        image: (H, W, 3).
        motion_px_s: (2,) by which the ground moves in the image, right and down.
        turn_deg_s: of the camera about its axis, clockwise; the picture turns the other way.
        readout_s: from the first row to the last.
    """
    height, width = image.shape[:2]
    late = ((np.arange(height) - (height - 1) / 2) / height * readout_s).astype(np.float32)[:, None]
    if max(float(np.abs(motion_px_s).max()), abs(math.radians(turn_deg_s)) * width / 2) * readout_s < 0.5:
        return image
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = columns - (width - 1) / 2, rows - (height - 1) / 2
    turn = np.float32(math.radians(turn_deg_s)) * late
    # What a late row shows has moved on: it is looked up where that was at the frame's time.
    at_x = columns - np.float32(motion_px_s[0]) * late - turn * y
    at_y = rows - np.float32(motion_px_s[1]) * late + turn * x
    return np.asarray(cv2.remap(image, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.uint8)


def light_level(darkness: float, progress: float) -> float:
    """Light by the share of the flight that is over (0 to 1): 1 at its ends, 10^(-4 darkness) in its middle."""
    return float(10.0 ** (-4.0 * darkness * 0.5 * (1 - math.cos(2 * math.pi * progress))))


def darken(image: Image, level: float, rng: np.random.Generator) -> Image:
    """The picture with less light, 0 to 1, and the noise that is then left of it.

    The number of photons falls with the light, so that the noise relative to the signal grows with its square root.
    """
    if level >= 1.0:
        return image
    gain = level ** (1 / _DISPLAY_GAMMA)
    # Half a grey level in full light.
    noise = 0.5 * gain / math.sqrt(level) + 1.0
    grain = rng.standard_normal(image.shape[:2], dtype=np.float32) * np.float32(noise)
    return np.asarray(np.clip(image.astype(np.float32) * gain + grain[..., None], 0, 255), np.uint8)


def _cover(rng: np.random.Generator, share: float) -> NDArray[np.float32]:
    """A periodic field of opacity, 0 to 1, whose mean is about ``share``: noise of falling spectrum, cut off."""
    return _opacity(int(rng.integers(2**31)), share)


@lru_cache(maxsize=4)
def _opacity(seed: int, share: float) -> NDArray[np.float32]:
    if share >= 1.0:
        return np.ones((_FIELD_PX, _FIELD_PX), np.float32)
    rng = np.random.default_rng(seed)
    frequency = np.fft.fftfreq(_FIELD_PX) * _FIELD_PX
    radius = np.hypot(frequency[:, None], frequency[None, :])
    # Between the field's own size and some pixels: patches, not a gradient and not grain.
    weight = np.where(radius < 2, 0.0, np.maximum(radius, 1.0) ** -1.8)
    field = np.fft.ifft2(np.fft.fft2(rng.standard_normal((_FIELD_PX, _FIELD_PX))) * weight).real
    field = (field - np.quantile(field, 1 - share)) / field.std()
    return np.asarray(np.clip(0.5 + field / _EDGE, 0, 1), np.float32)


def _sampled(field: NDArray[np.float32], at: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """A field at points of the image's grid (GRID^2, 2), in its pixels, spread to the picture's size (W, H)."""
    grid = np.asarray(at.reshape(_GRID, _GRID, 2), np.float32)
    # Corners of the grid lie on the picture's corner pixels.
    scale = (_GRID - 1) / (np.array(size) - 1)
    matrix = np.array([[scale[0], 0, 0], [0, scale[1], 0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    fine = cv2.warpAffine(grid, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE) % _FIELD_PX
    return np.asarray(cv2.remap(field, fine[..., 0], fine[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))
