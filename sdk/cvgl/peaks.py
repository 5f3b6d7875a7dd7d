"""How well a correlation peak tells its place, and a pose fitted to peaks that each count for as much as they tell."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["peak_covariances", "refit_pose"]

# Nearer to a peak than this (pixels, each axis) its surface is signal, beyond it is noise.
_APART_PX = 4
# The least curvature that is believed, in standard deviations of the surface a square pixel.
_LEAST_BEND = 0.02
# Standard deviation that a peak has at least, pixels: what resampling, the parabola and buildings that lean leave.
_LEAST_SIGMA_PX = 0.3
# A residual counts as one of Student's law, four degrees of freedom, with a scale of so many sigmas.
_SCALE = 1.5
_ROUNDS = 6

Array = NDArray[np.float64]


def peak_covariances(surfaces: NDArray[np.float32], measured: Array, lean: Array, rises: Array, gsd: float) -> Array:
    """Covariance (B, 2, 2) of the places of peaks, east and north, m^2.

    A peak lies where the gradient of the surface is zero. To first order noise n moves it by H^-1 grad n, with H the
    curvature of the surface at the peak, so its covariance is H^-1 G H^-1, with G the covariance of the gradient of the
    noise, which the surface shows away from the peak (as of any extremum estimate: Van Trees, Detection, Estimation,
    and Modulation Theory I, 2.4; van der Vaart, Asymptotic Statistics, 5.3).

    Args:
        surfaces: (B, n, n), as of :func:`cvgl.native.fit_pose`, standardised.
        measured: (B, 2) places of the peaks as if on the ground, as :func:`cvgl.native.fit_pose` returns them.
        lean, rises, gsd: as of :func:`cvgl.native.fit_pose`.
    """
    count, size = surfaces.shape[:2]
    last, search, blocks = size - 2, size // 2, np.arange(count)
    # The peak is at the place of one of the heights that the block may have: the one where the surface is highest.
    places = measured[:, None] + lean[:, None] * rises[None, :, None]
    columns = np.clip(np.rint(places[..., 0] / gsd + search), 1, last).astype(np.intp)
    rows = np.clip(np.rint(places[..., 1] / -gsd + search), 1, last).astype(np.intp)
    chosen = surfaces[blocks[:, None], rows, columns].argmax(axis=1)
    x, y = columns[blocks, chosen], rows[blocks, chosen]

    def at(down: int, right: int) -> Array:
        return surfaces[blocks, y + down, x + right].astype(np.float64)

    bend = np.empty((count, 2, 2))
    bend[:, 0, 0] = 2 * at(0, 0) - at(0, -1) - at(0, 1)
    bend[:, 1, 1] = 2 * at(0, 0) - at(-1, 0) - at(1, 0)
    bend[:, 0, 1] = bend[:, 1, 0] = (at(1, -1) + at(-1, 1) - at(1, 1) - at(-1, -1)) / 4
    values, axes = np.linalg.eigh(bend)
    inverse = (axes / np.maximum(values, _LEAST_BEND)[:, None, :]) @ axes.transpose(0, 2, 1)
    down, right = np.gradient(surfaces, axis=(1, 2))
    grid = np.arange(size)
    near = (abs(grid[None, :, None] - y[:, None, None]) <= _APART_PX) & (
        abs(grid[None, None, :] - x[:, None, None]) <= _APART_PX
    )
    slopes = np.stack([right, down], axis=1).reshape(count, 2, -1) * ~near.reshape(count, 1, -1)
    noise = slopes @ slopes.transpose(0, 2, 1) / np.maximum((~near).sum(axis=(1, 2)), 1)[:, None, None]
    covariance = inverse @ noise @ inverse + _LEAST_SIGMA_PX**2 * np.eye(2)
    # Rows go south.
    covariance[:, 0, 1] *= -1
    covariance[:, 1, 0] *= -1
    return np.asarray(covariance * gsd**2)


def refit_pose(
    pose: Array, measured: Array, covariances: Array, design: Array, prior_mean: Array, prior_weight: Array
) -> tuple[Array, Array]:
    """A pose fitted again to the same peaks, each with its own covariance, by Student's weights.

    Args:
        pose: (6,) to start from.
        measured, design, prior_mean, prior_weight: as of :func:`cvgl.native.fit_pose`.
        covariances: (B, 2, 2) of the peaks, m^2.

    Returns:
        The pose (6,) and its covariance (6, 6), widened where the peaks scatter more than they say.
    """
    inverse = np.linalg.inv(covariances)
    weighed = np.einsum("bki,bkl->bil", design, inverse)
    scatter = 1.0
    information = np.diag(prior_weight)
    for _ in range(_ROUNDS):
        residual = measured - design @ pose
        square = np.einsum("bi,bij,bj->b", residual, inverse, residual)
        weight = 5.0 / (4.0 + square / _SCALE**2)
        scatter = float((weight * square).sum() / (2 * weight.sum()))
        information = np.diag(prior_weight) + np.einsum("b,bil,blj->ij", weight, weighed, design)
        right = prior_weight * prior_mean + np.einsum("b,bil,bl->i", weight, weighed, measured)
        pose = np.linalg.solve(information, right)
    return pose, np.asarray(np.linalg.inv(information) * max(1.0, scatter))
