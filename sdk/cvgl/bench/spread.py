"""What many measurements of one thing say: percentiles, how sure the median is, and whether something grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["growth", "spread"]

_RESAMPLES, _AT_ONCE = 1000, 100
_PERCENTILES = {"p5": 5, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "p99": 99}
_BLOCKS = 10
# Student's t for a two-sided 95 % interval of the mean of the nine rises between ten blocks.
_T_95 = 2.306


def spread(values: ArrayLike, groups: Sequence[str] | None = None) -> dict[str, float]:
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
    names = np.unique(list(groups), return_inverse=True)[1] if groups is not None else np.arange(len(measured))
    medians = _resampled_medians(measured, names)
    low, high = np.percentile(medians, [2.5, 97.5])
    numbers |= {"mean": measured.mean(), "p50_low": low, "p50_high": high}
    return {name: round(float(value), 4) for name, value in numbers.items()}


def _resampled_medians(values: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Medians of resamples of whole groups (numbered from 0)."""
    rng = np.random.default_rng(0)
    order = np.argsort(values, kind="stable")
    ranked, count = values[order], int(groups.max()) + 1
    medians = []
    for _ in range(_RESAMPLES // _AT_ONCE):
        drawn = rng.integers(count, size=(_AT_ONCE, count)) + count * np.arange(_AT_ONCE)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * _AT_ONCE).reshape(_AT_ONCE, count)
        # Each value counts as often as its group was drawn: the middle is where half of all have been passed.
        passed = np.cumsum(times[:, groups[order]], axis=1)
        middles = (passed[:, -1:] + 1) // 2, passed[:, -1:] // 2 + 1
        medians += [np.mean([ranked[(passed < middle).sum(axis=1)] for middle in middles], axis=0)]
    return np.concatenate(medians)


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
