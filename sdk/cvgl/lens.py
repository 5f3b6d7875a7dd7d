"""Lens models in normalised coordinates: OpenCV's equidistant fisheye, and where any lens stops being one-to-one.

Ideal coordinates are (x, y) of a ray (x, y, 1); distorted ones are what the focal length is multiplied with.

Source of the fisheye model: Kannala and Brandt, "A Generic Camera Model and Calibration Method for Conventional,
Wide-Angle, and Fish-Eye Lenses", PAMI 28 (2006), equation 6 without a term's own scale, as OpenCV has it: a ray at the
angle t from the optical axis is drawn at the radius t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["MODELS", "fisheye_angle", "fisheye_distort", "fisheye_undistort", "pinhole_radius"]

MODELS = ("pinhole", "fisheye")
"""Lens models by name: OpenCV's pinhole with polynomial or rational distortion, and its fisheye."""

Array = NDArray[np.float64]

# Beyond 83 degrees off the axis no pinhole describes a lens.
_LARGEST_RADIUS = 8.0
_ITERATIONS = 60
_SETTLED = 1e-15
# Where a lens folds is looked for in so many steps, which is then halved as often.
_STEPS, _HALVINGS = 4096, 40


@lru_cache(maxsize=64)
def fisheye_angle(distortion: tuple[float, ...]) -> float:
    """Largest angle from the optical axis, radians, up to which a fisheye is one-to-one; at most 90 degrees.

    Args:
        distortion: k1 to k4; empty for none.
    """
    return _first_fold(lambda angle: _drawn_rate(angle, distortion), math.pi / 2)


@lru_cache(maxsize=64)
def pinhole_radius(distortion: tuple[float, ...]) -> float:
    """Largest ideal radius up to which a pinhole's distorted radius grows with the ideal one; at most 8.

    Tangential distortion, which moves what is seen by a few pixels, is left out.

    Args:
        distortion: k1, k2, p1, p2[, k3[, k4, k5, k6]] as OpenCV orders them; empty for none.
    """
    k1, k2, _, _, k3, k4, k5, k6 = (*distortion, *(0.0,) * (8 - len(distortion)))
    top, bottom = np.array([1.0, k1, k2, k3]), np.array([1.0, k4, k5, k6])
    powers = np.arange(4)
    # With s the squared radius, the distorted radius grows while (N + 2 s N') D - 2 s N D' is above zero.
    slope = np.convolve(top * (1 + 2 * powers), bottom) - np.convolve(top, bottom * 2 * powers)

    def growth(radius: Array) -> Array:
        # Beyond a pole of the model there is no lens any more.
        return np.where(_polynomial(radius**2, bottom) > 0, _polynomial(radius**2, slope), -1.0)

    return _first_fold(growth, _LARGEST_RADIUS)


def fisheye_distort(points: Array, distortion: tuple[float, ...]) -> Array:
    """Points (N, 3) in camera coordinates to distorted coordinates (N, 2); NaN where the lens sees nothing.

    Args:
        points: x right, y down, z along the optical axis.
        distortion: k1 to k4; empty for none.
    """
    radius = np.hypot(points[:, 0], points[:, 1])
    angle = np.arctan2(radius, points[:, 2])
    drawn = _drawn(angle, distortion)
    with np.errstate(invalid="ignore", divide="ignore"):
        factor = np.where(radius > 0, drawn / radius, 1.0 / points[:, 2])
    # The first directions beyond 90 degrees are as large an angle as pi / 2 to the last bit.
    seen = (angle <= fisheye_angle(distortion)) & (points[:, 2] > 0)
    return np.where(seen[:, None], points[:, :2] * factor[:, None], np.nan)


def fisheye_undistort(distorted: Array, distortion: tuple[float, ...]) -> Array:
    """Distorted coordinates (N, 2) to ideal ones (N, 2); NaN where no ray is drawn.

    Args:
        distorted: what is drawn, over the focal length.
        distortion: k1 to k4; empty for none.
    """
    drawn = np.hypot(distorted[:, 0], distorted[:, 1])
    largest = fisheye_angle(distortion)
    low, high = np.zeros_like(drawn), np.full_like(drawn, largest)
    angle = np.minimum(drawn, 0.5 * largest)
    for _ in range(_ITERATIONS):  # Newton's method; where a step leaves what is still possible, its middle
        excess = _drawn(angle, distortion) - drawn
        low, high = np.where(excess < 0, angle, low), np.where(excess > 0, angle, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            stepped = angle - excess / _drawn_rate(angle, distortion)
        inside = (stepped >= low) & (stepped <= high)
        before, angle = angle, np.where(inside, stepped, 0.5 * (low + high))
        if np.abs(angle - before).max(initial=0.0) < _SETTLED:
            break
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = np.where(drawn > 0, np.tan(angle) / drawn, 1.0)
    # A ray at a right angle to the axis has no ideal coordinates.
    seen = (drawn < _drawn(np.array([largest]), distortion)) & (angle < math.pi / 2)
    return np.where(seen[:, None], distorted * factor[:, None], np.nan)


def _drawn(angle: Array, distortion: tuple[float, ...]) -> Array:
    """Radius at which a fisheye draws rays at angles from its axis."""
    return angle * _polynomial(angle**2, np.array([1.0, *distortion]))


def _drawn_rate(angle: Array, distortion: tuple[float, ...]) -> Array:
    """Its derivative by the angle."""
    return _polynomial(angle**2, np.array([1.0, *(k * (2 * n + 3) for n, k in enumerate(distortion))]))


def _polynomial(x: Array, coefficients: Array) -> Array:
    return np.asarray(np.polynomial.polynomial.polyval(x, coefficients))


def _first_fold(growth: Callable[[Array], Array], largest: float) -> float:
    """How far, at most to ``largest``, a function of the radius stays above zero."""
    steps = np.linspace(0.0, largest, _STEPS + 1)
    folded = np.flatnonzero(~(growth(steps) > 0))
    if not len(folded):
        return largest
    low, high = steps[max(int(folded[0]) - 1, 0)], steps[folded[0]]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        if growth(np.array([middle]))[0] > 0:
            low = middle
        else:
            high = middle
    return float(low)
