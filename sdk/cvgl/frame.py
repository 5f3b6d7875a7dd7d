"""What the flight software hands in: one camera frame with what is known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import FrameError

__all__ = ["HIGHEST_M", "LOWEST_M", "PIXELS", "Frame", "Prior"]

# Heights above ground that are believed, metres.
LOWEST_M, HIGHEST_M = 1.0, 20_000.0
PIXELS = ("bgr", "rgb", "grey", "nv12", "yuyv")
_SHAPES = {
    "bgr": "(H, W, 3) BGR or (H, W) grey",
    "rgb": "(H, W, 3) RGB",
    "grey": "(H, W) grey",
    "nv12": "(H * 3 / 2, W) NV12 with H and W even",
    "yuyv": "(H, W, 2) YUYV with W even",
}


@dataclass(frozen=True)
class Prior:
    """Where the aircraft may be: a circle of one sigma around a WGS84 position.

    Args:
        latitude, longitude: WGS84 degrees.
        sigma_m: standard deviation on each axis, metres.
    """

    latitude: float
    longitude: float
    sigma_m: float

    def __post_init__(self) -> None:
        _check("prior.latitude", self.latitude, -90.0, 90.0)
        _check("prior.longitude", self.longitude, -180.0, 180.0)
        _check("prior.sigma_m", self.sigma_m, 0.0, 1e7)


@dataclass(frozen=True)
class Frame:
    """One camera frame and its telemetry.

    Args:
        image: uint8, as the camera delivers it (not undistorted), in the format that ``pixels`` names.
        time: of the exposure, seconds (Unix time, or any clock that the caller keeps to).
        height: of the camera above the ground it looks at, metres; NaN where only an altitude is known, and then it is
            the altitude over the mission's terrain.
        heading: of the vehicle, degrees clockwise from true north; None if unknown.
        pitch, roll: of the vehicle (or of the gimbal that carries the camera), degrees, nose up and right side down
            positive; None if unknown, and then taken as level with the uncertainty that the settings state.
        prior: where the aircraft may be; None when lost.
        velocity: (east, north) of the vehicle over ground, m/s, from odometry, airspeed and wind, or an inertial
            solution: the mean since the frame before; None if unknown.
        velocity_sigma: standard deviation of each component, m/s; None for what the settings state.
        altitude_msl: of the camera above mean sea level, metres; None if unknown. Used where height is not given.
        altitude_ellipsoid: of the camera above the WGS84 ellipsoid, metres; likewise.
        name: for messages and reports.
        pixels: how ``image`` lies in memory. "bgr": (H, W, 3), or (H, W) grey; "rgb": (H, W, 3); "grey": (H, W);
            "nv12": (H * 3 / 2, W), the luma plane above interleaved U and V of half the resolution; "yuyv":
            (H, W, 2), YUY2. Both YUV formats are ITU-R BT.601 of limited range (luma 16 to 235).
    """

    image: NDArray[np.uint8]
    time: float
    height: float
    heading: float | None = None
    pitch: float | None = None
    roll: float | None = None
    prior: Prior | None = None
    name: str = ""
    pixels: str = "bgr"
    velocity: tuple[float, float] | None = None
    velocity_sigma: float | None = None
    altitude_msl: float | None = None
    altitude_ellipsoid: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, pixels."""
        height, width = self.image.shape[:2]
        return width, height * 2 // 3 if self.pixels == "nv12" else height

    @property
    def layout(self) -> str:
        """What ``image`` holds: ``pixels``, or "grey" for a "bgr" frame of two dimensions."""
        return "grey" if self.pixels == "bgr" and self.image.ndim == 2 else self.pixels

    def grey(self) -> NDArray[np.uint8]:
        """(H, W) grey levels; of YUV the luma as it is, 16 to 235. No copy where the format has them in one plane."""
        layout = self.layout
        if layout == "nv12":
            return self.image[: self.size[1]]
        if layout == "yuyv":
            return np.ascontiguousarray(self.image[..., 0])
        if layout == "grey":
            return self.image
        grey = cv2.cvtColor(self.image, cv2.COLOR_BGR2GRAY if layout == "bgr" else cv2.COLOR_RGB2GRAY)
        return np.asarray(grey, np.uint8)

    def check(self) -> None:
        """Refuse what cannot be localised.

        Raises:
            FrameError: names the field, what was found and what was expected.
        """
        image: Any = self.image
        if not isinstance(image, np.ndarray):
            raise FrameError("not an image", field="image", found=type(image).__name__, expected="a numpy array")
        if not isinstance(self.pixels, str) or self.pixels not in PIXELS:
            raise FrameError("not usable", field="pixels", found=self.pixels, expected=", ".join(PIXELS))
        if not _shape_fits(image.shape, self.pixels) or image.dtype != np.uint8 or min(self.size) < 16:
            raise FrameError(
                "not usable",
                field="image",
                found=f"{image.dtype} {image.shape}",
                expected=f"uint8 {_SHAPES[self.pixels]}, at least 16 pixels a side",
            )
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise FrameError("not usable", field="prior", found=self.prior, expected="a Prior or None")
        _check("time", self.time, -math.inf, math.inf)
        altitudes = {name: getattr(self, name) for name in ("altitude_msl", "altitude_ellipsoid")}
        for name, value in altitudes.items():
            if value is not None:
                _check(name, value, -1000.0, 100_000.0)
        if not (_is_nan(self.height) and any(value is not None for value in altitudes.values())):
            _check("height", self.height, LOWEST_M, HIGHEST_M)
        for name, bound in (("heading", 720.0), ("pitch", 90.0), ("roll", 180.0)):
            value = getattr(self, name)
            if value is not None:
                _check(name, value, -bound, bound)
        if self.velocity is not None:
            if not isinstance(self.velocity, (tuple, list, np.ndarray)) or len(self.velocity) != 2:
                raise FrameError("not usable", field="velocity", found=self.velocity, expected="(east, north) in m/s")
            for value in self.velocity:
                _check("velocity", value, -1000.0, 1000.0)
        if self.velocity_sigma is not None:
            _check("velocity_sigma", self.velocity_sigma, 0.0, 1000.0)


def _shape_fits(shape: tuple[int, ...], pixels: str) -> bool:
    if pixels in ("grey", "nv12") or (pixels == "bgr" and len(shape) == 2):
        return len(shape) == 2 and (pixels != "nv12" or (shape[0] % 3 == 0 and shape[1] % 2 == 0))
    if pixels == "yuyv":
        return len(shape) == 3 and shape[2] == 2 and shape[1] % 2 == 0
    return len(shape) == 3 and shape[2] == 3


def _is_nan(value: Any) -> bool:
    return isinstance(value, (float, np.floating)) and math.isnan(value)


def _check(field: str, value: Any, low: float, high: float) -> None:
    ok = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not ok or not math.isfinite(value) or not low <= value <= high:
        wanted = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"
        raise FrameError("not usable", field=field, found=value, expected=wanted)
