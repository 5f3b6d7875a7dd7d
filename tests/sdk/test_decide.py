"""When a match is believed, and where the aircraft then is and how surely."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from cvgl.camera import Camera
from cvgl.correlate import Peak
from cvgl.decide import Scene, SearchPrior, decide, in_doubt
from cvgl.features import FeatureMatch
from cvgl.fix import Candidate, Fix, FixStatus, ReasonCode
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.geometry import Mount, camera_to_enu
from cvgl.refine import Hypothesis, View, view_of
from cvgl.register import Correction, PoseSigmas, Registration
from cvgl.roofs import mean_square_rise
from cvgl.settings import Decision, Settings

LOCAL = LocalFrame(47.4, 9.74)
CAMERA = Camera.from_field_of_view(320, 240, 62.0)
HEIGHT = 100.0
# Under these laws a score of s is reached by chance with probability 10^-s (for s of 1 and more).
LAWS: dict[str, float] = dict.fromkeys(("peak_location", "evidence_location"), 0.0)
DECISION = Decision(**LAWS, places=1, peak_scale=1 / np.log(10), evidence_scale=1 / np.log(10))
NO_FIX, COARSE, REFINED = FixStatus


def view(heading: float = 0.0, pitch: float = 0.0, roll: float = 0.0, height: float = HEIGHT) -> View:
    grey = np.full((CAMERA.height, CAMERA.width), 100, np.uint8)
    return view_of(grey, CAMERA, camera_to_enu(Mount(), heading, pitch, roll), height, heading, 0.5, 1)


def hypothesis(
    peak: float,
    evidence: float,
    at: tuple[float, float] = (40.0, -25.0),
    *,
    seen: View | None = None,
    correction: Correction | None = None,
    covariance: Sequence[float] = (0.3, 0.2),
    turn_sigma_deg: float = 0.4,
) -> Hypothesis:
    pose = correction or Correction()
    found = Registration(*at, np.diag(covariance), pose, turn_sigma_deg, 25, 0.8, evidence, 0.4)
    return Hypothesis(seen or view(), Peak(*at, pose.turn_deg, peak), found)


def answer(
    hypotheses: Sequence[Hypothesis],
    *,
    retrieved: tuple[float, float] | None = (40.0, -25.0),
    tilt_sigma_deg: float = 2.0,
    prior: SearchPrior | None = None,
    sigmas: PoseSigmas | None = None,
    settings: Settings | None = None,
    decision: Decision = DECISION,
) -> Fix:
    """The fix; `retrieved` is where retrieval's best candidate is."""
    frame = Frame(np.zeros((240, 320), np.uint8), time=12.5, height=HEIGHT, name="0004.jpg")
    candidates = [] if retrieved is None else [Candidate(3, *retrieved, 0.7, 0.0), Candidate(8, -400.0, 0.0, 0.6, 0.0)]
    scene = Scene(LOCAL, tilt_sigma_deg, prior, sigmas)
    return decide(hypotheses, frame, candidates, scene, settings or Settings(), decision)


def metres(latitude: float, longitude: float) -> tuple[float, float]:
    easting, northing = LOCAL.to_local(latitude, longitude)
    return float(easting), float(northing)


@pytest.mark.parametrize(
    ("peak", "evidence", "status"),
    [
        (3.0, 3.0, REFINED),
        (1.5, 3.0, REFINED),
        (3.0, 1.5, REFINED),
        (20.0, 20.0, REFINED),
        (500.0, 500.0, REFINED),
        # The place stands out, but its blocks say no more than they would anywhere: no metres can be promised.
        (9.0, 0.3, COARSE),
        # Fields of parallel rows have no peak, and blocks that each find the same pose are no freak.
        (0.3, 7.0, REFINED),
        (2.0, 1.5, NO_FIX),
        (1.0, 1.0, NO_FIX),
        (1.5, 1.0, NO_FIX),
        (0.0, 0.0, NO_FIX),
        (-5.0, -2.0, NO_FIX),
    ],
)
def test_status_by_the_two_witnesses(peak: float, evidence: float, status: FixStatus) -> None:
    fix = answer([hypothesis(peak, evidence)])
    assert fix.status is status
    assert bool(fix) is (status is not NO_FIX)
    assert (fix.reason == "") is (status is REFINED), "every answer short of a refined fix says why"
    assert fix.log10_chance <= 0
    assert (fix.time, fix.name, fix.score, len(fix.candidates)) == (12.5, "0004.jpg", 0.8, 2)


def at_order(one: Hypothesis, order: int, listed: int, lists: int = 1) -> Hypothesis:
    return replace(one, peak=replace(one.peak, order=order, listed=listed, lists=lists))


def test_retrieval_s_order_counts() -> None:
    weak = hypothesis(2.2, 2.2)
    fixes = [answer([at_order(weak, order, 12)]) for order in (1, 2, 3, 12)]
    assert [fix.status for fix in fixes] == [REFINED, NO_FIX, NO_FIX, NO_FIX]
    assert all(a.probability > b.probability for a, b in itertools.pairwise(fixes))
    assert all(a.log10_chance < b.log10_chance for a, b in itertools.pairwise(fixes))
    # Of a hundred places that are searched one fits by chance more easily than of ten.
    assert answer([at_order(weak, 5, 100)]).probability < answer([at_order(weak, 5, 10)]).probability


def test_nothing_to_decide_on_is_no_fix() -> None:
    fix = answer([])
    assert fix.status is NO_FIX
    assert "nothing to register" in fix.reason
    assert len(fix.candidates) == 2


@pytest.mark.parametrize("status", [REFINED, COARSE])
@pytest.mark.parametrize(
    ("apart", "behind", "ambiguous"),
    [
        (100.0, 0.1, True),
        (100.0, 0.9, True),
        (12.0, 0.5, True),
        (100.0, 2.0, False),  # a hundred times likelier to be chance
        (100.0, 4.0, False),
        (5.0, 0.0, False),  # the same place, found twice
    ],
)
def test_two_places_that_match_as_well_are_worth_nothing(
    status: FixStatus, apart: float, behind: float, ambiguous: bool
) -> None:
    peak, evidence = (5.0, 5.0) if status is REFINED else (9.0, 0.3)
    best = hypothesis(peak, evidence)
    other = hypothesis(peak - behind, evidence, (40.0 + 0.6 * apart, -25.0 + 0.8 * apart))
    for order in ([best, other], [other, best]):
        fix = answer(order)
        assert fix.status is (NO_FIX if ambiguous else status)
        assert ("ambiguous" in fix.reason) is ambiguous
        assert not ambiguous or f"{apart:.0f} m away" in fix.reason


def test_the_best_of_several_places_is_answered() -> None:
    places = [(0.0, 0.0), (300.0, 0.0), (40.0, -25.0), (0.0, 300.0)]
    fix = answer([hypothesis(s, s, at) for s, at in zip((1.0, 2.0, 6.0, 0.5), places, strict=True)])
    assert fix.status is REFINED
    assert metres(fix.center_latitude, fix.center_longitude) == pytest.approx((40.0, -25.0), abs=1e-3)


def test_a_no_fix_carries_no_position() -> None:
    fix = answer([hypothesis(0.5, 0.5)])
    assert np.isnan([fix.latitude, fix.longitude, fix.center_latitude, fix.center_longitude]).all()
    assert fix.covariance is None
    assert fix.center_covariance is None


LEAN = HEIGHT * np.tan(np.radians(10.0))


@pytest.mark.parametrize(
    ("heading", "pitch", "roll", "aircraft"),
    [
        (0.0, 0.0, 0.0, (0.0, 0.0)),
        (0.0, 10.0, 0.0, (0.0, -LEAN)),  # looks ahead, to the north: the aircraft is south of what it sees
        (90.0, 10.0, 0.0, (-LEAN, 0.0)),
        (180.0, 10.0, 0.0, (0.0, LEAN)),
        (0.0, 0.0, 10.0, (LEAN, 0.0)),  # right side down: looks out to the left, west
        (0.0, -10.0, 0.0, (0.0, LEAN)),
    ],
)
def test_the_aircraft_is_not_where_it_looks(
    heading: float, pitch: float, roll: float, aircraft: tuple[float, float]
) -> None:
    fix = answer([hypothesis(6.0, 6.0, seen=view(heading, pitch, roll))])
    assert metres(fix.center_latitude, fix.center_longitude) == pytest.approx((40.0, -25.0), abs=1e-3)
    expected = (40.0 + aircraft[0], -25.0 + aircraft[1])
    assert metres(fix.latitude, fix.longitude) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("correction", "aircraft", "heading", "height"),
    [
        (Correction(turn_deg=90.0), (-LEAN, 0.0), 80.0, HEIGHT),  # it really flew 90 degrees further right
        (Correction(turn_deg=-30.0), (LEAN * 0.5, -LEAN * 0.75**0.5), 320.0, HEIGHT),
        (Correction(scale=0.05), (0.0, -LEAN * 1.05), 350.0, HEIGHT * 1.05),
        # The tilt that registration fits is not believed: it moves neither the aircraft nor its heading.
        (Correction(lean=(0.1, 0.0)), (0.0, -LEAN), 350.0, HEIGHT),
    ],
)
def test_measured_heading_and_height_correct_the_aircraft(
    correction: Correction, aircraft: tuple[float, float], heading: float, height: float
) -> None:
    # The mount is turned so that the camera looks north while the vehicle heads for 350 degrees.
    rotation = camera_to_enu(Mount(yaw_deg=10.0, pitch_deg=10.0), 350.0)
    grey = np.full((CAMERA.height, CAMERA.width), 100, np.uint8)
    seen = view_of(grey, CAMERA, rotation, HEIGHT, 350.0, 0.5, 1)
    fix = answer([hypothesis(6.0, 6.0, seen=seen, correction=correction)])
    expected = (40.0 + aircraft[0], -25.0 + aircraft[1])
    assert metres(fix.latitude, fix.longitude) == pytest.approx(expected, abs=1e-3)
    assert fix.heading_deg == pytest.approx(heading)
    # With the half of pitch times roll by which headings differ, of 2 degrees each.
    assert fix.heading_sigma_deg == pytest.approx(np.hypot(0.4, np.degrees(np.radians(2.0) ** 2 / 2)))
    assert fix.height_m == pytest.approx(height)


def spread(fix: Fix) -> np.ndarray:
    assert fix.covariance is not None
    return fix.covariance


def displaced(tilt_sigma_deg: float = 2.0, scale: float = 0.0) -> float:
    """Variance of what roofs displace the middle of a frame by that looks straight down, m^2."""
    rise = mean_square_rise(scale, Settings().height_sigma, HEIGHT)
    return rise * float(np.tan(np.radians(tilt_sigma_deg))) ** 2


def test_covariance_adds_what_blocks_have_wrong_in_common() -> None:
    fix = answer(
        [hypothesis(6.0, 6.0, covariance=(0.5, 0.25))], settings=Settings(registration_sigma_m=2.0, map_sigma_m=1e-6)
    )
    np.testing.assert_allclose(fix.center_covariance, np.diag([4.5, 4.25]) + displaced() * np.eye(2))
    # Looking straight down, what the tilt may be is all that the aircraft's position adds.
    np.testing.assert_allclose(spread(fix) - fix.center_covariance, (HEIGHT * np.tan(np.radians(2.0))) ** 2 * np.eye(2))


@pytest.mark.parametrize("scale", [-0.12, -0.06, 0.0, 0.06])
@pytest.mark.parametrize("tilt_sigma_deg", [1.5, 5.0])
def test_a_frame_matched_by_its_roofs_is_displaced_by_its_tilt(scale: float, tilt_sigma_deg: float) -> None:
    one = hypothesis(6.0, 6.0, covariance=(0.5, 0.25), correction=Correction(scale=scale))
    fix = answer([one], tilt_sigma_deg=tilt_sigma_deg, settings=Settings(registration_sigma_m=1e-6, map_sigma_m=1e-6))
    expected = np.diag([0.5, 0.25]) + displaced(tilt_sigma_deg, scale) * np.eye(2)
    np.testing.assert_allclose(fix.center_covariance, expected, atol=1e-9)  # type: ignore[arg-type]


def test_a_coarse_fix_is_far_less_sure() -> None:
    coarse, refined = answer([hypothesis(9.0, 0.3)]), answer([hypothesis(9.0, 9.0)])
    assert coarse.status is COARSE
    assert coarse.sigma_m > 10.0
    assert refined.sigma_m < coarse.sigma_m / 2


def larger(one: np.ndarray, other: np.ndarray) -> bool:
    """One covariance is larger than another in every direction."""
    return bool(np.linalg.eigvalsh(one - other).min() > 0)


def test_aircraft_is_less_sure_with_tilt_and_height() -> None:
    by_tilt = [spread(answer([hypothesis(6.0, 6.0)], tilt_sigma_deg=tilt)) for tilt in (0.5, 1.5, 5.0)]
    assert larger(by_tilt[1], by_tilt[0])
    assert larger(by_tilt[2], by_tilt[1])
    by_height = [spread(answer([hypothesis(6.0, 6.0, seen=view(height=height))])) for height in (50.0, 100.0, 300.0)]
    assert larger(by_height[1], by_height[0])
    assert larger(by_height[2], by_height[1])


def test_a_leaning_camera_adds_doubt_along_and_across() -> None:
    straight = spread(answer([hypothesis(6.0, 6.0, turn_sigma_deg=3.0)]))
    ahead = spread(answer([hypothesis(6.0, 6.0, seen=view(pitch=30.0), turn_sigma_deg=3.0)]))
    lean = HEIGHT * np.tan(np.radians(30.0))
    # Along the view by the height's error, across it by the heading's; and by the tilt's, which moves what is seen
    # ahead by 1 / cos^2 as much.
    expected = np.diag([(np.radians(3.0) * lean) ** 2, (Settings().height_sigma * lean) ** 2])
    expected[1, 1] += (HEIGHT * np.tan(np.radians(2.0))) ** 2 * (np.cos(np.radians(30.0)) ** -4 - 1)
    # And what stands above the ground is seen further ahead.
    expected[1, 1] += mean_square_rise(0.0, Settings().height_sigma, HEIGHT) * np.tan(np.radians(30.0)) ** 2
    np.testing.assert_allclose(ahead - straight, expected, atol=1e-6)


@hypothesis_settings(max_examples=40, deadline=None)
@given(
    heading=st.floats(0, 360),
    tilt=st.tuples(st.floats(-25, 25), st.floats(-25, 25)),
    turn=st.floats(-20, 20),
    scale=st.floats(-0.1, 0.1),
    turn_sigma_deg=st.floats(0.01, 10),
)
def test_covariances_are_covariances(
    heading: float, tilt: tuple[float, float], turn: float, scale: float, turn_sigma_deg: float
) -> None:
    seen = view(heading, *tilt)
    correction = Correction(turn, scale)
    fix = answer([hypothesis(6.0, 6.0, seen=seen, correction=correction, turn_sigma_deg=turn_sigma_deg)])
    assert fix.center_covariance is not None
    for covariance in (spread(fix), fix.center_covariance):
        np.testing.assert_allclose(covariance, covariance.T)
        assert np.linalg.eigvalsh(covariance).min() > 0
    assert larger(spread(fix), fix.center_covariance)
    assert 0.0 <= fix.heading_deg <= 360.0


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, REFINED),
        ({"witness_chance": 1e-4}, COARSE),
        ({"fix_chance": 1e-8}, NO_FIX),
        ({"fix_probability": 0.9999}, NO_FIX),
        ({"proposed": 1e-4}, NO_FIX),  # hardly ever over the map
        ({"chance_factor": 1000.0}, NO_FIX),
        ({"evidence_location": 2.5}, NO_FIX),  # a map on which chance agrees more
    ],
)
def test_the_mission_s_decision_is_what_counts(change: dict[str, Any], status: FixStatus) -> None:
    decision = Decision(**{**DECISION.to_dict(), **change})
    assert answer([hypothesis(3.0, 3.0)], decision=decision).status is status


def test_what_the_map_has_wrong_is_added_too() -> None:
    fix = answer([hypothesis(6.0, 6.0)], settings=Settings(registration_sigma_m=0.3, map_sigma_m=2.0))
    np.testing.assert_allclose(fix.center_covariance, np.diag([4.39, 4.29]) + displaced() * np.eye(2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("correction", "words"),
    [
        (Correction(turn_deg=7.0, scale=0.1, lean=(0.1, 0.05)), ""),
        (Correction(turn_deg=-25.0), "heading would be 25° off"),
        (Correction(scale=0.13), "height would be 13 % off"),
        (Correction(scale=-0.23), ""),  # matched by roofs of 12 m
        (Correction(scale=-0.25), "height would be 25 % off"),
        (Correction(lean=(0.0, 0.5)), "lean 27° more"),
    ],
)
def test_a_pose_that_telemetry_rules_out_is_no_fix(correction: Correction, words: str) -> None:
    fix = answer([hypothesis(6.0, 6.0, correction=correction)], sigmas=PoseSigmas(6.0, 0.03, 5.0))
    assert fix.status is (NO_FIX if words else REFINED)
    assert fix.reason_code is (ReasonCode.IMPLAUSIBLE if words else ReasonCode.NONE)
    assert words in fix.reason


@pytest.mark.parametrize(("lean_sigma_deg", "plausible"), [(0.0, False), (0.3, False), (1.0, True)])
def test_a_fitted_lean_counts_for_as_much_as_its_fit_knows(lean_sigma_deg: float, plausible: bool) -> None:
    one = hypothesis(6.0, 6.0, correction=Correction(lean=(0.1, 0.1)))  # 8 degrees
    one = replace(one, registration=replace(one.registration, lean_sigma_deg=lean_sigma_deg))
    assert bool(answer([one], sigmas=PoseSigmas(6.0, 0.03, 1.5))) is plausible


@pytest.mark.parametrize(
    ("hypotheses", "code"),
    [
        ([], ReasonCode.NO_STRUCTURE),
        ([hypothesis(0.3, 0.3)], ReasonCode.NOT_FOUND),
        ([hypothesis(5.0, 5.0), hypothesis(5.0, 5.0, (200.0, 0.0))], ReasonCode.AMBIGUOUS),
        ([hypothesis(9.0, 0.3)], ReasonCode.BLOCKS_DISAGREE),
        ([hypothesis(5.0, 5.0)], ReasonCode.NONE),
    ],
)
def test_the_reason_is_one_of_a_few_words(hypotheses: list[Hypothesis], code: ReasonCode) -> None:
    assert answer(hypotheses).reason_code is code


@pytest.mark.parametrize("sigma_m", [10.0, 30.0, 100.0, 1000.0])
def test_a_prior_at_the_truth_helps_and_one_elsewhere_does_not(sigma_m: float) -> None:
    found, where = hypothesis(1.6, 1.6), (40.0, -25.0)
    lost = answer([at_order(found, 1, 13)])
    radius = 3 * sigma_m + 50.0
    near = answer([at_order(found, 1, 5)], prior=SearchPrior(*where, sigma_m, radius))
    assert near.probability >= lost.probability
    far = (where[0] + 3 * sigma_m + 40.0, where[1])
    elsewhere = answer([at_order(found, 1, 5)], prior=SearchPrior(*far, sigma_m, radius))
    assert elsewhere.probability < near.probability
    # What a filter multiplies its own prior by does not count the frame's.
    assert near.alternatives[0].log10_odds == elsewhere.alternatives[0].log10_odds


def test_protection_covers_position_and_place() -> None:
    sure = answer([hypothesis(9.0, 9.0)])
    assert sure.covariance is not None
    assert 3.7 * sure.sigma_m < sure.protection_radius_m < 4.0 * sure.sigma_m
    assert sure.center_protection_radius_m < sure.protection_radius_m
    likely = answer([hypothesis(2.5, 2.5)])
    assert likely.status is REFINED
    assert 0.9 < likely.probability < 0.999
    assert likely.protection_radius_m == np.inf
    assert answer([hypothesis(2.5, 2.5)], settings=Settings(protection_risk=0.1)).protection_radius_m < 60.0
    assert answer([hypothesis(0.0, 0.0)]).protection_radius_m == np.inf


def seen_by_features(
    hypothesis: Hypothesis, score: float, apart: tuple[float, float] = (0.0, 0.0), reason: str = ""
) -> Hypothesis:
    """The hypothesis with local features that reach a score (chance: 10^-score) somewhere."""
    place = hypothesis.registration
    at = (place.easting + apart[0], place.northing + apart[1])
    match = FeatureMatch("AKAZE", 500, 60, 20, score, *at, np.eye(2) * 0.2, Correction(), 0.3, reason)
    return replace(hypothesis, features=match)


FEATURES = replace(DECISION, features_location=0.0, features_scale=1 / np.log(10))


@pytest.mark.parametrize(
    ("peak", "evidence", "score", "status"),
    [
        # A second opinion makes up for a weak first one...
        (1.0, 1.0, 5.0, REFINED),
        (0.2, 1.5, 5.0, REFINED),
        # ...says where exactly as well...
        (3.0, 0.2, 5.0, REFINED),
        # ...and, where it has nothing to say, says nothing against a place that is sure without it.
        (4.0, 4.0, 0.2, REFINED),
        (1.0, 1.0, 0.2, NO_FIX),
    ],
)
def test_local_features_are_a_witness(peak: float, evidence: float, score: float, status: FixStatus) -> None:
    assert answer([seen_by_features(hypothesis(peak, evidence), score)], decision=FEATURES).status is status


@pytest.mark.parametrize(
    ("apart", "reason", "said"),
    [((6.0, 0.0), "", "6.0 m away"), ((0.0, 0.0), "the homography is implausible", "implausible")],
)
def test_features_that_disagree_are_no_witness_and_are_told(apart: tuple[float, float], reason: str, said: str) -> None:
    fix = answer([seen_by_features(hypothesis(1.0, 1.0), 9.0, apart, reason)], decision=FEATURES)
    assert fix.status is NO_FIX
    assert said in fix.reason
    witnesses = fix.alternatives[0].witnesses
    assert witnesses is not None
    assert witnesses.features == 0.0


def test_a_sure_dissent_widens_the_covariance() -> None:
    def sigma(score: float, apart: tuple[float, float]) -> float:
        return answer([seen_by_features(hypothesis(9.0, 9.0), score, apart)], decision=FEATURES).sigma_m

    assert sigma(0.1, (6.0, 0.0)) == pytest.approx(sigma(9.0, (0.0, 0.0)))
    assert sigma(9.0, (6.0, 0.0)) == pytest.approx(np.hypot(sigma(9.0, (0.0, 0.0)), 6.0))


@pytest.mark.parametrize(
    ("places", "asked"),
    [
        ([], []),
        ([(9.0, 9.0)], []),
        ([(2.5, 2.5)], [0]),
        # The place is sure, but not where in it.
        ([(12.0, 0.3)], [0]),
        # A rival that matches as well is a doubt, however high both stand; one close by is the same place.
        ([(9.0, 9.0), (9.0, 9.0, 90.0)], [0, 1]),
        ([(9.0, 9.0), (9.0, 9.0, 41.0)], []),
        ([(9.0, 9.0), (1.0, 1.0, 90.0)], []),
        # The likeliest is asked first; what is no rival is not asked at all.
        ([(2.2, 2.2), (2.5, 2.5, 90.0)], [1, 0]),
        ([(2.5, 2.5), (0.5, 0.2, 90.0)], [0]),
    ],
)
def test_features_are_asked_where_correlation_leaves_doubt(places: list[tuple[float, ...]], asked: list[int]) -> None:
    given = [hypothesis(peak, blocks, (at[0] if at else 40.0, -25.0)) for peak, blocks, *at in places]
    doubtful = in_doubt(given, Scene(LOCAL, 2.0), Settings(), FEATURES)
    assert [next(index for index, one in enumerate(given) if one is h) for h in doubtful] == asked
