"""Simulated views: a view shows the place it says, as the flight code would see it."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.geometry import Mount
from cvgl.sim.views import (
    MapImage,
    ViewSettings,
    choose_tile_size,
    drone_view,
    footprint_on_ground,
    reference_tile,
    relight,
)

CAMERA = Camera.from_field_of_view(1600, 900, 65.0)
GSD = 0.8
EXACT = ViewSettings(CAMERA, 120.0, GSD, heading_sigma_deg=0, height_sigma=0, offset_m=0, tilt_sigma_deg=0, light=0)


@pytest.fixture(scope="module")
def image() -> MapImage:
    rng = np.random.default_rng(3)
    rgb = cv2.resize(rng.integers(0, 255, (125, 150, 3)).astype(np.uint8), (900, 750), interpolation=cv2.INTER_CUBIC)
    return MapImage.of(rgb, np.ones(rgb.shape[:2], bool), GSD / 2, -180.0, 150.0)


def difference(a: np.ndarray, b: np.ndarray, mask: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b)[mask].mean())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), easting=st.floats(-120, 120), northing=st.floats(-90, 90))
def test_an_error_free_view_is_the_tile_itself(image: MapImage, seed: int, easting: float, northing: float) -> None:
    # On the map's own pixel grid, since reference tiles are cut at whole pixels.
    easting, northing = (
        round(easting / image.gsd_m) * image.gsd_m,
        round(northing / image.gsd_m) * image.gsd_m,
    )
    tile, covered = reference_tile(image, easting, northing, EXACT)
    view, seen, center = drone_view(image, easting, northing, EXACT, np.random.default_rng(seed))
    assert covered.all()
    assert 0.5 < seen.mean() <= 1
    assert center == pytest.approx((easting, northing))
    assert difference(view, tile, seen) < 1.0


def test_a_view_is_displaced_by_its_offset(image: MapImage) -> None:
    drone = replace(EXACT, offset_m=10.0)
    view, seen, center = drone_view(image, 0.0, 0.0, drone, np.random.default_rng(5))
    assert np.abs(center).max() > 1
    there = reference_tile(image, *center, drone)[0]
    here = reference_tile(image, 0.0, 0.0, drone)[0]
    assert difference(view, there, seen) < 0.5 * difference(view, here, seen)


def test_heading_and_height_errors_turn_and_scale_about_the_centre(image: MapImage) -> None:
    drone = replace(EXACT, heading_sigma_deg=8.0, height_sigma=0.05)
    for seed in range(4):
        view, seen, _ = drone_view(image, 0.0, 0.0, drone, np.random.default_rng(seed))
        middle = slice(60, 68)
        tile = reference_tile(image, 0.0, 0.0, drone)[0]
        near = difference(view[middle, middle], tile[middle, middle], seen[middle, middle])
        assert near < 0.5 * difference(view, tile, seen)


def test_the_mask_is_the_footprint(image: MapImage) -> None:
    high = replace(EXACT, height_m=40.0)
    _, seen, _ = drone_view(image, 0.0, 0.0, high, np.random.default_rng(1))
    corners = footprint_on_ground(CAMERA, 40.0)
    area = abs(cv2.contourArea(corners.astype(np.float32)))
    assert seen.sum() * GSD**2 == pytest.approx(area, rel=0.05)


def test_beyond_the_map_nothing_is_seen(image: MapImage) -> None:
    tile, covered = reference_tile(image, -180.0, 0.0, EXACT)
    assert covered[:, 66:].all() and not covered[:, :62].any()
    assert not tile[~covered].any()
    view, seen, _ = drone_view(image, -180.0, 0.0, EXACT, np.random.default_rng(0))
    assert not seen[:, :62].any() and seen[:, 66:].any() and not view[~seen].any()
    far, nothing, _ = drone_view(image, 9000.0, 0.0, EXACT, np.random.default_rng(0))
    assert not nothing.any() and not far.any()


def test_the_same_generator_state_gives_the_same_view(image: MapImage) -> None:
    drone = ViewSettings(CAMERA, 120.0, GSD)
    first, second = (drone_view(image, 5.0, 5.0, drone, np.random.default_rng(9)) for _ in range(2))
    other = drone_view(image, 5.0, 5.0, drone, np.random.default_rng(10))
    assert np.array_equal(first[0], second[0]) and first[2] == second[2]
    assert not np.array_equal(first[0], other[0])


def test_relighting_keeps_shape_and_does_not_change_its_input() -> None:
    patch = np.random.default_rng(0).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    before = patch.copy()
    for seed in range(30):
        out = relight(patch, np.random.default_rng(seed))
        assert out.shape == patch.shape and out.dtype == np.uint8
    assert np.array_equal(patch, before)


@pytest.mark.parametrize("pitch", [0.0, 15.0])
def test_footprints_follow_height_and_mount(pitch: float) -> None:
    camera = replace(CAMERA, mount=Mount(pitch_deg=pitch))
    low, high = footprint_on_ground(camera, 50.0), footprint_on_ground(camera, 100.0)
    assert np.allclose(2 * low, high)
    # A positive pitch raises the nose, so that the camera looks ahead: north at heading 0.
    assert (high[:, 1].mean() > 1) == (pitch > 0)


def test_tile_size_grows_with_height_and_matches_a_known_camera() -> None:
    known = Camera(2000, 1125, 1571.0, 1571.0, 999.5, 562.0)
    assert 90 < choose_tile_size(known, 120.0) < 115
    assert choose_tile_size(known, 240.0) == pytest.approx(2 * choose_tile_size(known, 120.0), abs=0.2)


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(MapError, match="not a map image"):
        MapImage.of(np.zeros((4, 4), np.uint8), np.ones((4, 4), bool), 1.0)
