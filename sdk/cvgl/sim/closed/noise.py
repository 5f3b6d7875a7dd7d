"""Random processes that errors follow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cvgl.lasting import MAP_REACH_M, Law

__all__ = ["ERRORS", "gaps", "gauss_markov", "lasting_errors", "map_errors"]

ERRORS = ("lawful", "white", "constant")
"""How errors last: as :mod:`cvgl.lasting` says; new in every frame; the same all through a flight."""

_WAVES = 512


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


def lasting_errors(
    rng: np.random.Generator, law: Law, count: int, step_s: float, columns: int = 1, kind: str = "lawful"
) -> NDArray[np.float64]:
    """Errors (count, columns) of a sensor over a flight: standard deviation 1.

    Args:
        rng: draws them.
        law: how much of the error lasts, and for how long.
        count: of frames, ``step_s`` seconds apart.
        kind: of :data:`ERRORS`; those that are not lawful depart from what the filter reckons with.
    """
    if kind == "constant":
        return np.tile(rng.standard_normal(columns), (count, 1))
    white = rng.standard_normal((count, columns))
    if kind == "white":
        return white
    lasts = gauss_markov(rng, count, step_s, law.lasting_s, columns)
    passes = gauss_markov(rng, count, step_s, law.passing_s, columns) if law.passing_s > 0 else white
    return law.lasting_sigma * lasts + law.passing_sigma * passes


def map_errors(rng: np.random.Generator, places: NDArray[np.float64], kind: str = "lawful") -> NDArray[np.float64]:
    """Errors (N, 2) of a map east and north at places (N, 2), metres: standard deviation 1 on each axis.

    They belong to the place: a Gaussian field with the correlation exp(-distance / MAP_REACH_M), as a sum of waves
    whose directions and lengths are drawn from that correlation's spectrum, a Cauchy law of two dimensions.

    Source: Rahimi, Recht: Random Features for Large-Scale Kernel Machines, NIPS 2007, section 3.
    """
    if kind == "constant":
        return np.tile(rng.standard_normal(2), (len(places), 1))
    if kind == "white":
        return rng.standard_normal((len(places), 2))
    out = np.empty((len(places), 2))
    for axis in range(2):
        waves = rng.standard_normal((2, _WAVES)) / (MAP_REACH_M * np.abs(rng.standard_normal(_WAVES)))
        out[:, axis] = np.cos(places @ waves + rng.uniform(0, 2 * math.pi, _WAVES)).sum(axis=1)
    return math.sqrt(2 / _WAVES) * out


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
