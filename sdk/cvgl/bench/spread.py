"""What many measurements of one thing say: percentiles, how sure the median is, and whether something grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["growth", "spread"]

_RESAMPLES = 1000
_PERCENTILES = {"p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p99": 99}
_BLOCKS = 10
# Student's t for a two-sided 95 % interval of the mean of the nine rises between ten blocks.
_T_95 = 2.306


def spread(values: ArrayLike, groups: Sequence[object] | None = None) -> dict[str, float]:
    """Percentiles and mean, and a 95 % interval of the median by bootstrap.

    Args:
        values: (N,) measurements, N at least 1.
        groups: (N,) what each of them was taken of. Repeated measurements of one thing (a frame) are no independent
            draws of things, so whole groups are drawn; None where each is its own.

    Returns:
        ``p5``, ``p25``, ``p50``, ``p75``, ``p95``, ``p99``, ``mean``, and ``p50_low``, ``p50_high``.
    """
    measured = np.asarray(values, np.float64)
    numbers = dict(zip(_PERCENTILES, np.percentile(measured, list(_PERCENTILES.values())), strict=True))
    names = list(dict.fromkeys(groups)) if groups is not None else list(range(len(measured)))
    where = groups if groups is not None else names
    members: dict[object, list[int]] = {name: [] for name in names}
    for index, name in enumerate(where):
        members[name].append(index)
    parts = [measured[indices] for indices in members.values()]
    rng = np.random.default_rng(0)
    medians = [
        float(np.median(np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))])))
        for _ in range(_RESAMPLES)
    ]
    low, high = np.percentile(medians, [2.5, 97.5])
    numbers |= {"mean": measured.mean(), "p50_low": low, "p50_high": high}
    return {name: round(float(value), 4) for name, value in numbers.items()}


def growth(values: ArrayLike, warm_up: float = 0.2) -> dict[str, float] | None:
    """How fast something grows, after a warm-up, with a 95 % interval.

    Memory grows in steps, and each value is nearly the one before, so that the textbook's error of a regression is far
    too small. The series is cut into ten blocks; each rise from one block's mean to the next is one measurement of the
    slope, and they differ among each other as much as such a measurement is uncertain (the method of batch means).

    Args:
        values: (N,) at equal distances.
        warm_up: share of the series that is left out at its start.

    Returns:
        ``slope``, ``low`` and ``high`` for each step of the series; None where fewer than 50 values are left.
    """
    series: NDArray[np.float64] = np.asarray(values, np.float64)
    series = series[int(np.ceil(warm_up * len(series))) :]
    side = len(series) // _BLOCKS
    if side < 5:
        return None
    rises = np.diff(series[: side * _BLOCKS].reshape(_BLOCKS, side).mean(axis=1)) / side
    slope, error = float(rises.mean()), _T_95 * float(rises.std(ddof=1)) / math.sqrt(len(rises))
    return {"slope": slope, "low": slope - error, "high": slope + error}
