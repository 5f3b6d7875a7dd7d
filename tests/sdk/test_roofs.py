"""A frame matched by its roofs looks as if it had been taken lower."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.roofs import HIGHEST_M, mean_square_rise


@pytest.mark.parametrize(
    ("scale", "sigma", "height", "low", "high"),
    [
        (0.0, 0.03, 100.0, 0.3, 1.5),  # the ground, most likely
        (0.06, 0.03, 100.0, 0.0, 0.3),  # found higher than it was said to be: no roof does that
        (-0.06, 0.03, 100.0, 15.0, 36.0),  # roofs of 6 m, or the height is off by two sigma
        (-0.09, 0.01, 100.0, 80.0, 83.0),  # surely roofs of 9 m
        (-0.09, 0.2, 100.0, 1.0, 20.0),  # a height that is hardly known tells little
        (-0.5, 0.03, 100.0, 120.0, HIGHEST_M**2),  # nothing reckoned with is so high
        (5.0, 0.001, 100.0, 0.0, 1e-6),
        (-5.0, 0.001, 100.0, 140.0, HIGHEST_M**2),
        (-0.006, 0.003, 1000.0, 15.0, 36.0),
    ],
)
def test_the_fitted_scale_tells_roofs_from_ground(
    scale: float, sigma: float, height: float, low: float, high: float
) -> None:
    assert low <= mean_square_rise(scale, sigma, height) <= high


def test_it_is_the_mean_of_what_bayes_rule_leaves() -> None:
    rng = np.random.default_rng(4)
    raised = rng.random(400_000) < 0.2
    rises = np.where(raised, rng.uniform(0.0, HIGHEST_M, raised.size), 0.0)
    scales = -rises / 80.0 + 0.03 * rng.normal(size=raised.size)
    for scale in (-0.12, -0.06, 0.0, 0.03):
        drawn = float(np.mean(rises[np.abs(scales - scale) < 0.003] ** 2))
        assert mean_square_rise(scale, 0.03, 80.0) == pytest.approx(drawn, rel=0.15, abs=0.1)


@given(scale=st.floats(-2.0, 2.0), sigma=st.floats(0.002, 0.5), height=st.floats(5.0, 5000.0))
def test_it_is_always_a_height_that_roofs_have(scale: float, sigma: float, height: float) -> None:
    found = mean_square_rise(scale, sigma, height)
    assert math.isfinite(found)
    assert 0.0 <= found <= HIGHEST_M**2
    assert mean_square_rise(scale - 0.01, sigma, height) >= found * (1 - 1e-9)
