"""Rectification puts the ground where it is: north up, at its scale, whatever the attitude and the lens."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.geometry import Mount, camera_to_enu
from cvgl.rectify import Patch, ground_offset, rectify, rectify_again, view_maps

Array = NDArray[Any]

IDEAL = Camera(640, 480, 520.0, 518.0, 322.5, 236.0)
LENS = Camera(640, 480, 520.0, 518.0, 322.5, 236.0, (-0.12, 0.02, 0.0008, -0.0005, 0.002))
CENTERED = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
SIZE = 160

cameras = st.sampled_from([IDEAL, LENS])
headings = st.floats(0.0, 360.0)
tilts = st.floats(-25.0, 25.0)
heights = st.floats(30.0, 400.0)


def patch_gsd(height: float) -> float:
    """m/px at which a patch of SIZE is a little smaller than what a level camera sees."""
    return 0.8 * height * 480 / 518 / SIZE


def seen_from(camera: Camera, rotation: Array, height: float, ground: Array) -> Array:
    """Pixels (N, 2) of ground points (N, 2), metres east and north of the point below the camera."""
    down = np.column_stack([ground, np.full(len(ground), -height)])
    return camera.project(down @ rotation)


def place_of(patch: Patch, pixels: Array) -> Array:
    """Metres east and north of the point below the camera at pixels (N, 2) of a patch."""
    half = (patch.mask.shape[0] - 1) / 2
    return (np.asarray(pixels) - half) * (patch.gsd, -patch.gsd) + patch.offset


def spot_center(image: Array, near: Array, radius: int) -> Array:
    """Centre of brightness (x, y) around a pixel."""
    x, y = np.round(near).astype(int)
    rows, columns = slice(y - radius, y + radius + 1), slice(x - radius, x + radius + 1)
    v, u = np.mgrid[rows, columns]
    weight = image[rows, columns].astype(np.float64)
    assert weight.sum() > 0, "the landmark is not in the patch"
    return np.array([(u * weight).sum(), (v * weight).sum()]) / weight.sum()


def photo_of_disc(camera: Camera, rotation: Array, height: float, middle: Array, radius: float) -> Array:
    """A photo of a white disc that lies on black ground, drawn by its outline."""
    around = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    outline = middle + radius * np.column_stack([np.cos(around), np.sin(around)])
    image = np.zeros((camera.height, camera.width), np.uint8)
    pixels = np.round(seen_from(camera, rotation, height, outline) * 256).astype(np.int32)
    cv2.fillPoly(image, [pixels.reshape(-1, 1, 2)], 255, cv2.LINE_AA, 8)
    return image


@settings(max_examples=60, deadline=None)
@given(
    camera=cameras,
    heading=headings,
    pitch=tilts,
    roll=tilts,
    height=heights,
    at=st.tuples(st.floats(20.0, SIZE - 20.0), st.floats(20.0, SIZE - 20.0)),
)
def test_a_landmark_lands_where_it_lies(
    camera: Camera, heading: float, pitch: float, roll: float, height: float, at: tuple[float, float]
) -> None:
    rotation = camera_to_enu(Mount(), heading, pitch, roll)
    gsd = patch_gsd(height)
    offset = view_maps(camera, [rotation], height, gsd, SIZE)[0][0]
    half = (SIZE - 1) / 2
    landmark = (np.array(at) - half) * (gsd, -gsd) + offset
    pixel = seen_from(camera, rotation, height, landmark[None])[0]
    assume(40 < pixel[0] < camera.width - 40 and 40 < pixel[1] < camera.height - 40)
    photo = photo_of_disc(camera, rotation, height, landmark, 4.0 * gsd)
    patch = rectify(photo, camera, rotation, height, gsd, SIZE, 1)
    found = spot_center(patch.image, np.array(at), 9)
    assert np.linalg.norm(found - at) < 0.3


@settings(max_examples=60, deadline=None)
@given(camera=cameras, heading=headings, pitch=tilts, roll=tilts, height=heights)
def test_patch_pixels_are_ground_points(
    camera: Camera, heading: float, pitch: float, roll: float, height: float
) -> None:
    rotation = camera_to_enu(Mount(), heading, pitch, roll)
    photo = np.zeros((camera.height, camera.width), np.uint8)
    patch = rectify(photo, camera, rotation, height, patch_gsd(height), SIZE, 1)
    corners = np.array([[0, 0], [SIZE - 1, 0], [0, SIZE - 1], [SIZE - 1, SIZE - 1], [20, 140], [79.5, 79.5]])
    rays = np.column_stack([corners, np.ones(len(corners))]) @ patch.to_camera.T
    expected = seen_from(camera, rotation, height, place_of(patch, corners))
    np.testing.assert_allclose(camera.project(rays), expected, atol=1e-6)
    np.testing.assert_allclose(expected[-1], camera.center if patch.aim is None else patch.aim, atol=1e-3)


def test_a_level_camera_heading_east_sees_north_on_its_left() -> None:
    photo = np.zeros((480, 640, 3), np.uint8)
    photo[:240, :320] = (255, 0, 0)  # upper left: ahead and left, that is east and north
    photo[240:, 320:] = (0, 0, 255)  # lower right: behind and right, that is west and south
    patch = rectify(photo, CENTERED, camera_to_enu(Mount(), 90.0), 100.0, 0.5, 120)
    assert (patch.mask == 255).all()
    for (row, column), colour in {(20, 100): (255, 0, 0), (100, 20): (0, 0, 255), (20, 20): (0, 0, 0)}.items():
        assert tuple(patch.image[row, column]) == colour


@pytest.mark.parametrize("height", [50.0, 100.0, 250.0])
def test_scale_is_the_ground_s(height: float) -> None:
    metres = 20.0
    half = metres / 2 / height * 520
    photo = np.zeros((480, 640), np.uint8)
    first, last = ((round(319.5 + sign * half), round(239.5 + sign * half)) for sign in (-1, 1))
    cv2.rectangle(photo, first, last, 255, -1)
    patch = rectify(photo, CENTERED, camera_to_enu(Mount(), 0.0), height, 0.25, 200)
    assert (patch.image > 127).sum() * 0.25**2 == pytest.approx(metres**2, rel=0.05)


@pytest.mark.parametrize("shape", [(480, 640), (480, 640, 3)])
def test_outside_the_frame_is_black_and_masked(shape: tuple[int, ...]) -> None:
    patch = rectify(np.full(shape, 200, np.uint8), CENTERED, camera_to_enu(Mount(), 45.0), 100.0, 1.0, 200)
    assert patch.image.shape == (200, 200, *shape[2:])
    assert patch.mask.shape == (200, 200)
    assert set(np.unique(patch.mask)) == {0, 255}
    assert (patch.image[patch.mask == 0] == 0).all()
    assert (patch.image[patch.mask == 255] == 200).all()
    # 640 x 480 pixels of 100 / 520 m each.
    assert np.count_nonzero(patch.mask) == pytest.approx(640 * 480 * (100 / 520) ** 2, rel=0.02)


@pytest.mark.parametrize(
    ("heading", "pitch", "roll", "direction"),
    [
        (0, 0, 0, (0, 0)),
        (0, 10, 0, (0, 1)),
        (90, 10, 0, (1, 0)),
        (0, 0, 10, (-1, 0)),
        (180, 0, 10, (1, 0)),
        (225, 10, 0, (-(0.5**0.5), -(0.5**0.5))),
    ],
)
def test_ground_offset_of_a_leaning_camera(
    heading: float, pitch: float, roll: float, direction: tuple[float, float]
) -> None:
    offset = ground_offset(CENTERED, camera_to_enu(Mount(), heading, pitch, roll), 120.0)
    np.testing.assert_allclose(offset, np.array(direction) * 120.0 * np.tan(np.radians(10)), atol=1e-9)


def test_ground_offset_is_of_the_image_s_middle_not_of_the_principal_point() -> None:
    shifted = Camera(640, 480, 500.0, 500.0, 369.5, 239.5)  # the axis pierces the image 50 px right of its middle
    offset = ground_offset(shifted, camera_to_enu(Mount(), 0.0), 100.0)
    np.testing.assert_allclose(offset, (-10.0, 0.0), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(heading=headings, pitch=tilts, roll=tilts, height=heights, factor=st.floats(0.1, 10.0))
def test_ground_offset_grows_with_height(
    heading: float, pitch: float, roll: float, height: float, factor: float
) -> None:
    rotation = camera_to_enu(Mount(), heading, pitch, roll)
    np.testing.assert_allclose(
        ground_offset(LENS, rotation, height * factor), factor * ground_offset(LENS, rotation, height), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("pitch", "roll", "seen"),
    [
        (59.5, 0, True),
        (0, -59.5, True),
        (60.5, 0, False),
        (0, 60.5, False),
        (45, 46, False),
        (90, 0, False),
        (180, 0, False),
    ],
)
def test_beyond_sixty_degrees_off_nadir_is_refused(pitch: float, roll: float, seen: bool) -> None:
    rotation = camera_to_enu(Mount(), 30.0, pitch, roll)
    photo = np.zeros((480, 640), np.uint8)
    if seen:
        rectify(photo, CENTERED, rotation, 100.0, 1.0, 64)
        return
    for look in (
        lambda: ground_offset(CENTERED, rotation, 100.0),
        lambda: rectify(photo, CENTERED, rotation, 100.0, 1.0, 64),
    ):
        with pytest.raises(FrameError, match="degrees off nadir") as caught:
            look()
        assert caught.value.field == "attitude"


def textured(seed: int) -> Array:
    noise = cv2.GaussianBlur(np.random.default_rng(seed).standard_normal((480, 640)), (0, 0), 6.0)
    return np.clip(128 + 45 * noise / noise.std(), 1, 255).astype(np.uint8)


@settings(max_examples=25, deadline=None)
@given(
    camera=cameras,
    heading=headings,
    turn=st.floats(-10.0, 10.0),
    tilt=st.tuples(st.floats(-5.0, 5.0), st.floats(-5.0, 5.0)),
    stretch=st.floats(0.95, 1.05),
    seed=st.integers(0, 3),
)
def test_a_patch_made_again_is_the_patch_made_from_the_frame(
    camera: Camera, heading: float, turn: float, tilt: tuple[float, float], stretch: float, seed: int
) -> None:
    height, photo = 100.0, textured(seed)
    first = rectify(photo, camera, camera_to_enu(Mount(), heading), height, 0.5, SIZE, 1)
    rotation = camera_to_enu(Mount(), heading + turn, *tilt)
    again = rectify_again(first, camera, rotation, height * stretch)
    scratch = rectify(photo, camera, rotation, height * stretch, 0.5, SIZE, 1)
    np.testing.assert_allclose(again.offset, scratch.offset)
    np.testing.assert_allclose(again.to_camera, scratch.to_camera)
    assert again.gsd == scratch.gsd
    # The second interpolation blends what is seen with the black beside it: compared where the neighbours are seen too.
    both = cv2.bitwise_and(again.mask, scratch.mask)
    both = cv2.erode(both, np.ones((5, 5), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0
    assert both.mean() > 0.5
    difference = np.abs(again.image.astype(int) - scratch.image.astype(int))[both]
    assert difference.mean() < 2.0
    assert difference.max() < 16


def test_a_patch_made_again_unchanged_is_the_same() -> None:
    rotation = camera_to_enu(Mount(), 33.0, 4.0, -3.0)
    patch = rectify(textured(0), LENS, rotation, 90.0, 0.5, SIZE)
    again = rectify_again(patch, LENS, rotation, 90.0)
    np.testing.assert_array_equal(again.image, patch.image)
    np.testing.assert_array_equal(again.mask, patch.mask)


def test_a_patch_cannot_be_made_again_towards_the_horizon() -> None:
    patch = rectify(textured(0), CENTERED, camera_to_enu(Mount(), 0.0), 90.0, 0.5, SIZE)
    with pytest.raises(FrameError, match="does not look at the ground"):
        rectify_again(patch, CENTERED, camera_to_enu(Mount(), 0.0, 75.0), 90.0)
