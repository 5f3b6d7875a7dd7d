"""Beliefs are probabilities: they add up, chance fools them no more often than it may, a prior helps a truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cvgl.belief import believe, prior_factor, protection_radius, retrieval_share
from cvgl.settings import Chances, Decision

DECISION = Decision()
MISSES = st.floats(0.01, 0.9)


@given(listed=st.integers(1, 40), lists=st.integers(1, 5), miss=MISSES)
def test_retrieval_shares_add_up_and_fall(listed: int, lists: int, miss: float) -> None:
    shares = [retrieval_share(order, listed, lists, miss) for order in range(1, listed + 1)]
    assert lists * sum(shares) == pytest.approx(1.0)
    assert shares == sorted(shares, reverse=True)
    assert min(shares) >= 0.2 / listed / lists * (1 - 1e-9), "retrieval is never so sure that nothing else can be right"


@given(order=st.integers(1, 5), near=st.integers(5, 10), all_of_them=st.integers(10, 40), miss=MISSES)
def test_a_place_among_fewer_has_a_larger_share(order: int, near: int, all_of_them: int, miss: float) -> None:
    few, many = (retrieval_share(order, listed, 1, miss) for listed in (near, all_of_them))
    assert few >= many * (1 - 1e-9)


@given(
    chances=st.lists(st.tuples(st.floats(-40, 0), st.floats(-40, 0)), min_size=1, max_size=6),
    factors=st.lists(st.floats(0, 30), min_size=6, max_size=6),
)
def test_probabilities_of_different_places_add_up_to_at_most_one(
    chances: list[tuple[float, float]], factors: list[float]
) -> None:
    count = len(chances)
    shares = [retrieval_share(order, count, 1, 0.3) for order in range(1, count + 1)]
    beliefs = believe([Chances(*pair) for pair in chances], shares, factors[:count], range(count), DECISION)
    assert sum(belief.probability for belief in beliefs) <= 1.0 + 1e-9
    for belief in beliefs:
        assert 0.0 <= belief.probability < 1.0
        assert belief.log10_chance <= 0.0
        assert math.isfinite(belief.log10_odds)


def one(peak: float, blocks: float, share: float = 0.6, factor: float = 1.0) -> float:
    return believe([Chances(peak, blocks)], [share], [factor], [0], DECISION)[0].probability


@given(peak=st.floats(-20, 0), blocks=st.floats(-20, 0), step=st.floats(0, 5))
def test_rarer_by_chance_is_surer(peak: float, blocks: float, step: float) -> None:
    assert one(peak - step, blocks) >= one(peak, blocks) - 1e-12
    assert one(peak, blocks - step) >= one(peak, blocks) - 1e-12


@given(peak=st.floats(-20, 0), blocks=st.floats(-20, 0), sigma=st.floats(3, 500), apart=st.floats(0, 1.5))
def test_a_prior_around_the_truth_makes_a_frame_no_less_sure(
    peak: float, blocks: float, sigma: float, apart: float
) -> None:
    # The search goes three sigma and half a tile; within one and a half sigma of its middle the prior speaks for it.
    factor = prior_factor(apart * sigma, sigma, 3 * sigma + 50.0)
    lost = one(peak, blocks, retrieval_share(1, 13, 1, 0.3))
    near = one(peak, blocks, retrieval_share(1, 4, 1, 0.3), factor)
    assert near >= lost - 1e-12


@given(peak=st.floats(-20, 0), blocks=st.floats(-20, 0), sigma=st.floats(3, 500), apart=st.floats(3, 9))
def test_a_prior_elsewhere_makes_a_place_less_sure(peak: float, blocks: float, sigma: float, apart: float) -> None:
    factor = prior_factor(apart * sigma, sigma, 3 * sigma + 50.0)
    assert one(peak, blocks, 0.6, factor) <= one(peak, blocks, 0.6, max(1.0, factor))
    assert prior_factor(apart * sigma, sigma, 3 * sigma) < 0.06


@pytest.mark.parametrize(("lists", "witnesses"), [(1, 2), (3, 2), (1, 3), (1, 4)])
def test_chance_fools_no_more_often_than_stated(lists: int, witnesses: int) -> None:
    """Frames of nowhere: each place's witnesses are draws of chance. The guarantee does not lean on the right law."""
    rng = np.random.default_rng(3)
    frames, places = 20_000, 10
    chances = np.log10(rng.uniform(size=(frames, places, witnesses)))
    shares = [retrieval_share(order, places, lists, DECISION.miss_share) for order in range(1, places + 1)]
    told = [[Chances(*place) for place in frame.tolist()] for frame in chances]
    beliefs = [believe(frame, shares, [1.0] * places, range(places), DECISION) for frame in told]
    rarest = np.array([min(belief.log10_chance for belief in found) for found in beliefs])
    for level in (0.1, 0.01, 0.001):
        assert np.mean(rarest <= math.log10(level)) <= level + 3 * math.sqrt(level / frames)
    believed = np.array([sum(belief.probability for belief in found) for found in beliefs])
    # Of so many frames of nowhere, and as many of somewhere, the believed ones would have to be right.
    assert np.mean(believed >= 0.95) < 1 / 19
    assert np.mean(believed >= 0.95) < 5e-3


def test_rivals_share_the_belief_and_twins_do_not() -> None:
    pair = [Chances(-4.0, -6.0)] * 2
    rivals = believe(pair, [0.4, 0.4], [1.0, 1.0], [0, 1], DECISION)
    assert [belief.probability for belief in rivals] == pytest.approx([0.5, 0.5], abs=1e-3)
    twins = believe(pair, [0.4, 0.4], [1.0, 1.0], [0, 0], DECISION)
    assert twins[0].probability > 0.99


def test_the_odds_leave_the_prior_to_the_filter() -> None:
    near, far = (believe([Chances(-3.0, -3.0)], [0.5], [factor], [0], DECISION)[0] for factor in (2.0, 0.01))
    assert near.log10_odds == far.log10_odds
    assert near.probability > far.probability


class TestProtectionRadius:
    @pytest.mark.parametrize("risk", [1e-1, 1e-3, 1e-5])
    @pytest.mark.parametrize("sigma", [0.5, 10.0])
    def test_of_a_circle_it_is_exact(self, sigma: float, risk: float) -> None:
        radius = protection_radius(np.eye(2) * sigma**2, 1.0, risk)
        assert math.exp(-(radius**2) / (2 * sigma**2)) == pytest.approx(risk)

    @pytest.mark.parametrize("covariance", [np.diag([9.0, 1.0]), np.diag([9.0, 1e-6]), [[4.0, 3.0], [3.0, 4.0]]])
    @pytest.mark.parametrize("probability", [1.0, 0.995, 0.98])
    def test_it_is_exceeded_no_more_often_than_stated(self, covariance: object, probability: float) -> None:
        risk, count = 0.03, 200_000
        rng = np.random.default_rng(0)
        errors = np.hypot(*rng.multivariate_normal([0, 0], covariance, count).T)  # type: ignore[arg-type]
        errors[rng.uniform(size=count) > probability] = np.inf
        radius = protection_radius(np.asarray(covariance), probability, risk)
        exceeded = np.mean(errors > radius)
        assert exceeded <= risk + 3 * math.sqrt(risk / count)
        assert exceeded > 0.25 * risk, "nor is it needlessly far"

    @pytest.mark.parametrize(("probability", "risk"), [(0.0, 1e-3), (0.9, 1e-3), (0.999, 1e-3), (0.99, 0.01 - 1e-9)])
    def test_a_place_that_is_less_sure_than_the_risk_has_none(self, probability: float, risk: float) -> None:
        assert protection_radius(np.eye(2), probability, risk) == math.inf
