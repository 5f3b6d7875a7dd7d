"""The first look: the frame's place stands out among the windows that are searched, and nothing is made of nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.correlate import REDUCTION, Peak, Search, find_peaks, reduce_patch
from cvgl.geometry import Mount, camera_to_enu
from cvgl.rectify import Look, rectify

HEIGHT = 80.0
REACH_M = 30.0
SIZE = 240
TURNS_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)
# Five places far from each other: four are wrong whatever the frame.
PLACES = [(20.0, -30.0), (105.0, 100.0), (-100.0, 105.0), (-105.0, -100.0), (110.0, -105.0)]


def search_for(place: Any, grey: NDArray[np.uint8], heading: float, places: Sequence[tuple[float, float]]) -> Search:
    rotations = [camera_to_enu(Mount(), heading + turn) for turn in TURNS_DEG]
    patches = [rectify(grey, place.camera, rotation, HEIGHT, place.basemap.gsd, SIZE, 1) for rotation in rotations]
    return Search([(turn, reduce_patch(p, REDUCTION).look) for turn, p in zip(TURNS_DEG, patches, strict=True)], places)


def distance(peak: Peak, easting: float, northing: float) -> float:
    return float(np.hypot(peak.easting - easting, peak.northing - northing))


@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (11.3, -8.2), (-25.0, 20.0)])
@pytest.mark.parametrize("error", [-8.0, -3.0, 0.0, 5.0])
@pytest.mark.parametrize("light", [0.0, 1.0])
def test_the_frame_s_place_is_the_highest_peak(
    place: Any, east: float, north: float, error: float, light: float
) -> None:
    truth = (PLACES[0][0] + east, PLACES[0][1] + north)
    grey = place.grey_frame(*truth, HEIGHT, 70.0, light=light)
    found = find_peaks(place.basemap, [search_for(place, grey, 70.0 + error, PLACES)], REACH_M, 5)
    index, best = found[0]
    assert index == 0
    # The look is at a third of the detail, in whole pixels of it.
    assert distance(best, *truth) < REDUCTION * place.basemap.gsd
    assert abs(error + best.turn_deg) <= 4.0
    assert best.score > 2 * max(peak.score for _, peak in found[1:])
    assert best.score > 8.0


def test_of_several_headings_the_right_one_is_named(place: Any) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 200.0)
    searches = [search_for(place, grey, heading, PLACES) for heading in (20.0, 110.0, 200.0, 290.0)]
    index, best = find_peaks(place.basemap, searches, REACH_M, 5)[0]
    assert index == 2
    assert distance(best, *PLACES[0]) < REDUCTION * place.basemap.gsd


@pytest.mark.parametrize("keep", [1, 3, 5, 50])
def test_peaks_are_few_sorted_and_apart(place: Any, keep: int) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 0.0)
    # Windows overlap: many see the same place, which is to be answered once.
    places = [*PLACES, *((20.0 + 6 * i, -30.0 + 6 * k) for i in (-1, 0, 1) for k in (-1, 0, 1))]
    peaks = [peak for _, peak in find_peaks(place.basemap, [search_for(place, grey, 0.0, places)], REACH_M, keep)]
    assert 1 <= len(peaks) <= keep
    assert [peak.score for peak in peaks] == sorted((peak.score for peak in peaks), reverse=True)
    for number, peak in enumerate(peaks):
        assert all(distance(peak, other.easting, other.northing) > 8.0 for other in peaks[:number])
    assert distance(peaks[0], *PLACES[0]) < REDUCTION * place.basemap.gsd


def test_threads_change_nothing(place: Any) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 0.0)
    search = search_for(place, grey, 3.0, PLACES)
    assert find_peaks(place.basemap, [search], REACH_M, 5, 3) == find_peaks(place.basemap, [search], REACH_M, 5, 1)


def test_a_wrong_place_does_not_stand_out(place: Any) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 0.0)
    found = find_peaks(place.basemap, [search_for(place, grey, 0.0, PLACES[1:] * 2)], REACH_M, 5)
    assert max(peak.score for _, peak in found) < 6.0


def flat_look(look: Look, level: int) -> Look:
    return look._replace(image=np.full_like(look.image, level))


def test_a_featureless_frame_has_no_peaks(place: Any) -> None:
    search = search_for(place, place.grey_frame(*PLACES[0], HEIGHT, 0.0), 0.0, PLACES)
    flat = Search([(turn, flat_look(look, 90)) for turn, look in search.looks], PLACES)
    assert find_peaks(place.basemap, [flat], REACH_M, 5) == []
    # Beside one that shows something it does no harm.
    index, best = find_peaks(place.basemap, [flat, search], REACH_M, 5)[0]
    assert index == 1
    assert distance(best, *PLACES[0]) < REDUCTION * place.basemap.gsd


@pytest.mark.parametrize("level", [0, 90])
@pytest.mark.parametrize(
    "places", [[(-50.0, 50.0), (50.0, 50.0), (0.0, 0.0), (50.0, -50.0), (-50.0, -50.0)], [(20.0, -30.0)], []]
)
def test_a_basemap_without_data_or_features_has_no_peaks(
    place: Any, level: int, places: list[tuple[float, float]]
) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 0.0)
    empty = replace(place.basemap, pixels=np.full_like(place.basemap.pixels, level))
    assert find_peaks(empty, [search_for(place, grey, 0.0, places)], REACH_M, 5) == []


def test_nothing_to_look_for_is_no_peak(place: Any) -> None:
    assert find_peaks(place.basemap, [], REACH_M, 5) == []
    far_outside = [(5000.0 + 100 * k, 0.0) for k in range(6)]
    grey = place.grey_frame(*PLACES[0], HEIGHT, 0.0)
    assert find_peaks(place.basemap, [search_for(place, grey, 0.0, far_outside)], REACH_M, 5) == []


def test_found_at_the_edge_of_the_basemap(place: Any) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 0.0)
    pixels = place.basemap.pixels.copy()
    # No data from 5 m east of the frame's middle: nearly half of what the frame sees is missing.
    pixels[:, round((PLACES[0][0] + 5 + 150) / 0.5) :] = 0
    found = find_peaks(Basemap(pixels, 0.5, -150.0, 150.0), [search_for(place, grey, 0.0, PLACES)], REACH_M, 5)
    assert distance(found[0][1], *PLACES[0]) < REDUCTION * place.basemap.gsd


def test_a_reduced_patch_shows_the_same_ground(place: Any) -> None:
    grey = place.grey_frame(*PLACES[0], HEIGHT, 30.0)
    rotation = camera_to_enu(Mount(), 30.0)
    patch = rectify(grey, place.camera, rotation, HEIGHT, place.basemap.gsd, SIZE, 1)
    for reduction in (2, 3):
        small = reduce_patch(patch, reduction)
        assert small.mask.shape == (SIZE // reduction, SIZE // reduction)
        assert small.gsd == patch.gsd * reduction
        # A block of pixels and the pixel it became have the same middle.
        middle = np.array([5 * reduction + (reduction - 1) / 2, 7 * reduction + (reduction - 1) / 2, 1.0])
        np.testing.assert_allclose(small.to_camera @ (5, 7, 1), patch.to_camera @ middle)
        blocks = patch.mask.reshape(SIZE // reduction, reduction, SIZE // reduction, reduction)
        np.testing.assert_array_equal(small.mask, blocks.min(axis=(1, 3)))
