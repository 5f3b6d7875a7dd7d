"""Spatial distance metrics: how near the first K references lie, in the two forms that are published under one name."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["sdm_degrees", "sdm_metres"]

Floats = NDArray[np.float64]


def sdm_degrees(query: Floats, found: Floats, k: int, scale: float = 5e3) -> Floats:
    """(Q,) SDM@k of DenseUAV (Dai et al. 2023): closeness in degrees, not in metres.

    The mean of exp(-scale * d) over the first k references, the i-th (from 1) weighted by k - i + 1, where d is the
    Euclidean distance of latitude and longitude in degrees: 0.0002 degrees give 1/e, in longitude fewer metres the
    farther from the equator. Degrees are rounded to single precision first, as the authors' code does; at 120 degrees
    of longitude that moves a place by up to 0.4 m and their figures in the third digit. Not comparable with
    `sdm_metres`.

    Args:
        query: (Q, 2) latitude and longitude, degrees.
        found: (Q, T, 2) the same of the references in the order of the search, T at least k.
        k: how many of them count.
        scale: per degree.
    """
    apart = found.astype(np.float32) - query.astype(np.float32)[:, None]
    return _weighted(np.sqrt(np.square(apart).sum(2, dtype=np.float32)).astype(np.float64), k, scale)


def sdm_metres(distances: Floats, k: int, scale: float = 1e-3) -> Floats:
    """(Q,) SDM@k of GTA-UAV (Ji et al. 2024): the same mean with distances in metres, 1000 m giving 1/e.

    Not comparable with `sdm_degrees`, which falls off some fifty times faster.

    Args:
        distances: (Q, T) metres from the query to the references in the order of the search, T at least k.
        k: how many of them count.
        scale: per metre.
    """
    return _weighted(distances, k, scale)


def _weighted(distances: Floats, k: int, scale: float) -> Floats:
    weight = np.arange(k, 0, -1)
    return np.asarray((np.exp(-scale * distances[:, :k]) * weight).sum(1) / weight.sum())
