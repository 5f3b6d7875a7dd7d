"""Chance is measured by frames of the map itself: they show what the camera would see, and wrong places stay wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl import Localizer
from cvgl.calibrate import (
    excess,
    fit_decision,
    fit_largest,
    fit_right,
    fit_wrong,
    hidden_circle,
    likeliest,
    rarest,
    right_place,
    simulated_frame,
    simulated_views,
    window,
)
from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.fix import Alternative, Fix, Witnesses
from cvgl.geometry import Mount, camera_to_enu
from cvgl.imagery import MapSource
from cvgl.rectify import ground_offset, rectify
from cvgl.settings import Decision
from cvgl.sim.views import MapImage

PLAIN = Camera.from_field_of_view(320, 240, 62.0)
LENS = replace(PLAIN, distortion=(-0.1, 0.02, 0.001, 0.0005), mount=Mount(yaw_deg=90.0, pitch_deg=8.0))
GSD = 0.25


def map_with_a_disc(easting: float, northing: float) -> MapImage:
    """200 m a side, black, with a white disc of 2 m radius."""
    side = round(200 / GSD)
    rgb = np.zeros((side, side, 3), np.uint8)
    where = np.array([(easting + 100) / GSD - 0.5, (100 - northing) / GSD - 0.5])
    x, y = np.round(where * 16).astype(int).tolist()
    cv2.circle(rgb, (x, y), round(2 / GSD * 16), (255, 255, 255), -1, cv2.LINE_AA, 4)
    return MapImage.of(rgb, np.ones((side, side), bool), GSD, -100.0, 100.0)


def disc_in(grey: np.ndarray) -> np.ndarray:
    v, u = np.mgrid[: grey.shape[0], : grey.shape[1]]
    weight = grey.astype(np.float64)
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


@settings(max_examples=25, deadline=None)
@given(
    camera=st.sampled_from([PLAIN, LENS]),
    heading=st.floats(0, 360),
    tilt=st.tuples(st.floats(-8, 8), st.floats(-8, 8)),
    height=st.floats(40, 70),
    at=st.tuples(st.floats(-25, 25), st.floats(-25, 25)),
    apart=st.tuples(st.floats(-6, 6), st.floats(-6, 6)),
)
def test_a_landmark_is_seen_where_the_camera_sees_it(
    camera: Camera,
    heading: float,
    tilt: tuple[float, float],
    height: float,
    at: tuple[float, float],
    apart: tuple[float, float],
) -> None:
    image = map_with_a_disc(at[0] + apart[0], at[1] + apart[1])
    rng = np.random.default_rng(0)
    frame = simulated_frame(image, *at, height, heading, camera, rng, tilt_deg=tilt, light=0.0)
    assert frame.shape == (240, 320, 3)
    rotation = camera_to_enu(camera.mount, heading, *tilt)
    east, north = ground_offset(camera, rotation, height) + apart
    expected = camera.project([(east, north, -height) @ rotation])[0]
    grey = np.ascontiguousarray(frame[..., 0])
    assert np.linalg.norm(disc_in(grey) - expected) < 0.5
    patch = rectify(grey, camera, rotation, height, GSD, 161, 1)
    assert np.linalg.norm(disc_in(patch.image) - (80 + apart[0] / GSD, 80 - apart[1] / GSD)) < 0.5


def test_same_seed_same_frame(place: Any) -> None:
    def frame(seed: int, light: float = 1.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return simulated_frame(place.image, 10.0, 10.0, 80.0, 30.0, place.camera, rng, light=light)

    np.testing.assert_array_equal(frame(1), frame(1))
    assert (frame(1) != frame(2)).any(), "another seed is another light"
    np.testing.assert_array_equal(frame(1, 0.0), frame(2, 0.0))
    assert (frame(1) != frame(1, 0.0)).any()


def test_a_frame_past_the_map_is_refused(place: Any) -> None:
    with pytest.raises(MapError, match="past the map"):
        simulated_frame(place.image, 900.0, 0.0, 80.0, 0.0, place.camera, np.random.default_rng(0))


def test_a_window_is_around_its_place(town: Path) -> None:
    source = MapSource.open(town / "map.tif")
    part = window(source, 30.0, -40.0, 100.0, 0.5)
    assert part.rgba.shape == (200, 200, 4)
    assert (part.west, part.north, part.gsd_m) == (-20.0, 10.0, 0.5)
    rgb, _ = source.read(-20.0, 10.0, 200, 200, 0.5)
    np.testing.assert_array_equal(part.rgba[..., :3], rgb)


@pytest.fixture(scope="module")
def localizer(mission: Path) -> Localizer:
    return Localizer.open(mission, threads=1)


@pytest.mark.slow
def test_laws_are_measured_on_the_map(localizer: Localizer, town: Path) -> None:
    source = MapSource.open(town / "map.tif")
    progress: list[tuple[int, int]] = []
    decision, record = fit_decision(
        localizer, source, trials=48, seed=1, progress=lambda done, total: progress.append((done, total))
    )
    assert progress[-1] == (48, 48)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert (record["trials"], record["seed"], record["elsewhere"]) == (48, 1, 12)
    assert record["fitted"] + record["held_back"] == record["used"] <= 48
    before, after = localizer.mission.decision.to_dict(), decision.to_dict()
    risks = {"proposed", "fix_chance", "fix_probability", "witness_chance"}
    assert {name for name in risks if after[name] != before[name]} == set(), "the risks that are taken stay"
    assert decision.places == 1
    assert decision.chance_factor >= 1.0
    # A small sample must not make the laws narrower than chance is.
    assert decision.peak_scale >= 0.79 * Decision().peak_scale
    assert decision.evidence_scale >= 0.79 * Decision().evidence_scale
    # Frames that were not fitted to are not believed where they are not, and are where they are.
    assert record["rarest_by_chance"] > math.log10(decision.fix_chance)
    assert record["likeliest_by_chance"] < decision.fix_probability
    assert record["median_probability_right"] > 0.999
    assert Decision.from_dict(after, Path("mission.json")) == decision


def test_too_few_trials_keep_the_default_laws_and_say_so(localizer: Localizer, town: Path) -> None:
    source = MapSource.open(town / "map.tif")
    decision, record = fit_decision(localizer, source, trials=3, seed=5)
    assert decision == localizer.mission.decision
    assert record["used"] <= 3
    assert "default laws are kept" in record["note"]
    assert fit_decision(localizer, source, trials=3, seed=5) == (decision, record)


def answered(*told: Witnesses) -> Fix:
    """A fix that has these witnesses, of places far from each other."""
    places = [
        Alternative(0.0, 0.0, 100.0 * i, 0.0, np.eye(2), np.eye(2), 0.0, 1.0, 80.0, 0.5, 0.0, witnesses=one)
        for i, one in enumerate(told)
    ]
    return Fix.none(0.0, "a test", alternatives=tuple(places))


def test_the_law_of_one_place_is_found_from_the_largest_of_several() -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 20, 4000).astype(np.float64)
    # The largest of n draws of Gumbel's law.
    largest = rng.gumbel(3.0 + 0.5 * np.log(counts), 0.5)
    location, scale = fit_largest(largest, counts)
    assert location == pytest.approx(3.0, abs=0.05)
    assert scale == pytest.approx(0.5, rel=0.05)


def test_chance_is_believed_as_often_as_stated_after_a_fit() -> None:
    rng = np.random.default_rng(1)

    def nowhere(count: int) -> list[Fix]:
        listed = rng.integers(5, 15, count)
        peaks, blocks = rng.gumbel(3.5 + 0.6 * np.log(listed), 0.6), rng.gumbel(1.2, 0.8, count)
        orders = [int(rng.integers(1, n + 1)) for n in listed]
        return [
            answered(Witnesses(float(p), float(b), k, int(n)))
            for p, b, k, n in zip(peaks, blocks, orders, listed, strict=True)
        ]

    decision = fit_wrong(Decision(), nowhere(2000))
    fresh = nowhere(4000)
    chances = np.array([rarest(decision, fix) for fix in fresh])
    for level in (0.1, 0.01, 0.001):
        assert np.mean(chances <= np.log10(level)) <= 1.3 * level + 2e-3
    assert excess(decision, fresh) < 1.3
    # Laws that are too trusting are caught by frames that were not fitted to.
    trusting = replace(decision, peak_location=decision.peak_location - 1.0)
    assert excess(trusting, fresh) > 1.4
    caught = replace(trusting, chance_factor=excess(trusting, fresh))
    assert np.mean([rarest(caught, fix) <= -1 for fix in fresh]) < np.mean([rarest(trusting, f) <= -1 for f in fresh])


def test_right_places_move_the_right_law_by_their_number() -> None:
    strong, weak = Witnesses(9.0, 9.0), Witnesses(5.5, 2.5, 3, 12)
    assert fit_right(Decision(), []) == Decision()
    easy = fit_right(Decision(), [strong] * 40)
    hard = fit_right(Decision(), [weak] * 40)
    assert easy.right_power < hard.right_power
    assert easy.miss_share < hard.miss_share
    few = fit_right(Decision(), [weak] * 3, weight=20.0)
    assert Decision().right_power < few.right_power < hard.right_power
    # Simulated views are easier than photos: only a share of their evidence is expected, and of no misses nothing.
    simulated = fit_right(Decision(), [strong] * 40, share=0.2)
    assert simulated.right_power > easy.right_power
    assert simulated.miss_share == Decision().miss_share


def test_a_right_place_is_near_the_truth() -> None:
    fix = answered(Witnesses(5.0, 5.0), Witnesses(5.0, 5.0))
    found = right_place(fix, 95.0, 20.0)
    assert found is not None and found.center_easting == 100.0
    assert right_place(fix, 50.0, 0.0) is None
    assert likeliest(Decision(), Fix.none(0.0, "nothing")) == 0.0


def test_simulated_frames_follow_from_seed_and_number(localizer: Localizer, town: Path) -> None:
    source = MapSource.open(town / "map.tif")
    three, two = (list(simulated_views(localizer, source, count, [4, 9])) for count in (3, 2))
    assert [view.easting for view in three[:2]] == [view.easting for view in two]
    np.testing.assert_array_equal(three[1].frame.image, two[1].frame.image)
    for view in three:
        view.frame.check()
        # Seen from some 80 m and two degrees off level, the middle is a few metres from below the aircraft.
        assert 0.0 < np.hypot(*(view.position - (view.easting, view.northing))) < 25.0


def test_a_frame_is_not_found_where_its_place_is_hidden(localizer: Localizer, town: Path) -> None:
    (view,) = simulated_views(localizer, MapSource.open(town / "map.tif"), 1, [4, 9])
    assert localizer.locate(view.frame)
    hidden = hidden_circle(localizer, view.easting, view.northing)
    elsewhere = localizer.locate_elsewhere(view.frame, hidden)
    assert not elsewhere
    for candidate in elsewhere.candidates:
        assert np.hypot(candidate.easting - hidden[0], candidate.northing - hidden[1]) > hidden[2]
