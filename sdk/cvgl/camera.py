"""The camera: intrinsics, lens distortion, mounting, and the ``camera.yaml`` that carries them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray

from cvgl.errors import CameraError
from cvgl.files import atomic_path
from cvgl.geometry import Mount
from cvgl.lens import MODELS, fisheye_angle, fisheye_distort, fisheye_undistort, pinhole_radius

__all__ = ["Camera"]

_LENGTHS = {"pinhole": (0, 4, 5, 8), "fisheye": (0, 4)}
# A pixel whose ray is drawn further away than this (pixels) has none: the iteration that looked for it found no end.
_LOST_PX = 0.5


@dataclass(frozen=True)
class Camera:
    """A pinhole or fisheye camera with OpenCV's distortion models.

    A lens sees where it is one-to-one: as far as its distorted radius grows with the angle off its axis, and a fisheye
    to less than 90 degrees. Beyond, polynomials fold back and would draw what is outside the picture a second time.

    Args:
        width, height: image size the intrinsics belong to, pixels.
        fx, fy: focal lengths, pixels.
        cx, cy: principal point, pixels; the centre of the first pixel is (0, 0).
        distortion: of a pinhole k1, k2, p1, p2[, k3[, k4, k5, k6]] as OpenCV orders them, of a fisheye k1, k2, k3, k4;
            empty for none.
        mount: how the camera sits on the vehicle or its gimbal.
        stabilized: True where a gimbal holds the camera level, so that the vehicle's roll and pitch do not move it.
            Heading always does.
        model: of the lens, "pinhole" or "fisheye" (OpenCV's, equidistant).
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    mount: Mount = field(default_factory=Mount)
    stabilized: bool = True
    model: str = "pinhole"

    def __post_init__(self) -> None:
        for name in ("width", "height", "fx", "fy"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise CameraError("not usable", field=name, found=value, expected="a positive number")
        for name in ("cx", "cy"):
            if not math.isfinite(getattr(self, name)):
                raise CameraError("not usable", field=name, found=getattr(self, name), expected="a number")
        if self.model not in MODELS:
            raise CameraError("unknown lens", field="model", found=self.model, expected=" or ".join(MODELS))
        lengths = _LENGTHS[self.model]
        if len(self.distortion) not in lengths or not all(map(math.isfinite, self.distortion)):
            *few, most = map(str, lengths)
            expected = f"{', '.join(few)} or {most} finite numbers"
            raise CameraError("not usable", field="distortion", found=list(self.distortion), expected=expected)

    @classmethod
    def from_field_of_view(cls, width: int, height: int, horizontal_deg: float) -> Camera:
        """An ideal camera with square pixels, from its horizontal field of view."""
        focal = width / 2 / math.tan(math.radians(horizontal_deg) / 2)
        return cls(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)

    @classmethod
    def from_yaml(cls, path: str | Path) -> Camera:
        """Read ``camera.yaml`` (see DESIGN.md, contracts).

        Raises:
            CameraError: the file is absent, is no YAML mapping, lacks a field, or a field has an unusable value.
        """
        path = Path(path)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CameraError("no such file", file=path) from None
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as reason:
            raise CameraError(f"not readable as YAML: {reason}", file=path) from reason
        return cls.from_dict(data, file=path)

    @classmethod
    def from_dict(cls, data: Any, file: str | Path | None = None) -> Camera:
        """The same from a mapping; ``file`` is named in errors."""
        if not isinstance(data, dict):
            raise CameraError("not a camera", file=file, found=type(data).__name__, expected="a mapping of fields")
        numbers = {name: _number(data, name, file) for name in ("width", "height", "fx", "fy", "cx", "cy")}
        for name in ("width", "height"):
            if not numbers[name].is_integer():
                raise CameraError(
                    "not usable", file=file, field=name, found=numbers[name], expected="a whole number of pixels"
                )
        distortion = data.get("distortion") or ()
        if not isinstance(distortion, (list, tuple)):
            raise CameraError("not usable", file=file, field="distortion", found=distortion, expected="a list")
        mount = data.get("mount") or {}
        if not isinstance(mount, dict) or set(mount) - {"roll_deg", "pitch_deg", "yaw_deg"}:
            raise CameraError(
                "not usable", file=file, field="mount", found=mount, expected="roll_deg, pitch_deg and yaw_deg"
            )
        stabilized = data.get("stabilized", True)
        if not isinstance(stabilized, bool):
            raise CameraError("not usable", file=file, field="stabilized", found=stabilized, expected="true or false")
        model = data.get("model", MODELS[0])
        if not isinstance(model, str):
            raise CameraError("unknown lens", file=file, field="model", found=model, expected=" or ".join(MODELS))
        try:
            return cls(
                width=int(numbers["width"]),
                height=int(numbers["height"]),
                fx=numbers["fx"],
                fy=numbers["fy"],
                cx=numbers["cx"],
                cy=numbers["cy"],
                distortion=tuple(_number({"distortion": value}, "distortion", file) for value in distortion),
                mount=Mount(**{name: _number(mount, name, file) for name in mount}),
                stabilized=stabilized,
                model=model,
            )
        except CameraError as reason:
            if reason.file is not None or file is None:
                raise
            raise CameraError(
                reason.message, file=file, field=reason.field, found=reason.found, expected=reason.expected
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """The fields of ``camera.yaml``."""
        return {
            "width": self.width,
            "height": self.height,
            "fx": self.fx,
            "fy": self.fy,
            "cx": self.cx,
            "cy": self.cy,
            "model": self.model,
            "distortion": list(self.distortion),
            "mount": {
                "roll_deg": self.mount.roll_deg,
                "pitch_deg": self.mount.pitch_deg,
                "yaw_deg": self.mount.yaw_deg,
            },
            "stabilized": self.stabilized,
        }

    def to_yaml(self, path: str | Path) -> None:
        """Write ``camera.yaml`` atomically."""
        with atomic_path(path) as temporary:
            temporary.write_text(yaml.safe_dump(self.to_dict(), sort_keys=False), encoding="utf-8")

    def scaled_to(self, width: int, height: int) -> Camera:
        """The same camera delivering frames of another size.

        Raises:
            CameraError: the size has another aspect ratio (more than 1 % off): that is a crop, not a scaling, and the
                principal point of a crop is unknown.
        """
        if (width, height) == (self.width, self.height):
            return self
        sx, sy = width / self.width, height / self.height
        if abs(sx / sy - 1) > 0.01:
            raise CameraError(
                "the frame has another shape than the camera's",
                field="width, height",
                found=f"{width} x {height}",
                expected=f"{self.width} x {self.height} or a scaling of it",
            )
        # Pixel centres sit at integers, so the image's edge is at -0.5 and that is what a scaling keeps in place.
        return replace(
            self,
            width=width,
            height=height,
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
        )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) intrinsic matrix."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def center(self) -> NDArray[np.float64]:
        """(2,) pixel at the middle of the image (not the principal point)."""
        return np.array([(self.width - 1) / 2, (self.height - 1) / 2])

    @property
    def reach(self) -> float:
        """Largest ideal radius that the lens draws, the tangent of the angle off its axis; infinite for all of them."""
        if self.model == "fisheye":
            angle = fisheye_angle(self.distortion)
            return math.tan(angle) if angle < math.pi / 2 else math.inf
        return pinhole_radius(self.distortion) if any(self.distortion) else math.inf

    def rays(self, pixels: ArrayLike) -> NDArray[np.float64]:
        """Pixels (N, 2) to rays (N, 3) in camera coordinates with z = 1; lens distortion removed.

        NaN for pixels to which the lens draws no ray.
        """
        points = np.asarray(pixels, dtype=np.float64).reshape(-1, 1, 2)
        flat = (points[:, 0] - (self.cx, self.cy)) / (self.fx, self.fy)
        if self.model == "fisheye":
            return np.column_stack([fisheye_undistort(flat, self.distortion), np.ones(len(points))])
        if not any(self.distortion) or not len(points):
            return np.column_stack([flat, np.ones(len(points))])
        # OpenCV's default of five iterations leaves tenths of a pixel at the corners of wide lenses.
        criteria = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 40, 1e-12)
        # OpenCV 5 merged the two functions.
        undistort: Any = getattr(cv2, "undistortPointsIter", cv2.undistortPoints)
        ideal = undistort(points, self.matrix, self._coefficients, R=None, P=None, criteria=criteria)
        rays = np.column_stack([ideal.reshape(-1, 2), np.ones(len(points))])
        rays[~(np.abs(self.project(rays) - points[:, 0]).max(axis=1, initial=0.0) <= _LOST_PX), :2] = np.nan
        return rays

    def project(self, points: ArrayLike) -> NDArray[np.float64]:
        """Points (N, 3) in camera coordinates to pixels (N, 2); lens distortion applied.

        NaN for points that the lens does not see: behind the camera, or where the lens is not one-to-one.
        """
        xyz = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        if self.model == "fisheye":
            return fisheye_distort(xyz, self.distortion) * (self.fx, self.fy) + (self.cx, self.cy)
        if not len(xyz):  # OpenCV takes no empty arrays
            return np.empty((0, 2))
        pixels, _ = cv2.projectPoints(xyz.reshape(-1, 1, 3), np.zeros(3), np.zeros(3), self.matrix, self._coefficients)
        seen = xyz[:, 2] > 0
        if any(self.distortion):
            seen &= np.hypot(xyz[:, 0], xyz[:, 1]) <= self.reach * xyz[:, 2]
        return np.where(seen[:, None], pixels.reshape(-1, 2), np.nan)

    @property
    def _coefficients(self) -> NDArray[np.float64]:
        return np.array(self.distortion or (0.0, 0.0, 0.0, 0.0), dtype=np.float64)


def _number(data: dict[str, Any], name: str, file: str | Path | None) -> float:
    if name not in data:
        raise CameraError("missing field", file=file, field=name, expected="a number")
    value = data[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise CameraError("not a number", file=file, field=name, found=value, expected="a finite number")
    return float(value)
