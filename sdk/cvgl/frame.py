"""What the flight software hands in: one camera frame with what is known about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import FrameError

__all__ = ["Frame", "Prior"]


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
        image: (H, W, 3) BGR or (H, W) grey, uint8, as the camera delivers it (not undistorted).
        time: of the exposure, seconds (Unix time, or any clock that the caller keeps to).
        height: of the camera above the ground it looks at, metres.
        heading: of the vehicle, degrees clockwise from true north; None if unknown.
        pitch, roll: of the vehicle (or of the gimbal that carries the camera), degrees, nose up and right side down
            positive; None if unknown, and then taken as level with the uncertainty that the settings state.
        prior: where the aircraft may be; None when lost.
        name: for messages and reports.
    """

    image: NDArray[np.uint8]
    time: float
    height: float
    heading: float | None = None
    pitch: float | None = None
    roll: float | None = None
    prior: Prior | None = None
    name: str = ""

    def check(self) -> None:
        """Refuse what cannot be localised.

        Raises:
            FrameError: names the field, what was found and what was expected.
        """
        image: Any = self.image
        if not isinstance(image, np.ndarray):
            raise FrameError("not an image", field="image", found=type(image).__name__, expected="a numpy array")
        shape_ok = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
        if not shape_ok or image.dtype != np.uint8 or min(image.shape[:2]) < 16:
            raise FrameError(
                "not usable",
                field="image",
                found=f"{image.dtype} {image.shape}",
                expected="uint8 (H, W, 3) BGR or (H, W) grey, at least 16 pixels a side",
            )
        if self.prior is not None and not isinstance(self.prior, Prior):
            raise FrameError("not usable", field="prior", found=self.prior, expected="a Prior or None")
        _check("time", self.time, -math.inf, math.inf)
        _check("height", self.height, 1.0, 20_000.0)
        for name, bound in (("heading", 720.0), ("pitch", 90.0), ("roll", 180.0)):
            value = getattr(self, name)
            if value is not None:
                _check(name, value, -bound, bound)


def _check(field: str, value: Any, low: float, high: float) -> None:
    ok = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not ok or not math.isfinite(value) or not low <= value <= high:
        wanted = "a finite number" if math.isinf(low) else f"a number from {low:g} to {high:g}"
        raise FrameError("not usable", field=field, found=value, expected=wanted)
