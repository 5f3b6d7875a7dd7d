"""Registration finds the pose a frame was taken with, says how well it knows it, and finds nothing where nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl import refine
from cvgl.basemap import Basemap
from cvgl.correlate import Peak, reduce_patch
from cvgl.fix import Candidate
from cvgl.footprint import footprint_sides
from cvgl.geometry import Mount, camera_to_enu
from cvgl.localizer import wide_turns
from cvgl.native import (
    block_corners,
    correlate_blocks,
    fit_pose,
    judge_blocks,
    peak_covariances,
    pose_design,
    refit_pose,
    standardise,
)
from cvgl.orientation import map_field, orientation_field
from cvgl.rectify import Patch, ground_offset, rectify_again
from cvgl.refine import (
    SECOND_PEAKS,
    TURNS_DEG,
    Hypothesis,
    View,
    add_detail,
    examine,
    examine_again,
    look,
    merge,
    view_of,
)
from cvgl.register import SEARCH_PX, Correction, PoseSigmas, Registration, Trial, block_side, register

HEIGHT = 80.0
TRUTH = (20.0, -30.0)
SIGMAS = PoseSigmas(heading_deg=6.0, scale=0.03, tilt_deg=5.0)
# Chance alone, at the best of many wrong places, reaches about 5; a true place here about 20.
SURE, CHANCE = 10.0, 7.0


def view(place: Any, grey: NDArray[np.uint8], heading: float, height: float = HEIGHT) -> View:
    rotation = camera_to_enu(Mount(), heading)
    return view_of(grey, place.camera, rotation, height, heading, place.basemap.gsd, 1)


def registered(
    place: Any, seen: View, easting: float, northing: float, basemap: Basemap | None = None
) -> Registration | None:
    """The view registered as it is, at full detail."""
    ground = place.basemap if basemap is None else basemap
    return alone(ground, trial(seen, seen.patch, (easting, northing)), seen.patch.gsd)


def trial(seen: View, patch: Patch, at: tuple[float, float], applied: Correction | None = None) -> Trial:
    """A patch of a view that may lie at a place, made as it is with a correction in it."""
    side, height = block_side(seen.short_px), seen.height
    if applied is not None:
        height *= 1 + applied.scale
    return Trial(patch.look, patch.offset, *at, applied or Correction(), height, side, np.zeros(2))


def alone(basemap: Basemap, one: Trial, gsd: float) -> Registration | None:
    return register(basemap, [one], gsd, SIGMAS)[0]


def examined(place: Any, seen: View, at: tuple[float, float]) -> Hypothesis:
    """The way of a frame: peaks around a place, the best registered in two looks."""
    wrong = [(105.0, 100.0), (-100.0, 105.0), (-105.0, -100.0), (110.0, -105.0)]
    peaks = look(place.basemap, [seen], [[at, *wrong]], TURNS_DEG, 30.0, 5, 1)
    return max(examine(place.basemap, peaks, TURNS_DEG, SIGMAS, 1), key=lambda h: h.registration.evidence)


@pytest.mark.parametrize(("at", "glances"), [((20.0, -30.0), 1), ((-75.0, 75.0), len(TURNS_DEG))])
def test_other_headings_are_tried_only_where_the_blocks_do_not_agree(
    place: Any, monkeypatch: pytest.MonkeyPatch, at: tuple[float, float], glances: int
) -> None:
    reductions: list[int] = []

    def counted(basemap: Basemap, trials: Sequence[Trial], gsd: float, *given: Any) -> list[Registration | None]:
        reductions.extend([round(gsd / basemap.gsd)] * len(trials))
        return register(basemap, trials, gsd, *given)

    monkeypatch.setattr(refine, "register", counted)
    seen = view(place, place.grey_frame(20.0, -30.0, HEIGHT, 40.0, (0.0, 0.0), 1.0), 42.0, HEIGHT)
    found = examine(place.basemap, [(seen, Peak(*at, 0.0, 8.0))], TURNS_DEG, SIGMAS, 1)
    assert reductions == [2] * glances + [1]
    assert (found[0].registration.evidence > SURE) == (glances == 1)


WRONG = [(105.0, 100.0), (-100.0, 105.0), (-105.0, -100.0), (110.0, -105.0)]


def looked_at_again(place: Any, seen: View, at: tuple[float, float]) -> list[Hypothesis]:
    """The hypotheses of a second look."""
    turns = wide_turns(SIGMAS.heading_deg)
    peaks = look(place.basemap, [seen], [[at, *WRONG]], turns, 30.0, SECOND_PEAKS, 1)
    return add_detail(place.basemap, examine_again(place.basemap, peaks, turns, SIGMAS, 1), None)


@pytest.mark.parametrize(("error", "tilt"), [(14.0, (0.0, 0.0)), (-15.0, (4.0, -5.0)), (2.0, (9.0, 7.0))])
def test_a_second_look_finds_poses_further_off(place: Any, error: float, tilt: tuple[float, float]) -> None:
    grey = place.grey_frame(*TRUTH, HEIGHT, 40.0, tilt)
    found = looked_at_again(place, view(place, grey, 40.0 + error), (TRUTH[0] + 9.0, TRUTH[1] - 8.0))
    best, *others = sorted(found, key=lambda h: -h.registration.evidence)
    assert np.hypot(best.registration.easting - TRUTH[0], best.registration.northing - TRUTH[1]) < 1.5
    assert best.registration.evidence > SURE
    assert error + best.registration.correction.turn_deg == pytest.approx(0.0, abs=0.7)
    assert others, "a second look studies wrong places too"
    assert all(other.detail is not None for other in found)
    assert (best.detail or 0.0) > 1.3 * max(other.detail or 0.0 for other in others)


@pytest.mark.parametrize(("sigma", "widest"), [(0.5, 8.0), (3.0, 8.0), (6.0, 16.0), (8.0, 20.0)])
def test_a_second_look_s_headings_hold_the_first_one_s(sigma: float, widest: float) -> None:
    turns = wide_turns(sigma)
    assert set(TURNS_DEG) <= set(turns)
    assert (min(turns), max(turns)) == (-widest, widest)


# True place, heading, (pitch, roll); error of the given heading (degrees) and height (relative); change of light.
FLIGHTS = [
    ((20.0, -30.0), 40.0, (0.0, 0.0), 0.0, 0.0, 0.0),
    ((20.0, -30.0), 40.0, (0.0, 0.0), 3.0, 0.02, 0.0),
    ((-40.3, 25.7), 300.0, (0.0, 0.0), -5.0, -0.03, 0.0),
    ((10.0, 10.0), 120.0, (2.0, -1.5), 2.0, 0.01, 0.0),
    ((0.2, -20.1), 200.0, (3.0, 3.0), -4.0, 0.02, 1.0),
    ((-60.0, -50.0), 10.0, (0.0, 0.0), 0.0, 0.0, 1.0),
    ((31.4, -20.0), 70.0, (-2.0, 1.0), 5.0, -0.02, 1.0),
]


@pytest.mark.parametrize(("truth", "heading", "tilt", "heading_error", "height_error", "light"), FLIGHTS)
def test_the_pose_is_found(
    place: Any,
    truth: tuple[float, float],
    heading: float,
    tilt: tuple[float, float],
    heading_error: float,
    height_error: float,
    light: float,
) -> None:
    grey = place.grey_frame(*truth, HEIGHT, heading, tilt, light)
    seen = view(place, grey, heading + heading_error, HEIGHT * (1 + height_error))
    found = examined(place, seen, (truth[0] + 9.0, truth[1] - 8.0)).registration
    pose = found.correction
    assert np.hypot(found.easting - truth[0], found.northing - truth[1]) < place.basemap.gsd
    assert heading_error + pose.turn_deg == pytest.approx(0.0, abs=0.5)
    assert (1 + height_error) * (1 + pose.scale) == pytest.approx(1.0, abs=0.01)
    lean = ground_offset(place.camera, camera_to_enu(Mount(), heading, *tilt), 1.0)
    np.testing.assert_allclose(pose.lean, lean, atol=np.tan(np.radians(1.0)))
    assert found.evidence > SURE
    assert found.votes > 0.8
    assert found.residual_m < 2 * place.basemap.gsd


@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (3.0, 2.0), (-4.5, 5.5), (0.25, -6.0)])
def test_a_hypothesis_may_be_metres_off(place: Any, east: float, north: float) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0)
    found = registered(place, seen, TRUTH[0] + east, TRUTH[1] + north)
    assert found is not None
    assert np.hypot(found.easting - TRUTH[0], found.northing - TRUTH[1]) < place.basemap.gsd
    assert abs(found.correction.turn_deg) < 0.5
    assert found.evidence > SURE


def test_half_the_detail_is_enough_for_a_glance(place: Any) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 38.0)
    small = reduce_patch(seen.patch, 2)
    found = alone(place.basemap, trial(seen, small, (TRUTH[0] + 2, TRUTH[1] - 2)), small.gsd)
    assert found is not None
    assert np.hypot(found.easting - TRUTH[0], found.northing - TRUTH[1]) < 2 * place.basemap.gsd
    assert found.correction.turn_deg == pytest.approx(2.0, abs=0.8)


def by_its_parts(basemap: Basemap, one: Trial, patch: Patch) -> tuple[list[float], NDArray[np.float64], float, float]:
    """Pose, covariance, evidence and votes of a trial whose look is a patch, by the parts of the native core."""
    reduction = round(patch.gsd / basemap.gsd)
    size, search, side = patch.mask.shape[0], SEARCH_PX // reduction, one.side // reduction
    full = size * reduction
    column, row = basemap.to_pixel(one.easting, one.northing)
    left, top = (round(float(at) - (full - 1) / 2) - SEARCH_PX for at in (column, row))
    ground, known = map_field(basemap.pixels, left, top, size + 2 * search, reduction)
    corners = block_corners(patch.mask, known, side, search, 0.8)
    surfaces = correlate_blocks(orientation_field(patch.image, patch.mask), ground, corners, side, search, 1)
    gsd = basemap.gsd * reduction
    design, lean = pose_design(corners, side, size, gsd, one.height, *patch.offset, *one.ahead)
    mean = -np.array([0.0, 0.0, np.radians(one.applied.turn_deg), one.applied.scale, *one.applied.lean])
    tilt = np.radians(SIGMAS.tilt_deg) ** -2
    weight = np.array([0.0, 0.0, np.radians(SIGMAS.heading_deg) ** -2, SIGMAS.scale**-2, tilt, tilt])
    y, x = divmod(standardise(surfaces), 2 * search + 1)
    start = np.array([(x - search) * gsd, -(y - search) * gsd, 0.0, 0.0, 0.0, 0.0])
    rises = np.linspace(0.0, 12.0, 5)
    radii = [max(trust // reduction, 2) for trust in (8, 6, 4, 4, 3)]
    pose, information, measured = fit_pose(
        surfaces, design, lean, rises, start, mean, weight, gsd, 0.2, 2.0 * gsd, radii, 3
    )
    evidence, votes, spread = judge_blocks(surfaces, design, lean, rises, pose, measured, gsd, 3.0)
    if reduction > 1:
        covariance = np.linalg.inv(information) * max(1.0, spread / (2.0 * gsd)) ** 2
    else:
        peaks = peak_covariances(surfaces, measured, lean, rises, gsd)
        pose, covariance = refit_pose(pose, measured, peaks, design, mean, weight)
        covariance = 2.0 * covariance
    return pose.tolist(), covariance, evidence, votes


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("threads", [1, 3])
def test_registration_is_its_parts_together(place: Any, reduction: int, threads: int) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 43.0)
    patch = seen.patch if reduction == 1 else seen.half
    applied = Correction(-3.0, 0.01, (0.02, -0.01))
    turned = rectify_again(patch, place.camera, applied.rotation(seen.rotation), seen.height * 1.01)
    near, far = (TRUTH[0] + 2.1, TRUTH[1] - 2.3), (-75.0, 75.0)
    # Two looks at one place, one of them at another place too.
    trials = [trial(seen, patch, near), trial(seen, turned, near, applied), trial(seen, turned, far, applied)]
    together = register(place.basemap, trials, patch.gsd, SIGMAS, threads)
    for one, looked, found in zip(trials, (patch, turned, turned), together, strict=True):
        pose, covariance, evidence, votes = by_its_parts(place.basemap, one, looked)
        assert found is not None
        assert (found.evidence, found.votes) == (pytest.approx(evidence, abs=1e-9), votes)
        assert found.correction.turn_deg == pytest.approx(one.applied.turn_deg + np.degrees(pose[2]), abs=1e-9)
        assert found.correction.lean == pytest.approx([a + b for a, b in zip(one.applied.lean, pose[4:], strict=True)])
        # The ground is read at whole pixels.
        apart = abs(found.easting - one.easting - pose[0]), abs(found.northing - one.northing - pose[1])
        assert max(apart) <= place.basemap.gsd * (0.5 + 1e-9)
        np.testing.assert_allclose(found.covariance, covariance[:2, :2], rtol=1e-9)
        assert found.turn_sigma_deg == pytest.approx(np.degrees(np.sqrt(covariance[2, 2])))


def test_corrections_already_in_the_patch_are_kept_in_the_answer(place: Any) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 35.0, HEIGHT * 1.03)
    applied = Correction(5.0, 1 / 1.03 - 1)
    patch = rectify_again(seen.patch, place.camera, applied.rotation(seen.rotation), HEIGHT)
    found = alone(place.basemap, trial(seen, patch, TRUTH, applied), patch.gsd)
    assert found is not None
    assert found.correction.turn_deg == pytest.approx(5.0, abs=0.5)
    assert found.correction.scale == pytest.approx(applied.scale, abs=0.01)


@pytest.mark.parametrize(("truth", "heading", "tilt", "heading_error", "height_error", "light"), FLIGHTS[:5])
def test_covariance_is_one(
    place: Any,
    truth: tuple[float, float],
    heading: float,
    tilt: tuple[float, float],
    heading_error: float,
    height_error: float,
    light: float,
) -> None:
    grey = place.grey_frame(*truth, HEIGHT, heading, tilt, light)
    seen = view(place, grey, heading + heading_error, HEIGHT * (1 + height_error))
    for at in (truth, (truth[0] - 60.0, truth[1] + 50.0)):
        found = registered(place, seen, *at)
        assert found is not None
        assert found.covariance.shape == (2, 2)
        np.testing.assert_allclose(found.covariance, found.covariance.T)
        assert np.linalg.eigvalsh(found.covariance).min() > 0
        assert found.turn_sigma_deg > 0
        assert found.turn_sigma_deg <= SIGMAS.heading_deg * 1.5
        assert 0.0 <= found.votes <= 1.0
        assert found.blocks >= 8


@pytest.mark.parametrize("wrong", [(-60.0, 40.0), (60.0, 60.0), (-50.0, -55.0), (60.0, 0.0), (-20.0, 60.0)])
@pytest.mark.parametrize("heading_error", [0.0, 90.0])
def test_a_wrong_place_has_little_evidence(place: Any, wrong: tuple[float, float], heading_error: float) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0 + heading_error)
    found = registered(place, seen, *wrong)
    assert found is not None
    assert found.evidence < CHANCE
    assert found.votes < 0.5


def test_the_right_place_under_a_wrong_heading_has_little_evidence(place: Any) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 130.0)
    found = registered(place, seen, *TRUTH)
    assert found is not None
    assert found.evidence < CHANCE


def test_noise_has_no_evidence(place: Any) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320), dtype=np.uint8)
    found = registered(place, view(place, noise, 0.0), *TRUTH)
    assert found is None or found.evidence < CHANCE


def test_a_featureless_basemap_has_no_evidence(place: Any) -> None:
    flat = replace(place.basemap, pixels=np.full_like(place.basemap.pixels, 90))
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0)
    found = registered(place, seen, *TRUTH, flat)
    assert found is None or (found.evidence < 2.0 and np.isfinite(found.covariance).all())


@pytest.mark.parametrize("at", [(400.0, 0.0), (0.0, -400.0), (5000.0, 5000.0), (178.0, 0.0)])
def test_outside_the_basemap_there_is_no_registration(place: Any, at: tuple[float, float]) -> None:
    assert registered(place, view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0), *at) is None


def test_a_basemap_without_data_gives_no_registration(place: Any) -> None:
    empty = replace(place.basemap, pixels=np.zeros_like(place.basemap.pixels))
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0)
    assert registered(place, seen, *TRUTH, empty) is None


def test_a_patch_that_saw_nothing_gives_no_registration(place: Any) -> None:
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0)
    blind: Patch = replace(seen.patch, mask=np.zeros_like(seen.patch.mask))
    assert registered(place, replace(seen, patch=blind), *TRUTH) is None


def test_half_of_the_ground_is_enough(place: Any) -> None:
    pixels = place.basemap.pixels.copy()
    pixels[:, round((TRUTH[0] + 10 + 150) / 0.5) :] = 0
    seen = view(place, place.grey_frame(*TRUTH, HEIGHT, 40.0), 40.0)
    cut = replace(place.basemap, pixels=pixels)
    whole, half = (registered(place, seen, *TRUTH, ground) for ground in (place.basemap, cut))
    assert whole is not None
    assert half is not None
    assert half.blocks < whole.blocks
    assert np.hypot(half.easting - TRUTH[0], half.northing - TRUTH[1]) < place.basemap.gsd
    assert np.trace(half.covariance) > np.trace(whole.covariance), "fewer blocks know less"


@settings(max_examples=60, deadline=None)
@given(heading=st.floats(0, 360), turn=st.floats(-20, 20), pitch=st.floats(-20, 20), roll=st.floats(-20, 20))
def test_a_turn_is_a_change_of_heading(heading: float, turn: float, pitch: float, roll: float) -> None:
    corrected = Correction(turn_deg=turn).rotation(camera_to_enu(Mount(), heading, pitch, roll))
    np.testing.assert_allclose(corrected, camera_to_enu(Mount(), heading + turn, pitch, roll), atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(heading=st.floats(0, 360), east=st.floats(-0.3, 0.3), north=st.floats(-0.3, 0.3))
def test_a_lean_moves_the_optical_axis_on_the_ground(heading: float, east: float, north: float) -> None:
    corrected = Correction(lean=(east, north)).rotation(camera_to_enu(Mount(), heading))
    axis = corrected @ (0, 0, 1)
    np.testing.assert_allclose(axis[:2] / -axis[2], (east, north), atol=1e-9)
    np.testing.assert_allclose(corrected @ corrected.T, np.eye(3), atol=1e-9)


def test_no_correction_is_none() -> None:
    rotation = camera_to_enu(Mount(), 33.0, 4.0, -2.0)
    np.testing.assert_allclose(Correction().rotation(rotation), rotation, atol=1e-12)


@pytest.mark.parametrize(("footprint", "side"), [(10.0, 20), (88.0, 20), (144.0, 33), (200.0, 45), (2000.0, 48)])
def test_blocks_are_a_fifth_of_the_footprint_within_bounds(footprint: float, side: int) -> None:
    assert block_side(footprint) == side


def test_footprint_of_a_level_camera(place: Any) -> None:
    short, long = footprint_sides(place.camera, 100.0)
    assert long == pytest.approx(2 * 100.0 * np.tan(np.radians(31.0)))
    assert short == pytest.approx(long * 240 / 320)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([], []),
        ([(0, 0)], [(0, 0)]),
        ([(0, 0), (10, 0), (100, 0)], [(5, 0), (100, 0)]),
        ([(0, 0), (100, 0), (20, 0)], [(10, 0), (100, 0)]),
        # A place joins the best one within reach of it, not a chain of neighbours.
        ([(0, 0), (20, 0), (40, 0)], [(10, 0), (40, 0)]),
        ([(0, 0), (0, 26)], [(0, 0), (0, 26)]),
    ],
)
def test_candidates_that_agree_are_searched_together(
    places: list[tuple[float, float]], expected: list[tuple[float, float]]
) -> None:
    candidates = [Candidate(index, *at, 0.9 - 0.1 * index, 0.0) for index, at in enumerate(places)]
    assert merge(candidates, 25.0) == expected
