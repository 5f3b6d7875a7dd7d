"""Confidence intervals, against SciPy and by coverage."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.sim.closed.noise import gauss_markov
from cvgl.sim.closed.statistics import batch_means, beta_quantile, clopper_pearson, percentile, regularised_beta

scipy_stats = pytest.importorskip("scipy.stats")


@given(st.floats(0, 1), st.floats(0.5, 2000), st.floats(0.5, 2000))
def test_the_beta_function_is_scipys(x: float, a: float, b: float) -> None:
    assert regularised_beta(x, a, b) == pytest.approx(scipy_stats.beta.cdf(x, a, b), abs=1e-10)


@given(st.integers(0, 5000), st.integers(1, 5000))
def test_clopper_pearson_is_scipys(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    expected = scipy_stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    found = clopper_pearson(successes, trials)
    assert found.value == successes / trials
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_nothing_counted_is_nothing_known() -> None:
    assert math.isnan(clopper_pearson(0, 0).value)
    assert math.isnan(batch_means([], []).value)
    assert math.isnan(batch_means([math.nan], [0]).value)
    assert math.isnan(percentile([], 50).value)
    assert clopper_pearson(0, 0).to_dict() == {"value": None, "low": None, "high": None}


def test_a_hundred_thousand_frames() -> None:
    found = clopper_pearson(100, 100_000)
    assert found.low == pytest.approx(scipy_stats.beta.ppf(0.025, 100, 99_901), rel=1e-9)
    assert beta_quantile(0.5, 3, 3) == pytest.approx(0.5)


def covers(correlated: bool, flights: int, frames: int) -> float:
    hits = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        values = np.concatenate(
            [gauss_markov(rng, frames, 1.0, 8.0 if correlated else 0.01)[:, 0] for _ in range(flights)]
        )
        found = batch_means(values, np.repeat(np.arange(flights), frames))
        hits += found.low <= 0.0 <= found.high
    return hits / 200


@pytest.mark.parametrize(("correlated", "flights", "frames"), [(False, 2, 400), (True, 2, 600), (True, 12, 60)])
def test_batch_means_cover_what_they_promise(correlated: bool, flights: int, frames: int) -> None:
    assert covers(correlated, flights, frames) == pytest.approx(0.95, abs=0.06)


def test_the_mean_is_of_values_not_of_batches() -> None:
    found = batch_means([1.0] * 300 + [5.0] * 100, [0] * 300 + [1] * 100)
    assert found.value == 2.0


def test_percentiles_cover_and_know_what_never_ended() -> None:
    hits = 0
    for seed in range(300):
        found = percentile(np.random.default_rng(seed).exponential(size=60), 90)
        hits += found.low <= -math.log(0.1) <= found.high
    assert hits / 300 >= 0.93
    endless = percentile([1.0, 2.0, math.inf, math.inf], 90)
    assert endless.value == math.inf
    assert endless.to_dict()["value"] is None
