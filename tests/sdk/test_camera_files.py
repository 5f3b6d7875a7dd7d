"""Calibrations of other tools are read as they mean it, and refused where the lens is none of OpenCV's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from cvgl.camera import Camera
from cvgl.camera_files import read_calibration
from cvgl.cli.camera import app
from cvgl.errors import CameraError

MATRIX = np.array([[812.5, 0, 640.25], [0, 810.0, 358.5], [0, 0, 1]])
LENS = (-0.21, 0.05, 0.001, -0.0005, 0.01)


def opencv_file(path: Path, distortion: Any = LENS, **more: float) -> Path:
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", 1280)
    storage.write("image_height", 720)
    for name, value in more.items():
        storage.write(name, value)
    storage.write("camera_matrix", MATRIX)
    storage.write("distortion_coefficients", np.array(distortion, dtype=np.float64).reshape(1, -1))
    storage.release()
    return path


def ros_file(path: Path, **changes: Any) -> Path:
    data = {
        "image_width": 1280,
        "image_height": 720,
        "camera_name": "down",
        "camera_matrix": {"rows": 3, "cols": 3, "data": MATRIX.ravel().tolist()},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": list(LENS)},
        **changes,
    }
    path.write_text(yaml.safe_dump(data))
    return path


EXPECTED = Camera(1280, 720, 812.5, 810.0, 640.25, 358.5, LENS)


@pytest.mark.parametrize("suffix", ["yml", "xml", "json"])
def test_what_opencv_writes_is_read(tmp_path: Path, suffix: str) -> None:
    assert read_calibration(opencv_file(tmp_path / f"camera.{suffix}")) == EXPECTED


def test_what_ros_writes_is_read(tmp_path: Path) -> None:
    assert read_calibration(ros_file(tmp_path / "down.yaml")) == EXPECTED


def test_a_camera_yaml_is_read_with_its_mount(tmp_path: Path) -> None:
    path = tmp_path / "camera.yaml"
    path.write_text(yaml.safe_dump({**EXPECTED.to_dict(), "mount": {"roll_deg": 0, "pitch_deg": 9, "yaw_deg": 0}}))
    assert read_calibration(path).mount.pitch_deg == 9


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ((), ()),
        ((0, 0, 0, 0, 0), ()),
        ((0.1,), (0.1, 0, 0, 0)),
        ((0.1, 0, 0, 0, 0.2), (0.1, 0, 0, 0, 0.2)),
        ((*LENS, 0, 0.3, 0), (*LENS, 0, 0.3, 0)),
        ((*LENS, 0, 0, 0.1, 0, 0, 0, 0), (*LENS, 0, 0, 0.1)),
    ],
)
def test_coefficients_are_kept_as_far_as_they_are_used(tmp_path: Path, given: Any, kept: Any) -> None:
    path = ros_file(tmp_path / "c.yaml", distortion_coefficients={"rows": 1, "cols": len(given), "data": list(given)})
    assert read_calibration(path).distortion == kept


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"distortion_model": "omnidirectional"}, "distortion_model"),
        ({"distortion_model": "equidistant"}, "distortion_coefficients"),
        ({"distortion_model": ["plumb_bob"]}, "distortion_model"),
        ({"distortion_coefficients": {"data": [*LENS, 0, 0, 0, 0.1]}}, "distortion_coefficients"),
        ({"distortion_coefficients": "none"}, "distortion_coefficients"),
        ({"camera_matrix": {"data": [1, 2, 3]}}, "camera_matrix"),
        ({"camera_matrix": {"data": [812, 3, 640, 0, 810, 358, 0, 0, 1]}}, "camera_matrix"),
        ({"camera_matrix": {"data": [float("nan"), 0, 640, 0, 810, 358, 0, 0, 1]}}, "camera_matrix"),
        ({"image_width": None}, "image_width"),
        ({"image_height": -3}, "height"),
    ],
)
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = ros_file(tmp_path / "c.yaml", **changes)
    with pytest.raises(CameraError) as caught:
        read_calibration(path)
    assert (caught.value.field, caught.value.file) == (field, path)


FISHEYE = (-0.012, 0.031, -0.024, 0.006)
EXPECTED_FISHEYE = Camera(1280, 720, 812.5, 810.0, 640.25, 358.5, FISHEYE, model="fisheye")


@pytest.mark.parametrize("suffix", ["yml", "xml", "json"])
def test_a_fisheye_of_opencv_is_read(tmp_path: Path, suffix: str) -> None:
    assert read_calibration(opencv_file(tmp_path / f"c.{suffix}", FISHEYE, fisheye_model=1)) == EXPECTED_FISHEYE


@pytest.mark.parametrize("name", ["equidistant", "fisheye"])
def test_a_fisheye_of_ros_is_read(tmp_path: Path, name: str) -> None:
    lens = {"rows": 1, "cols": 4, "data": list(FISHEYE)}
    path = ros_file(tmp_path / "c.yaml", distortion_model=name, distortion_coefficients=lens)
    assert read_calibration(path) == EXPECTED_FISHEYE


def test_a_fisheye_is_converted_as_one(tmp_path: Path) -> None:
    out = tmp_path / "camera.yaml"
    source = opencv_file(tmp_path / "c.yml", FISHEYE, fisheye_model=1)
    done = CliRunner().invoke(app, ["convert", str(source), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert Camera.from_yaml(out) == EXPECTED_FISHEYE


@pytest.mark.parametrize("text", ["", "%YAML:1.0\n---\nbroken: [", "a: b\n", "{", "<?xml version='1.0'?><nothing/>"])
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(CameraError) as caught:
        read_calibration(path)
    assert caught.value.file == path


def test_the_command_writes_a_camera_yaml(tmp_path: Path) -> None:
    out = tmp_path / "camera.yaml"
    done = CliRunner().invoke(app, ["convert", str(ros_file(tmp_path / "down.yaml")), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert Camera.from_yaml(out) == EXPECTED
