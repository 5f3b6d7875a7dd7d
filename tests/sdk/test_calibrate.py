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
from cvgl.calibrate import fit_decision, simulated_frame, window
from cvgl.camera import Camera
from cvgl.errors import MapError
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
def test_laws_of_chance_are_measured_on_the_map(localizer: Localizer, town: Path) -> None:
    source = MapSource.open(town / "map.tif")
    progress: list[tuple[int, int]] = []
    decision, record = fit_decision(
        localizer, source, trials=76, seed=1, progress=lambda done, total: progress.append((done, total))
    )
    assert progress[-1] == (76, 76)
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    assert (record["trials"], record["seed"]) == (76, 1)
    # A trial from the middle of so small a map has too few places that are far from it.
    assert 30 <= record["used"] <= 76
    before, after = localizer.mission.decision.to_dict(), decision.to_dict()
    laws = {f"{witness}_{what}" for witness in ("peak", "evidence", "features") for what in ("location", "scale")}
    assert {name for name in after if after[name] != before[name]} == laws, "the risks that are taken stay"
    # A small sample must not make the laws narrower than chance is.
    assert decision.peak_scale >= 0.79 * Decision().peak_scale
    assert decision.evidence_scale >= 0.79 * Decision().evidence_scale
    # Under laws that fit, the highest of some 40 wrong scores is about what chance reaches once in 40 tries.
    for chance in decision.log10_chances(record["largest"]["peak"], record["largest"]["evidence"]):
        assert -4.0 < chance < math.log10(0.5)
    assert Decision.from_dict(after, Path("mission.json")) == decision


def test_too_few_trials_keep_the_default_laws_and_say_so(localizer: Localizer, town: Path) -> None:
    source = MapSource.open(town / "map.tif")
    decision, record = fit_decision(localizer, source, trials=3, seed=5)
    assert decision == localizer.mission.decision
    assert record["used"] <= 3
    assert "default laws are kept" in record["note"]
    assert fit_decision(localizer, source, trials=3, seed=5) == (decision, record)
