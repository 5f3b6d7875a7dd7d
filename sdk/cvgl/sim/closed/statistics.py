"""Confidence intervals for what a simulation counts: shares, and means of correlated values."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "batch_means", "beta_quantile", "clopper_pearson", "percentile", "regularised_beta"]

# 97.5 % quantiles of Student's t by degrees of freedom, up to where the normal law's stands in.
_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
_MOST_BATCHES = 200
_LEAST_BATCHES = 10


@dataclass(frozen=True)
class Estimate:
    """A value and its 95 % confidence interval; NaN where nothing was counted."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return {name: _plain(getattr(self, name)) for name in ("value", "low", "high")}


def clopper_pearson(successes: int, trials: int, confidence: float = 0.95) -> Estimate:
    """A share and its exact interval, for independent trials.

    Source: Clopper, Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial",
    Biometrika 26 (1934).
    """
    if trials == 0:
        return Estimate(math.nan, math.nan, math.nan)
    tail = (1 - confidence) / 2
    failures = trials - successes
    low = 0.0 if successes == 0 else beta_quantile(tail, successes, failures + 1)
    high = 1.0 if failures == 0 else beta_quantile(1 - tail, successes + 1, failures)
    return Estimate(successes / trials, low, high)


def batch_means(values: ArrayLike, groups: ArrayLike, length: int = 50) -> Estimate:
    """Mean of values that are correlated within their group, with an interval that knows of it.

    Values are cut into batches of consecutive ones that never span two groups. Means of batches longer than the
    correlation are about independent, so that their own spread tells the mean's error; where there are enough groups,
    each is one batch, whatever the correlation in it.

    Source: Law, Simulation Modeling and Analysis, 9.5.3 (batch means).

    Args:
        values: (N,) in their order; NaN ones are left out.
        groups: (N,) to which each belongs: the flight.
        length: least values of a batch.
    """
    value, group = np.asarray(values, np.float64), np.asarray(groups)
    kept = np.isfinite(value)
    value, group = value[kept], group[kept]
    if not len(value):
        return Estimate(math.nan, math.nan, math.nan)
    whole = [value[group == number] for number in np.unique(group)]
    batches = whole
    if len(whole) < _LEAST_BATCHES:
        most = max(1, _MOST_BATCHES // len(whole))
        batches = [
            part for run in whole for part in np.array_split(run, min(max(1, len(run) // length), most)) if len(part)
        ]
    mean = float(value.mean())
    if len(batches) < 2:
        return Estimate(mean, math.nan, math.nan)
    # The ratio estimator: batches need not be of one length.
    sizes = np.array([len(batch) for batch in batches], float)
    sums = np.array([float(batch.sum()) for batch in batches])
    count = len(batches)
    spread = math.sqrt(float(np.sum((sums - mean * sizes) ** 2)) * count / (count - 1)) / float(sizes.sum())
    half = _student(count - 1) * spread
    return Estimate(mean, mean - half, mean + half)


def percentile(values: ArrayLike, percent: float) -> Estimate:
    """A percentile of independent values and its distribution-free 95 % interval, by order statistics.

    Infinite values count as largest (what never ended).

    Source: Conover, Practical Nonparametric Statistics, 3.2.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    count, share = len(ordered), percent / 100
    if not count:
        return Estimate(math.nan, math.nan, math.nan)
    middle = float(ordered[min(max(math.ceil(share * count), 1), count) - 1])
    law = _binomial(count, share)
    below = np.cumsum(law)
    low = int(np.searchsorted(below, 0.025))
    high = int(np.searchsorted(below, 0.975)) + 1
    return Estimate(
        middle,
        float(ordered[low - 1]) if low >= 1 else -math.inf,
        float(ordered[high - 1]) if high <= count else math.inf,
    )


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Where a beta variable's distribution function reaches a probability, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if regularised_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
        if high - low <= 1e-14 * high:
            break
    return 0.5 * (low + high)


def regularised_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction.

    Source: NIST Digital Library of Mathematical Functions, 8.17.22, evaluated by Lentz's method (ibid., 3.10).
    """
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    if x > (a + 1) / (a + b + 2):
        # The fraction converges fast on this side of the mean only.
        return 1.0 - regularised_beta(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    tiny = 1e-300
    fraction = c = 1.0
    d = 0.0
    for order in range(2000):
        m = order // 2
        if order == 0:
            step = 1.0
        elif order % 2 == 0:
            step = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            step = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1.0 + step * d
        d = 1.0 / (d if abs(d) > tiny else tiny)
        c = 1.0 + step / c
        c = c if abs(c) > tiny else tiny
        fraction *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return math.exp(front) * (fraction - 1.0) / a


def _binomial(count: int, share: float) -> NDArray[np.float64]:
    """(count + 1,) probabilities of 0 to count successes."""
    k = np.arange(count + 1)
    steps = np.log(np.arange(1, count + 1, dtype=np.float64))
    factorial = np.concatenate([[0.0], np.cumsum(steps)])
    if share in (0.0, 1.0):
        return np.asarray(k == round(share * count), np.float64)
    log = factorial[-1] - factorial - factorial[::-1] + k * math.log(share) + (count - k) * math.log1p(-share)
    return np.asarray(np.exp(log))


def _student(freedom: int) -> float:
    return _T_975[freedom - 1] if freedom <= len(_T_975) else 1.96 * (1 + 1.2 / freedom)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) or math.isinf(value) else round(value, 6)
