"""Calibrations that other tools wrote: OpenCV's YAML, XML and JSON, and ROS's ``camera_info`` YAML."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import CameraError

__all__ = ["read_calibration"]

# In OpenCV's order; what is left away at the end is zero.
_LENGTHS = {"pinhole": (0, 4, 5, 8), "fisheye": (0, 4)}
_COEFFICIENTS = {"pinhole": "k1, k2, p1, p2, k3, k4, k5, k6", "fisheye": "k1, k2, k3, k4"}
# ROS's names of OpenCV's lenses. The standard's name of the fisheye is "equidistant"; drivers write the other as well.
_ROS_MODELS = {
    "plumb_bob": "pinhole",
    "rational_polynomial": "pinhole",
    "equidistant": "fisheye",
    "fisheye": "fisheye",
}


def read_calibration(path: str | Path) -> Camera:
    """Read a target calibration, whichever of the known tools wrote it; a ``camera.yaml`` is read as well.

    The camera is taken to look straight down, since such files do not say how it is mounted.

    Raises:
        CameraError: no such file, no known format, or a lens model that is neither OpenCV's pinhole nor its fisheye.
    """
    path = Path(path)
    if not path.is_file():
        raise CameraError("no such file", file=path)
    head = path.read_bytes()[:64].lstrip()
    if head.startswith((b"%YAML:1.0", b"<?xml", b"<opencv_storage", b"{")):
        return _from_opencv(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
        raise CameraError(f"not readable as YAML: {reason}", file=path) from reason
    if isinstance(data, dict) and "camera_matrix" in data:
        return _from_ros(data, path)
    return Camera.from_dict(data, file=path)


def _from_opencv(path: Path) -> Camera:
    try:
        storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_READ)
        opened = storage.isOpened()
    except (cv2.error, SystemError) as reason:
        raise CameraError(f"not readable as OpenCV's file storage: {reason}", file=path) from reason
    if not opened:
        raise CameraError("not readable as OpenCV's file storage", file=path)
    try:
        size = [_node_number(storage, name, path) for name in ("image_width", "image_height")]
        matrix = _node_matrix(storage, ("camera_matrix", "cameraMatrix"), path)
        distortion = _node_matrix(storage, ("distortion_coefficients", "dist_coeffs", "distCoeffs"), path)
        fisheye = storage.getNode("fisheye_model")
        model = "pinhole" if fisheye.empty() or fisheye.real() == 0 else "fisheye"
    finally:
        storage.release()
    return _camera(size[0], size[1], matrix, distortion, model, path)


def _node_number(storage: Any, name: str, path: Path) -> float:
    node = storage.getNode(name)
    if node.empty() or not (node.isInt() or node.isReal()):
        raise CameraError("missing field", file=path, field=name, expected="a number of pixels")
    return float(node.real())


def _node_matrix(storage: Any, names: tuple[str, ...], path: Path) -> NDArray[np.float64]:
    for name in names:
        node = storage.getNode(name)
        if not node.empty():
            matrix = node.mat()
            if matrix is None:
                raise CameraError("not usable", file=path, field=name, expected="a matrix")
            return np.asarray(matrix, dtype=np.float64)
    raise CameraError("missing field", file=path, field=names[0], expected="a matrix")


def _from_ros(data: dict[str, Any], path: Path) -> Camera:
    model = data.get("distortion_model", next(iter(_ROS_MODELS)))
    if not isinstance(model, str) or model not in _ROS_MODELS:
        raise CameraError(
            "another lens model", file=path, field="distortion_model", found=model, expected=" or ".join(_ROS_MODELS)
        )
    sizes = []
    for name in ("image_width", "image_height"):
        value = data.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise CameraError("missing field", file=path, field=name, found=value, expected="a number of pixels")
        sizes.append(float(value))
    arrays = []
    for name in ("camera_matrix", "distortion_coefficients"):
        entry = data.get(name)
        try:
            numbers = np.array(entry["data"], dtype=np.float64)  # type: ignore[index]
        except (TypeError, KeyError, ValueError):
            raise CameraError("not usable", file=path, field=name, expected="rows, cols and data") from None
        arrays.append(numbers)
    return _camera(sizes[0], sizes[1], arrays[0], arrays[1], _ROS_MODELS[model], path)


def _camera(
    width: float, height: float, matrix: NDArray[np.float64], distortion: NDArray[np.float64], model: str, path: Path
) -> Camera:
    if matrix.size != 9 or not np.isfinite(matrix).all():
        raise CameraError(
            "not usable", file=path, field="camera_matrix", found=matrix.shape, expected="nine finite numbers"
        )
    k = matrix.reshape(3, 3)
    if not np.allclose(k[2], (0, 0, 1)) or not math.isclose(k[0, 1], 0.0, abs_tol=1e-6) or abs(k[1, 0]) > 1e-6:
        raise CameraError(
            "not a camera matrix without skew",
            file=path,
            field="camera_matrix",
            found=k.tolist(),
            expected="fx, fy, cx, cy",
        )
    values = distortion.ravel()
    # Longer models (thin prism, tilted sensor) are readable as long as those terms are zero.
    used = np.flatnonzero(values)
    needed = 0 if not len(used) else int(used[-1]) + 1
    length = next((n for n in _LENGTHS[model] if n >= needed), None)
    if length is None or not np.isfinite(values).all():
        raise CameraError(
            "another lens model",
            file=path,
            field="distortion_coefficients",
            found=values.tolist(),
            expected=f"finite {_COEFFICIENTS[model]}, and nothing but zeros after them",
        )
    values = np.pad(values, (0, max(0, length - len(values))))[:length]
    fields = {
        "width": width,
        "height": height,
        "fx": float(k[0, 0]),
        "fy": float(k[1, 1]),
        "cx": float(k[0, 2]),
        "cy": float(k[1, 2]),
        "model": model,
        "distortion": values.tolist(),
    }
    return Camera.from_dict(fields, file=path)
