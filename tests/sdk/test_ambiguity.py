"""A place that repeats itself is never answered as one place; a place that does not is left alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.ambiguity import look_alikes
from cvgl.basemap import Basemap
from cvgl.calibrate import simulated_frame
from cvgl.decide import SAME_ANSWER_M, Scene, decide
from cvgl.fix import FixStatus, ReasonCode
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.geometry import Mount, camera_to_enu
from cvgl.refine import TURNS_DEG, Hypothesis, View, add_look_alikes, examine, look, view_of
from cvgl.register import PoseSigmas
from cvgl.settings import Decision, Settings
from cvgl.sim.views import MapImage

HEIGHT, GSD, REACH = 70.0, 0.5, 32.0
SIGMAS = PoseSigmas(heading_deg=6.0, scale=0.03, tilt_deg=5.0)


def tiled(rgb: NDArray[np.uint8], block_px: int) -> NDArray[np.uint8]:
    """The map's middle block again and again: rows of equal houses."""
    middle, half = rgb.shape[0] // 2, block_px // 2
    block = rgb[middle - half : middle + half, middle - half : middle + half]
    times = -(-rgb.shape[0] // block_px)
    return np.ascontiguousarray(np.tile(block, (times, times, 1)))


def registered(rgb: NDArray[np.uint8], place: Any, seed: int) -> tuple[Basemap, View, list[Hypothesis], Any]:
    """A relit frame of a map, examined where it was taken."""
    half = rgb.shape[0] * GSD / 2
    grey = np.maximum(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), 1)
    basemap = Basemap(grey, GSD, -half, half)
    image = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), GSD, -half, half)
    rng = np.random.default_rng(seed)
    at = rng.uniform(-40, 40, 2)
    frame = simulated_frame(image, float(at[0]), float(at[1]), HEIGHT, 30.0, place.camera, rng)
    rotation = camera_to_enu(Mount(), 32.0)
    seen = view_of(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), place.camera, rotation, HEIGHT, 32.0, GSD, 1)
    wrong = [(95.0, 90.0), (-90.0, 95.0), (-95.0, -90.0), (90.0, -95.0)]
    peaks = look(basemap, [seen], [[(float(at[0]), float(at[1])), *wrong]], TURNS_DEG, REACH, 5, 1)
    return basemap, seen, examine(basemap, peaks, TURNS_DEG, SIGMAS, 1), at


def answer(hypotheses: list[Hypothesis]) -> Any:
    frame = Frame(np.zeros((240, 320), np.uint8), time=0.0, height=HEIGHT)
    return decide(hypotheses, frame, [], Scene(LocalFrame(47.0, 9.0), 2.0), Settings(), Decision())


@pytest.mark.parametrize("block_px", [24, 40, 60])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_map_of_equal_blocks_is_ambiguous(place: Any, block_px: int, seed: int) -> None:
    basemap, _, hypotheses, _ = registered(tiled(place.image.rgba[..., :3], block_px), place, seed)
    found = add_look_alikes(basemap, hypotheses, REACH, SAME_ANSWER_M, SIGMAS)
    fix = answer(found)
    assert fix.status is FixStatus.NO_FIX
    assert fix.reason_code is ReasonCode.AMBIGUOUS
    # Retrieval may prefer one of the copies, by no more than chance.
    assert fix.probability < 0.8
    assert "%" in fix.reason


def test_without_looking_for_it_the_next_house_is_never_seen(place: Any) -> None:
    basemap, _, hypotheses, _ = registered(tiled(place.image.rgba[..., :3], 24), place, 0)
    best = [max(hypotheses, key=lambda h: h.peak.score)]
    assert answer(best).status is FixStatus.REFINED
    assert answer(add_look_alikes(basemap, best, REACH, SAME_ANSWER_M, SIGMAS)).reason_code is ReasonCode.AMBIGUOUS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_ordinary_town_is_not(place: Any, seed: int) -> None:
    basemap, _, hypotheses, at = registered(np.ascontiguousarray(place.image.rgba[..., :3]), place, seed)
    found = add_look_alikes(basemap, hypotheses, REACH, SAME_ANSWER_M, SIGMAS)
    assert found == hypotheses
    fix = answer(found)
    assert fix.status is FixStatus.REFINED
    best = fix.alternatives[0]
    assert np.hypot(best.center_easting - at[0], best.center_northing - at[1]) < 1.0


def test_the_map_s_own_copy_is_found_where_it_is(place: Any) -> None:
    basemap, seen, hypotheses, _ = registered(tiled(place.image.rgba[..., :3], 48), place, 0)
    best = hypotheses[0].registration
    alike = look_alikes(basemap, seen.third, best.easting, best.northing, REACH, SAME_ANSWER_M)
    assert alike
    for one in alike:
        # 24 m from block to block.
        away = np.array([one.easting - best.easting, one.northing - best.northing]) / 24.0
        np.testing.assert_allclose(away, np.round(away), atol=0.1)
        assert one.similarity > 0.5
        assert one.peak_ratio > 0.5


def test_nothing_looks_like_a_blank_map(place: Any) -> None:
    _, seen, _, at = registered(np.ascontiguousarray(place.image.rgba[..., :3]), place, 0)
    blank = replace(place.basemap, pixels=np.full_like(place.basemap.pixels, 90))
    assert look_alikes(blank, seen.third, float(at[0]), float(at[1]), REACH, SAME_ANSWER_M) == []
    assert add_look_alikes(blank, [], REACH, SAME_ANSWER_M, SIGMAS) == []
