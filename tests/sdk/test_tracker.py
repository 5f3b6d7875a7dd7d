"""A sequence narrows the search to where the aircraft can have flown, and no further."""

from __future__ import annotations

import math

import numpy as np
import pytest

from cvgl.fix import Fix, FixStatus
from cvgl.frame import Prior
from cvgl.geo import LocalFrame
from cvgl.tracker import Tracker

SPEED = 20.0
START = Prior(47.4, 9.74, 150.0)


def fix(time: float, latitude: float = 47.41, sigma: float = 3.0, status: FixStatus = FixStatus.REFINED) -> Fix:
    covariance = np.diag([sigma**2, (sigma / 2) ** 2])
    return Fix(status, time, latitude=latitude, longitude=9.75, covariance=covariance)


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(LocalFrame(47.4, 9.74), SPEED)


def test_lost_at_first(tracker: Tracker) -> None:
    assert tracker.prior(0.0) is None


def test_a_known_start_holds_until_a_fix(tracker: Tracker) -> None:
    tracker.reset(START)
    assert tracker.prior(5.0) == START
    tracker.update(fix(6.0))
    prior = tracker.prior(6.0)
    assert prior is not None
    assert (prior.latitude, prior.longitude) == (47.41, 9.75)


@pytest.mark.parametrize("elapsed", [0.0, 0.5, 2.0, 60.0])
def test_widens_with_time_at_the_speed_of_the_aircraft(tracker: Tracker, elapsed: float) -> None:
    tracker.update(fix(100.0, sigma=3.0))
    prior = tracker.prior(100.0 + elapsed)
    assert prior is not None
    # The greatest speed counts as two sigma.
    assert prior.sigma_m == pytest.approx(math.hypot(3.0, SPEED / 2 * elapsed))
    assert 2 * prior.sigma_m >= SPEED * elapsed


def test_much_later_it_is_lost(tracker: Tracker) -> None:
    tracker.reset(START)
    tracker.update(fix(100.0))
    widths = []
    for elapsed in range(0, 600, 10):
        prior = tracker.prior(100.0 + elapsed)
        widths.append(math.inf if prior is None else prior.sigma_m)
    assert widths == sorted(widths)
    assert widths[-1] == math.inf, "and the start of the sequence is no better by then"


@pytest.mark.parametrize("time", [99.9, -1e9, math.nan, math.inf, -math.inf])
def test_a_clock_that_runs_backwards_or_is_none_gives_no_prior(tracker: Tracker, time: float) -> None:
    tracker.update(fix(100.0))
    assert tracker.prior(time) is None
    assert tracker.prior(100.0) is not None


@pytest.mark.parametrize("status", [FixStatus.NO_FIX, FixStatus.COARSE])
def test_only_refined_fixes_move_it(tracker: Tracker, status: FixStatus) -> None:
    tracker.update(fix(1.0, latitude=40.0, status=status))
    assert tracker.prior(2.0) is None
    tracker.update(fix(10.0))
    before = tracker.prior(12.0)
    tracker.update(fix(11.0, latitude=40.0, status=status))
    assert tracker.prior(12.0) == before


def test_follows_the_newest_fix(tracker: Tracker) -> None:
    for second in range(4):
        tracker.update(fix(float(second), latitude=47.41 + 0.001 * second))
    prior = tracker.prior(3.0)
    assert prior is not None
    assert prior.latitude == pytest.approx(47.413)


@pytest.mark.parametrize("start", [None, START])
def test_reset_forgets(tracker: Tracker, start: Prior | None) -> None:
    tracker.update(fix(100.0))
    tracker.reset(start)
    assert tracker.prior(100.5) == start
