"""Lenses: OpenCV's fisheye by OpenCV itself, and what no lens sees is not there."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import CameraError
from cvgl.lens import fisheye_angle, pinhole_radius

Array = NDArray[Any]

coefficients = st.tuples(*(st.floats(-bound, bound) for bound in (0.15, 0.05, 0.02, 0.005)))
fisheyes = st.builds(
    lambda f, aspect, cx, cy, k: Camera(640, 480, f, f * aspect, cx, cy, k, model="fisheye"),
    st.floats(180.0, 700.0),
    st.floats(0.95, 1.05),
    st.floats(300.0, 340.0),
    st.floats(225.0, 255.0),
    st.just(()) | coefficients,
)
directions = st.tuples(st.floats(0.0, 89.9), st.floats(0.0, 360.0))


def ray(off_axis_deg: float, around_deg: float) -> Array:
    off, around = np.radians([off_axis_deg, around_deg])
    return np.array([np.sin(off) * np.cos(around), np.sin(off) * np.sin(around), np.cos(off)])


@settings(max_examples=200, deadline=None)
@given(camera=fisheyes, direction=directions)
def test_a_fisheye_projects_as_opencv_s(camera: Camera, direction: tuple[float, float]) -> None:
    point = ray(*direction)
    (found,) = camera.project([point])
    if math.radians(direction[0]) > fisheye_angle(camera.distortion):
        assert np.isnan(found).all()
        return
    k = np.array(camera.distortion or (0.0,) * 4)
    expected, _ = cv2.fisheye.projectPoints(point.reshape(1, 1, 3), np.zeros(3), np.zeros(3), camera.matrix, k)
    np.testing.assert_allclose(found, expected[0, 0], atol=1e-8)


@settings(max_examples=200, deadline=None)
@given(camera=fisheyes, direction=directions)
def test_a_fisheye_s_pixel_is_its_ray_s(camera: Camera, direction: tuple[float, float]) -> None:
    # Close to where the lens folds, a pixel hardly tells one ray from the next.
    assume(math.radians(direction[0]) < 0.98 * fisheye_angle(camera.distortion))
    point = ray(*direction)
    (found,) = camera.rays(camera.project([point]))
    np.testing.assert_allclose(found / np.linalg.norm(found), point, atol=1e-8)
    assert found[2] == 1.0


@settings(max_examples=100, deadline=None)
@given(camera=fisheyes, pixels=st.lists(st.tuples(st.floats(-0.5, 639.5), st.floats(-0.5, 479.5)), min_size=1))
def test_a_fisheye_s_rays_are_opencv_s(camera: Camera, pixels: list[tuple[float, float]]) -> None:
    found = camera.rays(pixels)
    k = np.array(camera.distortion or (0.0,) * 4)
    criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 100, 1e-12)
    points = np.array(pixels).reshape(-1, 1, 2)
    expected = cv2.fisheye.undistortPoints(points, camera.matrix, k, criteria=criteria).reshape(-1, 2)
    # OpenCV's own iteration may end far off where the lens bends strongly: compared where it projects back.
    rays = np.column_stack([expected, np.ones(len(expected))])
    back = np.abs(camera.project(rays) - pixels).max(axis=1) < 1e-7
    steep = np.hypot(*expected.T) < 5.0
    compared = back & steep & np.isfinite(found).all(axis=1)
    np.testing.assert_allclose(found[compared, :2], expected[compared], rtol=1e-6, atol=1e-6)
    if not any(camera.distortion):
        drawn = np.hypot(*((np.array(pixels) - (camera.cx, camera.cy)) / (camera.fx, camera.fy)).T)
        np.testing.assert_array_equal(np.isfinite(found).all(axis=1), drawn < math.pi / 2)


@pytest.mark.parametrize(
    ("off_axis_deg", "radius_px"), [(0.0, 0.0), (30.0, 100 * math.pi / 6), (60.0, 100 * math.pi / 3)]
)
def test_an_ideal_fisheye_s_radius_is_the_angle(off_axis_deg: float, radius_px: float) -> None:
    camera = Camera(400, 400, 100.0, 100.0, 200.0, 200.0, model="fisheye")
    np.testing.assert_allclose(camera.project([ray(off_axis_deg, 0.0)]), [[200.0 + radius_px, 200.0]], atol=1e-9)


@pytest.mark.parametrize(
    ("distortion", "angle"),
    [
        ((), math.pi / 2),
        ((0.1, 0.0, 0.0, 0.0), math.pi / 2),
        ((-1 / 3, 0.0, 0.0, 0.0), 1.0),  # 1 - t^2 = 0
        ((0.0, -1 / 5, 0.0, 0.0), 1.0),  # 1 - t^4 = 0
    ],
)
def test_where_a_fisheye_folds(distortion: tuple[float, ...], angle: float) -> None:
    assert fisheye_angle(distortion) == pytest.approx(angle, abs=1e-9)


@pytest.mark.parametrize(
    ("distortion", "radius"),
    [
        ((), 8.0),
        ((-1 / 3, 0.0, 0.0, 0.0), 1.0),  # 1 - r^2 = 0
        ((0.0, -1 / 5, 0.0, 0.0), 1.0),
        ((0.0, 0.0, 0.0, 0.0, -1 / 7), 1.0),
        ((0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0), 1.0),  # r / (1 + r^2)
    ],
)
def test_where_a_pinhole_folds(distortion: tuple[float, ...], radius: float) -> None:
    assert pinhole_radius(distortion) == pytest.approx(radius, abs=1e-9)


FOLDING = Camera(640, 480, 300.0, 300.0, 319.5, 239.5, (-0.4, 0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    "camera", [FOLDING, Camera(640, 480, 190.0, 190.0, 319.5, 239.5, (-0.2,) * 4, model="fisheye")]
)
def test_beyond_the_fold_nothing_is_seen(camera: Camera) -> None:
    reach = camera.reach
    inside, outside = (np.array([[0.99 * reach, 0.0, 1.0]]), np.array([[1.01 * reach, 0.0, 1.0]]))
    assert np.isfinite(camera.project(inside)).all()
    assert np.isnan(camera.project(outside)).all()
    most = camera.project([[0.9999999 * reach, 0.0, 1.0]])[0, 0]
    assert most < 639.5, "the lens draws nothing at the picture's right edge"
    assert np.isnan(camera.rays([[639.0, 239.5]])[0, :2]).all()
    assert np.isfinite(camera.rays([[most - 5.0, 239.5]])).all()


@pytest.mark.parametrize("camera", [FOLDING, Camera(640, 480, 300.0, 300.0, 319.5, 239.5, model="fisheye")])
@pytest.mark.parametrize("point", [(0.1, 0.0, -1.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0)])
def test_nothing_is_seen_behind(camera: Camera, point: tuple[float, float, float]) -> None:
    assert np.isnan(camera.project([point])).all()


@settings(max_examples=50, deadline=None)
@given(camera=fisheyes, factor=st.floats(0.2, 3.0))
def test_a_scaled_fisheye_sees_the_same(camera: Camera, factor: float) -> None:
    size = round(640 * factor), round(480 * factor)
    assume(abs(size[0] / size[1] / (640 / 480) - 1) < 0.01)
    scaled = camera.scaled_to(*size)
    fractions = np.array([[0.5, 0.5], [0.3, 0.6], [0.55, 0.4]])
    np.testing.assert_allclose(
        scaled.rays(fractions * size - 0.5), camera.rays(fractions * (640, 480) - 0.5), atol=1e-6
    )


def test_a_fisheye_s_yaml_says_so(tmp_path: Any) -> None:
    camera = Camera(640, 480, 300.0, 299.0, 320.0, 240.0, (0.1, 0.02, -0.01, 0.002), model="fisheye")
    camera.to_yaml(tmp_path / "camera.yaml")
    assert "model: fisheye" in (tmp_path / "camera.yaml").read_text()
    assert Camera.from_yaml(tmp_path / "camera.yaml") == camera
    assert Camera.from_dict({k: v for k, v in camera.to_dict().items() if k != "model"}).model == "pinhole"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": "omnidirectional"}, "model"),
        ({"model": 1}, "model"),
        ({"distortion": [0.1] * 5}, "distortion"),
        ({"distortion": [0.1] * 8}, "distortion"),
    ],
)
def test_other_lenses_are_refused(change: dict[str, Any], field: str) -> None:
    data = Camera(640, 480, 300.0, 299.0, 320.0, 240.0, (0.0,) * 4, model="fisheye").to_dict()
    with pytest.raises(CameraError) as caught:
        Camera.from_dict({**data, **change}, file="camera.yaml")
    assert (caught.value.field, str(caught.value.file)) == (field, "camera.yaml")
