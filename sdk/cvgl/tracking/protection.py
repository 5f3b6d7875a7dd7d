"""How far off a filter's position may be at a stated risk."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["mixture_radius"]

# Degrees of freedom of an error: how well its variance is known. The laws that it rests on are told by people (to a
# third, which is 20) and are bent by what the filter takes as straight and normal.
_FREEDOM = 20.0


def mixture_radius(
    weights: NDArray[np.float64], apart: NDArray[np.float64], covariances: NDArray[np.float64], risk: float
) -> float:
    """Radius (metres) around a position, outside which lies the stated probability at most; infinite where it cannot.

    Each component counts around its own mean, along its worst direction, with the tail of Student's distribution in two
    dimensions, (1 + r^2 / (n v))^(-n / 2) for a variance v: the normal one's if v were known. Source: Kotz, Nadarajah:
    Multivariate t distributions and their applications, 2004, chapter 1.

    Args:
        weights: (N,) of the components, 1 together with what is lost.
        apart: (N, 2) of their means from the position, east and north, metres.
        covariances: (N, 2, 2) m^2.
        risk: probability of being outside; what is lost is taken off it already.
    """
    if risk <= 0.0:
        return math.inf
    distances = np.hypot(*apart.T)
    variances = np.maximum(np.linalg.eigvalsh(covariances)[:, -1], 1e-12)
    furthest = np.sqrt(_FREEDOM * variances * (min(risk, 0.5) ** (-2.0 / _FREEDOM) - 1.0))
    low, high = 0.0, float((distances + furthest).max())
    for _ in range(40):
        middle = (low + high) / 2
        left = np.maximum(middle - distances, 0.0)
        if float(weights @ (1.0 + left**2 / (_FREEDOM * variances)) ** (-_FREEDOM / 2.0)) > risk:
            low = middle
        else:
            high = middle
    return high
