"""Random processes that errors follow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["gaps", "gauss_markov", "split_error"]


def gauss_markov(
    rng: np.random.Generator, count: int, step_s: float, tau_s: float, columns: int = 1
) -> NDArray[np.float64]:
    """First-order Gauss-Markov noise (count, columns): standard deviation 1, correlation exp(-t / tau).

    Source: Gelb, Applied Optimal Estimation, 2.7 (exponentially correlated noise).
    """
    keep = math.exp(-step_s / tau_s)
    drive = math.sqrt(1 - keep * keep)
    white = rng.standard_normal((count, columns))
    out = np.empty_like(white)
    for index in range(count):
        out[index] = white[index] if index == 0 else keep * out[index - 1] + drive * white[index]
    return out


def split_error(rng: np.random.Generator, count: int, sigma: float) -> NDArray[np.float64]:
    """Errors (count,) of a sensor: half of the variance constant, half new every time."""
    return sigma * math.sqrt(0.5) * (rng.standard_normal() + rng.standard_normal(count))


def gaps(rng: np.random.Generator, count: int, step_s: float, share: float, mean_s: float) -> NDArray[np.bool_]:
    """Where something is missing (count,): a two-state Markov chain that is missing for this share of the time.

    Args:
        share: of the time, 0 to 0.9.
        mean_s: mean length of a gap; no shorter than a step.
    """
    if share <= 0:
        return np.zeros(count, bool)
    end = min(step_s / mean_s, 1.0)
    begin = min(end * share / (1 - share), 1.0)
    draws = rng.random(count + 1)
    missing = np.empty(count, bool)
    state = bool(draws[-1] < share)
    for index in range(count):
        if index:
            state = bool(draws[index] >= end) if state else bool(draws[index] < begin)
        missing[index] = state
    return missing
