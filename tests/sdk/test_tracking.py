"""The filter over frames: a Kalman filter where all is linear, and hard to lead astray where it is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl.fix import Alternative
from cvgl.frame import Prior
from cvgl.geo import LocalFrame
from cvgl.settings import Settings
from cvgl.tracking import Answer, Sight, Tracker, distinct
from cvgl.tracking.evidence import lean_of
from cvgl.tracking.mixture import Chances, Mixture, advance, merge, moments, see
from cvgl.tracking.motion import POSITION, VELOCITY, Dynamics, Motion
from cvgl.tracking.protection import mixture_radius

LOCAL = LocalFrame(47.0, 9.5)
BOUNDS = (-2500.0, -2500.0, 2500.0, 2500.0)
SURE, WEAK, NOTHING = -8.0, -1.5, -0.3


def odds(log10_chance: float) -> float:
    """As the decision's default law has it, of a place that retrieval ranks first."""
    return math.log10(0.7 * 0.08) - 0.92 * log10_chance


def place(east: float, north: float, log10_chance: float = SURE, sigma: float = 2.0, lean: float = 5.0) -> Alternative:
    center = sigma**2 * np.eye(2)
    return Alternative(
        east, north, east, north, center + lean**2 * np.eye(2), center, 0.0, 0.3, 100.0, 0.5, 0.0, odds(log10_chance)
    )


def sight(time: float, *places: Alternative, velocity: tuple[float, float] | None = None, **changes: float) -> Sight:
    return Sight(time, 100.0, 0.0, velocity, 0.5, places, **changes)


def tracker(**changes: float) -> Tracker:
    return Tracker(LOCAL, replace(Settings(), **changes), BOUNDS)


def position(answer: Answer) -> tuple[float, float]:
    assert answer.mean is not None
    east, north = answer.mean[POSITION]
    return float(east), float(north)


def flown(one: Tracker, times: Sequence[float], log10_chance: float = SURE, speed: float = 5.0) -> Answer:
    """The last answer of a flight to the east along the middle of the map."""
    answer = Answer(0.0)
    for time in times:
        answer = one.update(sight(time, place(speed * time, 0.0, log10_chance)))
    return answer


def test_a_kalman_filter_where_all_is_linear() -> None:
    """Against one written out by itself, for the position and the error of a given velocity along one axis."""
    rng = np.random.default_rng(4)
    model = Dynamics((2.5, 10.0), map_sigma=1e-6, turn_sigma=0.1, scale_sigma=0.03)
    chances = Chances(1.0 - 1e-12, 0.0, (-1e4, -1e4, 1e4, 1e4))
    belief = Mixture.around(0.0, [(0.0, 0.0, 50.0)], 0.0, model)
    x, p, last = np.zeros(2), np.diag([50.0**2, 0.0]), 0.0
    for index, time in enumerate(np.cumsum(rng.uniform(200.0, 300.0, 12))):
        speed, found, sigma, dt, lasts = rng.uniform(-5, 5), rng.normal(0, 20), rng.uniform(1, 9), time - last, 30.0
        if index == 0:
            p[1, 1] = 0.5**2
        keep = math.exp(-dt / lasts)
        f = np.array([[1.0, lasts * (1 - keep)], [0.0, keep]])
        q11 = lasts**2 * (2 * dt / lasts - 3 + 4 * keep - keep**2)
        q = 0.5**2 * np.array([[q11, lasts * (1 - keep) ** 2], [lasts * (1 - keep) ** 2, 1 - keep**2]])
        x, p = f @ x + [speed * dt, 0.0], f @ p @ f.T + q
        gain = p[:, 0] / (p[0, 0] + sigma**2)
        where = x[0] + found
        x, p = x + gain * found, p - np.outer(gain, p[0])
        belief = advance(belief, float(time), Motion(speed, 0.0, 0.5), model, chances)
        belief = see(belief, sight(float(time), place(where, 0.0, sigma=sigma, lean=0.0)), model, chances)
        last = float(time)
        weight, mean, covariance = moments(belief.weights, belief.means, belief.covariances)
        assert weight == pytest.approx(1.0)
        assert mean[0] == pytest.approx(x[0], abs=0.02)
        assert mean[VELOCITY][0] == pytest.approx(x[1], abs=0.01)
        assert covariance[0, 0] == pytest.approx(p[0, 0], rel=5e-3)
        assert covariance[0, 2] == pytest.approx(p[0, 1], abs=5e-3)


def test_lost_at_first_then_found_then_followed_then_lost() -> None:
    one = tracker()
    assert one.estimate(0.0).mean is None and one.expect(0.0).prior is None
    answer = one.update(sight(0.0, place(30.0, -40.0)))
    assert answer.accepted and answer.sigma_m < 6.0 and position(answer) == pytest.approx((30.0, -40.0), abs=1e-3)
    assert answer.probability > 0.99
    for time, least in ((1.0, 5.0), (5.0, 10.0), (10.0, 20.0)):
        later = one.update(sight(time))
        assert not later.accepted and least < later.sigma_m < 150.0
    lost = one.update(sight(300.0))
    assert lost.mean is None and lost.reason


def test_a_known_velocity_carries_it() -> None:
    one = tracker()
    one.update(sight(0.0, place(0.0, 0.0), velocity=(8.0, -3.0)))
    answer = one.update(sight(20.0, velocity=(8.0, -3.0)))
    assert position(answer) == pytest.approx((160.0, -60.0), abs=1e-3)
    assert 5.0 < answer.sigma_m < 15.0


@pytest.mark.parametrize("frames", [20, 200])
def test_many_fixes_do_not_make_surer_than_what_they_have_in_common(frames: int) -> None:
    answer = flown(tracker(), np.arange(frames) * 10.0)
    assert answer.accepted
    lean, common = math.sqrt(0.8) * 5.0, 1.0
    assert math.hypot(lean, common) * 0.95 < answer.sigma_m < 1.02 * math.hypot(5.0, 2.0)


def test_weak_frames_that_agree_add_up_and_one_does_not() -> None:
    one = tracker()
    first = one.update(sight(0.0, place(0.0, 0.0, WEAK)))
    assert not first.accepted and first.mean is None
    answers = [one.update(sight(10.0 * k, place(50.0 * k, 0.0, WEAK))) for k in range(1, 6)]
    assert answers[-1].accepted
    # Those that are all over the map do not.
    rng = np.random.default_rng(0)
    other = tracker()
    for time in np.arange(20) * 10.0:
        assert not other.update(sight(time, place(*rng.uniform(-2500, 2500, 2), NOTHING))).accepted


def test_one_strong_wrong_match_is_refused_with_its_speed() -> None:
    one = tracker()
    before = flown(one, np.arange(10.0))
    answer = one.update(sight(10.0, place(900.0, 900.0)))
    assert not answer.accepted
    assert "implausible motion: " in answer.reason and " m/s" in answer.reason
    if answer.mean is not None:
        assert math.dist(position(answer), position(before)) < 30.0
    again = one.update(sight(11.0, place(55.0, 0.0)))
    assert again.accepted and position(again) == pytest.approx((55.0, 0.0), abs=5.0)


def test_frames_that_see_nothing_do_not_make_it_slower_and_slower() -> None:
    one = tracker()
    flown(one, range(3))
    for frame in range(100):
        one.update(sight(2.1 + 0.1 * frame))
    # Each frame splits every component: unmerged they would be 10^30.
    last = one._history.last
    assert last is not None and 0 < len(last.weights) < 100


@pytest.mark.parametrize(("log10_chance", "within"), [(SURE, 3), (-2.5, 5)])
def test_kidnapped_it_gives_way_in_a_few_frames(log10_chance: float, within: int) -> None:
    one = tracker()
    flown(one, np.arange(30.0))
    answers = [
        one.update(sight(30.0 + k, place(1500.0 + 15.0 * k, 800.0, log10_chance), place(-900.0 + 70 * k, 9.0, NOTHING)))
        for k in range(within)
    ]
    assert answers[-1].accepted
    assert position(answers[-1]) == pytest.approx((1500.0 + 15.0 * (within - 1), 800.0), abs=20.0)
    assert answers[0].mean is None or not answers[0].accepted


def test_the_first_strong_match_elsewhere_takes_the_certainty_at_once() -> None:
    one = tracker()
    before = flown(one, np.arange(0.0, 60.0, 2.0))
    assert before.accepted and before.protection_radius_m < 60.0
    answer = one.update(sight(60.0, place(1500.0, 800.0), place(-900.0, 9.0, NOTHING)))
    assert not answer.accepted and answer.implausible
    assert answer.mean is None or answer.protection_radius_m > 1000.0
    again = one.update(sight(62.0, place(310.0, 0.0)))
    assert again.accepted and again.protection_radius_m < 60.0


def test_not_found_where_it_was_looked_for_makes_lost_likelier() -> None:
    beliefs = {}
    for area in (1e4, math.inf):
        one = tracker(loss_per_s=1e-3)
        flown(one, np.arange(0.0, 60.0, 2.0))
        beliefs[area] = one.update(sight(60.0, place(310.0, 70.0, NOTHING), area=area)).probability
    assert beliefs[1e4] < beliefs[math.inf] < 1.0


def test_a_view_that_matches_nothing_again_and_again_makes_a_track_no_surer() -> None:
    one = tracker()
    flown(one, np.arange(0.0, 60.0, 2.0))
    beliefs = [one.update(sight(60.0 + k / 10, place(-2000.0 + 500.0 * k, 9.0, NOTHING))).probability for k in range(8)]
    # The first may still be weighed as a match.
    assert np.diff(beliefs[1:]).max() < 0.0


def test_what_holds_the_frame_mistaken_says_where_the_aircraft_is_as_well() -> None:
    one = tracker()
    answers = [one.update(sight(20.0 * k, place(20.0 * k, 0.0, WEAK), area=1e5, velocity=(1.0, 0.0))) for k in range(8)]
    assert answers[-1].mean is not None and math.isfinite(answers[-1].protection_radius_m)


def test_a_frame_that_matches_nothing_is_answered_without_a_radius_until_one_matches_again() -> None:
    one = tracker()
    before = flown(one, np.arange(0.0, 60.0, 2.0))
    assert math.isfinite(before.protection_radius_m)
    answer = one.update(sight(60.0, place(-900.0, 9.0, NOTHING)))
    assert not answer.accepted and answer.mean is not None and answer.protection_radius_m == math.inf
    # That the aircraft may be anywhere on the map is in its covariance.
    assert before.sigma_m < answer.sigma_m < 100.0
    # Nor does time without any frame bring it back, as it does not end it after a match.
    assert one.estimate(60.5).protection_radius_m == math.inf
    assert one.update(sight(60.6)).protection_radius_m == math.inf
    again = one.update(sight(62.0, place(310.0, 0.0)))
    assert again.accepted and math.isfinite(again.protection_radius_m)
    assert math.isfinite(one.estimate(62.5).protection_radius_m)


@pytest.mark.parametrize(("limit", "answered"), [(150.0, True), (20.0, False)])
def test_what_is_not_sure_is_answered_as_far_as_all_that_is_possible_is_of_use(limit: float, answered: bool) -> None:
    """Two weak matches after 40 s of unknown motion on a small map, where even a lost aircraft is not far away."""
    one = Tracker(LOCAL, replace(Settings(), track_limit_m=limit), (-300.0, -300.0, 300.0, 300.0))
    one.update(sight(0.0, place(-50.0, 0.0)))
    one.update(sight(40.0, place(0.0, 0.0)))
    answer = one.update(sight(80.0, place(40.0, 0.0, -1.2), place(60.0, 70.0, -1.0)))
    assert not answer.accepted and 0.5 < answer.probability < 0.9
    assert (answer.mean is not None) == answered and (answer.sigma_m < math.inf) == answered
    assert answer.sigma_m > 20.0


def test_the_scatter_of_fitted_heights_does_not_tell_the_tilt() -> None:
    """A camera tilted by 2.5 sigma on a straight flight: nothing tells it, however the fitted height jumps about."""
    one, rng = tracker(), np.random.default_rng(3)
    lean = 100.0 * math.tan(math.radians(Settings().tilt_sigma_deg))
    for time in np.arange(0.0, 30.0, 0.5):
        fitted = math.exp(0.025 * rng.standard_normal())
        east, north = np.array([12.0 * time, 2.5 * lean]) + 0.3 * rng.standard_normal(2)
        seen = replace(place(east, north, sigma=1.05, lean=fitted * lean), height_m=100.0 * fitted)
        answer = one.update(sight(float(time), seen, velocity=(12.0, 0.0)))
    assert answer.mean is not None
    assert answer.sigma_m > 0.8 * lean
    assert abs(position(answer)[1]) < answer.protection_radius_m


def turning(one: Tracker, tilt: Sequence[float], seen: bool, moves: str) -> tuple[Answer, tuple[float, float]]:
    """A flight at 8 m/s around a square and on, the camera's tilt in standard deviations; the last answer, and truth.

    ``moves`` is what the velocities are of: the "view", as frames show it, or the "aircraft".
    """
    lean, at, last, answer = 8.0, np.zeros(2), None, Answer(0.0)
    for time in range(0, 120, 2):
        heading = 90.0 * (time // 20)
        view = at + lean_of(lean, heading)[0] @ np.array(tilt)
        before, last = last, {"view": view, "aircraft": at}[moves]
        told = None if before is None else tuple((last - before) / 2.0)
        found = replace(place(*view, sigma=0.5, lean=lean), heading_deg=heading % 360.0)
        answer = one.update(Sight(float(time), 100.0, heading % 360.0, told, 0.5, (found,), seen=seen, lean_m=lean))
        truth = (float(at[0]), float(at[1]))
        at = at + 16.0 * np.array([math.sin(math.radians(heading)), math.cos(math.radians(heading))])
    return answer, truth


@pytest.mark.parametrize("tilt", [(1.5, -1.0), (0.0, 2.5), (0.0, 0.0)])
def test_what_frames_show_of_the_motion_does_not_tell_the_tilt(tilt: tuple[float, float]) -> None:
    """A match and the view's motion are moved by a tilt alike: together they say no more of it than one does."""
    answer, truth = turning(tracker(), tilt, seen=True, moves="view")
    assert answer.sigma_m > 0.8 * 8.0
    assert math.dist(position(answer), truth) < 3.0 * answer.sigma_m
    # The aircraft's own velocity does, since the tilt turns with the vehicle.
    answer, truth = turning(tracker(), tilt, seen=False, moves="aircraft")
    assert answer.sigma_m < 4.0 and math.dist(position(answer), truth) < 3.0 * answer.sigma_m


def test_between_frames_it_may_have_turned() -> None:
    """What is told of a time without a frame holds for an aircraft that turned round just after the last one."""
    one = tracker()
    for time in range(40):
        one.update(sight(float(time), place(12.0 * time, 0.0), velocity=(12.0, 0.0)))
    for after in (1.0, 2.0, 4.0):
        answer = one.estimate(39.0 + after)
        east, north = position(answer)
        assert math.dist((east, north), (12.0 * (39.0 - after), 0.0)) < answer.protection_radius_m
        # Most likely it flew on.
        assert (east, north) == pytest.approx((12.0 * (39.0 + after), 0.0), abs=2.0 * after + 1.0)
        assert answer.sigma_m < 5.0 * (1.0 + after)


def test_what_one_source_of_velocities_is_wrong_by_another_is_not() -> None:
    """Told by the frames for a while, 3 m/s wrong, and by an instrument that is right after that."""
    one = tracker()
    for time in range(40):
        wrong = time < 20
        told = (13.0 if wrong else 10.0, 0.0)
        found = place(10.0 * time, 0.0, lean=0.5)
        sigma = 3.0 if wrong else 0.2
        one.update(Sight(float(time), 100.0, 0.0, told, sigma, (found,) if time < 21 else (), seen=wrong, lean_m=0.5))
    answer = one.estimate(39.0)
    assert position(answer) == pytest.approx((390.0, 0.0), abs=3.0)
    assert answer.sigma_m < 8.0


def test_two_places_that_match_as_well_are_no_position() -> None:
    answer = tracker().update(sight(0.0, place(0.0, 0.0), place(700.0, 0.0)))
    assert answer.mean is None and "likeliest" in answer.reason


def test_a_view_that_is_repeated_says_nothing_new() -> None:
    one = tracker()
    for time in np.arange(60) / 30.0:
        answer = one.update(sight(time, place(0.0, 0.0, WEAK)))
        assert not answer.accepted


def test_a_wrong_start_gives_way() -> None:
    one = tracker()
    one.reset(Prior(*(float(v) for v in LOCAL.to_wgs84(300.0, 0.0)), 50.0))
    assert one.expect(0.0).prior is not None
    for time in range(6):
        prior = one.expect(float(time)).prior
        near = prior is not None and float(LOCAL.to_local(prior.latitude, prior.longitude)[0]) > 200.0
        found = (place(290.0, 30.0, NOTHING),) if near else (place(30.0 * time, 0.0),)
        answer = one.update(sight(float(time), *found, area=math.pi * 200.0**2 if near else math.inf))
    assert answer.accepted and position(answer) == pytest.approx((150.0, 0.0), abs=10.0)


def test_a_start_may_be_one_of_several() -> None:
    one = tracker()
    one.reset([Prior(*(float(v) for v in LOCAL.to_wgs84(east, 0.0)), 20.0) for east in (-800.0, 800.0)])
    assert one.estimate(0.0).mean is None
    # Too weak to be believed where nothing is known.
    answer = one.update(sight(0.0, place(805.0, 5.0, WEAK)))
    assert answer.accepted and position(answer)[0] == pytest.approx(805.0, abs=5.0)


def arrivals(order: Sequence[int]) -> Answer:
    rng = np.random.default_rng(5)
    seen = []
    for index in range(len(order)):
        time = 2.0 * index
        east = 5.0 * time + float(rng.normal(0, 5))
        places = [place(east, 0.0, float(rng.uniform(-6, 0))), place(*rng.uniform(-2000, 2000, 2), NOTHING)]
        seen.append(sight(time, *places[: 1 + index % 2], velocity=(5.0, 0.0) if index % 3 else None))
    one = tracker()
    for index in order:
        one.update(seen[index])
    return one.estimate(2.0 * len(order))


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(8)))
def test_late_frames_are_taken_in_at_their_own_time(order: list[int]) -> None:
    expected, answer = arrivals(range(8)), arrivals(order)
    assert expected.mean is not None and answer.mean is not None
    np.testing.assert_array_equal(answer.mean, expected.mean)
    np.testing.assert_array_equal(answer.covariance, expected.covariance)


def test_a_frame_that_is_too_late_is_left_out_and_a_clock_that_was_set_back_begins_anew() -> None:
    one = tracker()
    flown(one, 1000.0 + np.arange(40.0), speed=0.01)
    before = one.estimate(1050.0)
    answers = [one.update(sight(500.0 + k, place(700.0, 0.0))) for k in range(2)]
    assert all(a.mean is None and "older than" in a.reason for a in answers)
    np.testing.assert_array_equal(one.estimate(1050.0).mean, before.mean)
    third = one.update(sight(502.0, place(700.0, 0.0)))
    assert third.accepted and position(third)[0] == pytest.approx(700.0, abs=1e-3)


def test_a_stamp_in_the_future_costs_three_frames() -> None:
    one = tracker()
    flown(one, np.arange(10.0))
    assert one.update(sight(1e9)).mean is None
    answers = [one.update(sight(10.0 + k, place(50.0 + 5.0 * k, 0.0))) for k in range(3)]
    assert [a.accepted for a in answers] == [False, False, True]


def test_the_first_frame_of_a_time_counts() -> None:
    one, two = tracker(), tracker()
    for each in (one, two):
        flown(each, [0.0, 1.0])
    again = one.update(sight(1.0, place(500.0, 0.0)))
    assert not again.accepted and "same time" in again.reason
    np.testing.assert_array_equal(one.estimate(2.0).mean, two.estimate(2.0).mean)
    # One that told no place does not stand in the way.
    one.update(sight(2.0))
    assert one.update(sight(2.0, place(10.0, 0.0))).accepted


anything = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1e3, 1e3)
chance = st.floats(-400, 0)
spots = st.lists(st.tuples(st.floats(-1e5, 1e5), st.floats(-1e5, 1e5), chance), max_size=4)
steps = st.lists(st.tuples(anything, spots, st.none() | st.tuples(*[st.floats(-1e3, 1e3)] * 2)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(steps)
def test_never_raises_and_never_loses_its_numbers(
    steps: list[tuple[float, list[tuple[float, float, float]], None]],
) -> None:
    one = tracker()
    for time, found, velocity in steps:
        places = distinct([place(east, north, chance) for east, north, chance in found])
        answer = one.update(sight(time, *places, velocity=velocity))
        for each in (answer, one.estimate(time), one.estimate(0.0)):
            assert (each.mean is None) == (each.covariance is None)
            assert 0.0 <= each.probability <= 1.0 + 1e-9
            if each.mean is not None and each.covariance is not None:
                assert np.isfinite(each.mean).all() and np.linalg.eigvalsh(each.covariance)[0] > -1e-6
                assert each.sigma_m <= 150.0
        one.expect(time)
    recovered = [one.update(sight(2e9 + k, place(5.0 * k, 0.0))) for k in range(4)]
    assert recovered[-1].accepted or any(math.isfinite(t) and t > 1e9 for t, *_ in steps)


def test_merging_keeps_the_moments() -> None:
    rng = np.random.default_rng(3)
    model = Dynamics.of(Settings())
    circles = [(float(e), float(n), 30.0) for e, n in rng.uniform(-100, 100, (12, 2))]
    belief = Mixture.around(0.0, circles, 0.1, model)
    merged = merge(belief, 8)
    assert len(merged.weights) == 8 and merged.weights.sum() == pytest.approx(0.9)
    for one, two in zip(
        moments(belief.weights, belief.means, belief.covariances),
        moments(merged.weights, merged.means, merged.covariances),
        strict=True,
    ):
        np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


def test_places_that_lie_together_are_one() -> None:
    many = [place(0.0, 0.0), place(3.0, 4.0, WEAK), place(300.0, 0.0, WEAK), place(math.nan, 0.0)]
    assert [p.easting for p in distinct(many)] == [0.0, 300.0]


@pytest.mark.parametrize("risk", [1e-2, 1e-3])
def test_the_protection_radius_holds_if_the_variance_is_known_to_a_third(risk: float) -> None:
    count = 400_000
    rng = np.random.default_rng(3)
    variances = 9.0 * 20.0 / rng.chisquare(20.0, count)
    errors = np.hypot(*(rng.normal(size=(2, count)) * np.sqrt(variances)))
    radius = mixture_radius(np.ones(1), np.zeros((1, 2)), 9.0 * np.eye(2)[None], risk)
    assert np.mean(errors > radius) == pytest.approx(risk, rel=5 / math.sqrt(risk * count))
    assert radius > 3.0 * math.sqrt(-2.0 * math.log(risk)), "wider than where it is known"
