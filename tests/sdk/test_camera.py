"""The camera: pixels to rays and back, and a ``camera.yaml`` that is either understood or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl.camera import Camera
from cvgl.errors import CameraError
from cvgl.geometry import Mount

PLAIN = Camera(640, 480, 520.0, 518.0, 321.5, 238.0)
GOOD: dict[str, Any] = {
    "width": 640,
    "height": 480,
    "fx": 520.0,
    "fy": 518.0,
    "cx": 321.5,
    "cy": 238.0,
    "distortion": [-0.2, 0.05, 0.001, -0.002],
    "mount": {"roll_deg": 0.5, "pitch_deg": -3.0, "yaw_deg": 90.0},
    "stabilized": False,
}

coefficients = st.builds(
    lambda k1, k2, p1, p2, k3, k4, count: (k1, k2, p1, p2, k3, k4, 0.0, 0.0)[:count],
    *(st.floats(-bound, bound) for bound in (0.12, 0.03, 0.002, 0.002, 0.005, 0.05)),
    st.sampled_from([0, 4, 5, 8]),
)
cameras = st.builds(
    lambda f, aspect, cx, cy, distortion: Camera(640, 480, f, f * aspect, cx, cy, distortion),
    st.floats(450.0, 1500.0),
    st.floats(0.95, 1.05),
    st.floats(300.0, 340.0),
    st.floats(225.0, 255.0),
    coefficients,
)
pixels = st.lists(st.tuples(st.floats(-0.5, 639.5), st.floats(-0.5, 479.5)), min_size=1, max_size=8)


@settings(deadline=None)
@given(camera=cameras, points=pixels)
def test_rays_and_project_undo_each_other(camera: Camera, points: list[tuple[float, float]]) -> None:
    rays = camera.rays(points)
    assert rays.shape == (len(points), 3)
    assert (rays[:, 2] == 1.0).all()
    np.testing.assert_allclose(camera.project(rays), points, atol=1e-3)


@settings(deadline=None)
@given(camera=cameras, points=pixels, scale=st.floats(0.1, 1000.0))
def test_how_far_along_its_ray_a_point_lies_does_not_matter(
    camera: Camera, points: list[tuple[float, float]], scale: float
) -> None:
    rays = camera.rays(points)
    np.testing.assert_allclose(camera.project(scale * rays), camera.project(rays), atol=1e-6)


@pytest.mark.parametrize(
    ("pixel", "ray"),
    [((321.5, 238.0), (0, 0, 1)), ((841.5, 238.0), (1, 0, 1)), ((321.5, 238.0 - 518.0), (0, -1, 1))],
)
def test_pinhole(pixel: tuple[float, float], ray: tuple[float, float, float]) -> None:
    np.testing.assert_allclose(PLAIN.rays([pixel]), [ray], atol=1e-12)
    np.testing.assert_allclose(PLAIN.project([ray]), [pixel], atol=1e-9)


def test_barrel_distortion_draws_the_corners_in() -> None:
    barrel = Camera(640, 480, 520.0, 520.0, 319.5, 239.5, (-0.2, 0.0, 0.0, 0.0))
    assert barrel.project([[0.5, 0.0, 1.0]])[0, 0] == pytest.approx(319.5 + 520 * 0.5 * (1 - 0.2 * 0.25))


def test_field_of_view() -> None:
    camera = Camera.from_field_of_view(800, 600, 90.0)
    edges = camera.rays([[-0.5, 299.5], [799.5, 299.5]])
    np.testing.assert_allclose(edges[:, 0], [-1.0, 1.0])
    assert camera.fx == camera.fy
    np.testing.assert_array_equal(camera.center, [399.5, 299.5])


def write(path: Path, data: Any) -> Path:
    path.write_text(data if isinstance(data, str) else yaml.safe_dump(data), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "camera",
    [
        PLAIN,
        Camera(4000, 3000, 2801.25, 2799.5, 1999.5, 1499.5, (-0.1, 0.02, 1e-4, -1e-5, 0.003), Mount(1.0, 2.0, -90.0)),
        Camera(640, 480, 500.0, 500.0, 320.0, 240.0, (0.1,) * 8, Mount(pitch_deg=20.0), stabilized=False),
    ],
)
def test_yaml_round_trip(camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    camera.to_yaml(path)
    assert Camera.from_yaml(path) == camera
    assert list(tmp_path.iterdir()) == [path]


def test_yaml_says_all(tmp_path: Path) -> None:
    camera = Camera.from_yaml(write(tmp_path / "camera.yaml", GOOD))
    assert camera == Camera(
        640, 480, 520.0, 518.0, 321.5, 238.0, (-0.2, 0.05, 0.001, -0.002), Mount(0.5, -3.0, 90.0), False
    )


def test_lens_mount_and_gimbal_may_be_left_out(tmp_path: Path) -> None:
    needed = {name: GOOD[name] for name in ("width", "height", "fx", "fy", "cx", "cy")}
    assert Camera.from_yaml(write(tmp_path / "camera.yaml", needed)) == PLAIN
    part = {**needed, "mount": {"yaw_deg": 90}, "distortion": None}
    assert Camera.from_yaml(write(tmp_path / "part.yaml", part)).mount == Mount(yaw_deg=90.0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        *(({name: None}, name) for name in ("width", "height", "fx", "fy", "cx", "cy")),
        ({"width": "640"}, "width"),
        ({"width": 0}, "width"),
        ({"width": float("inf")}, "width"),
        ({"height": float("nan")}, "height"),
        ({"height": -480}, "height"),
        ({"height": True}, "height"),
        ({"width": 640.5}, "width"),
        ({"fx": -520.0}, "fx"),
        ({"fx": float("nan")}, "fx"),
        ({"fy": float("inf")}, "fy"),
        ({"cx": float("nan")}, "cx"),
        ({"cy": [238.0]}, "cy"),
        ({"distortion": 0.1}, "distortion"),
        ({"distortion": [0.1, 0.2]}, "distortion"),
        ({"distortion": [0.1] * 12}, "distortion"),
        ({"distortion": [0.1, 0.2, "p1", 0.0]}, "distortion"),
        ({"distortion": [0.1, 0.2, 0.0, float("nan")]}, "distortion"),
        ({"mount": [0, 0, 90]}, "mount"),
        ({"mount": {"yaw": 90}}, "mount"),
        ({"mount": {"yaw_deg": "east"}}, "yaw_deg"),
        ({"mount": {"pitch_deg": float("nan")}}, "pitch_deg"),
        ({"mount": {"roll_deg": float("inf")}}, "roll_deg"),
        ({"stabilized": "yes"}, "stabilized"),
        ({"stabilized": 1}, "stabilized"),
    ],
)
def test_unusable_fields_are_named_with_their_file(change: dict[str, Any], field: str, tmp_path: Path) -> None:
    path = write(tmp_path / "camera.yaml", {**GOOD, **change})
    with pytest.raises(CameraError) as caught:
        Camera.from_yaml(path)
    assert caught.value.file == path
    assert caught.value.field == field
    assert caught.value.expected


@pytest.mark.parametrize("field", ["width", "height", "fx", "fy", "cx", "cy"])
def test_missing_fields_are_named(field: str, tmp_path: Path) -> None:
    path = write(tmp_path / "camera.yaml", {name: value for name, value in GOOD.items() if name != field})
    with pytest.raises(CameraError, match=f"{field}: missing field"):
        Camera.from_yaml(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not a camera"),
        ("- 640\n- 480\n", "not a camera"),
        ("just words", "not a camera"),
        ("width: [640", "not readable as YAML"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
    ],
)
def test_what_is_no_camera_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "camera.yaml", content)
    with pytest.raises(CameraError, match=message) as caught:
        Camera.from_yaml(path)
    assert caught.value.file == path


def test_absent_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="no such file"):
        Camera.from_yaml(tmp_path / "camera.yaml")
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(CameraError, match="not readable as YAML"):
        Camera.from_yaml(tmp_path / "photo.jpg")


@pytest.mark.parametrize("size", [(320, 240), (1280, 960), (160, 120), (960, 720), (1000, 750), (800, 602)])
def test_scaled_camera_sees_the_same(size: tuple[int, int]) -> None:
    camera = Camera(640, 480, 520.0, 518.0, 330.0, 236.0, (-0.2, 0.05, 0.001, -0.002))
    scaled = camera.scaled_to(*size)
    assert (scaled.width, scaled.height) == size
    # The edges of the image stay its edges, and so does every fraction between them.
    fractions = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.2, 0.9], [1.0, 1.0]])
    rays = camera.rays(fractions * (640, 480) - 0.5)
    np.testing.assert_allclose(scaled.rays(fractions * size - 0.5), rays, atol=1e-6)


def test_scaled_camera_fits_the_scaled_photo() -> None:
    spot = np.zeros((480, 640), np.float32)
    cv2.circle(spot, (401, 122), 12, 1.0, -1)
    small = cv2.resize(spot, (160, 120), interpolation=cv2.INTER_AREA)
    v, u = np.mgrid[:120, :160]
    found = np.array([(u * small).sum(), (v * small).sum()]) / small.sum()
    np.testing.assert_allclose(PLAIN.scaled_to(160, 120).rays([found]), PLAIN.rays([[401, 122]]), atol=1e-4)


def test_own_size_changes_nothing() -> None:
    assert PLAIN.scaled_to(640, 480) is PLAIN


@pytest.mark.parametrize("size", [(480, 640), (640, 360), (1920, 1080), (640, 470)])
def test_a_crop_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(CameraError, match=f"found '{size[0]} x {size[1]}', expected 640 x 480"):
        PLAIN.scaled_to(*size)
