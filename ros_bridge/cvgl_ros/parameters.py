"""What can be set about the bridge: one dataclass, one YAML layout (that of ROS), for both transports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cvgl.errors import CvglError

__all__ = ["LIVE", "ParameterError", "Parameters", "read_parameters"]

_CHOICES = {
    "image_transport": ("raw", "compressed"),
    "attitude_source": ("imu", "odometry", "none"),
    "heading_source": ("imu", "odometry", "heading", "none"),
    "height_source": ("range", "height", "odometry", "altitude"),
    "altitude_source": ("none", "topic", "constant", "ground", "planar"),
    "mode": ("continuous", "trigger"),
    "least_status": ("refined", "coarse"),
    "output_reliability": ("reliable", "best_effort"),
}
# Lowest and highest values.
_BOUNDS: dict[str, tuple[float, float]] = {
    "threads": (0, 64),
    "output_depth": (1, 1000),
    "map_origin_latitude": (-90.0, 90.0),
    "map_origin_longitude": (-180.0, 180.0),
    "map_origin_altitude_m": (-12_000.0, 100_000.0),
    "heading_offset_deg": (-360.0, 360.0),
    "height_offset_m": (-10_000.0, 10_000.0),
    "altitude_ellipsoid_m": (-12_000.0, 100_000.0),
    "ground_ellipsoid_m": (-12_000.0, 10_000.0),
    "altitude_sigma_m": (0.01, 10_000.0),
    "height_sigma_m": (0.01, 10_000.0),
    "max_telemetry_age_s": (0.001, 60.0),
    "telemetry_wait_s": (0.0, 5.0),
    "clock_jump_s": (0.1, 3600.0),
    "camera_delay_s": (0.0, 2.0),
    "camera_timeout_s": (0.1, 3600.0),
    "diagnostics_period_s": (0.1, 60.0),
    "max_image_megapixels": (0.01, 500.0),
    "prior_sigma_max_m": (1.0, 1e6),
    "debug_image_period_s": (0.0, 3600.0),
}
_MAY_BE_NAN = {"map_origin_latitude", "map_origin_longitude", "altitude_ellipsoid_m", "altitude_sigma_m"}
_MAY_BE_NAN |= {"ground_ellipsoid_m", "height_sigma_m"}

#: Parameters that take effect while the bridge runs; the others need a restart.
LIVE = frozenset(
    {
        "mode",
        "least_status",
        "heading_offset_deg",
        "height_offset_m",
        "altitude_ellipsoid_m",
        "altitude_sigma_m",
        "ground_ellipsoid_m",
        "height_sigma_m",
        "telemetry_wait_s",
        "camera_timeout_s",
        "max_image_megapixels",
        "prior_sigma_max_m",
        "debug_image",
        "debug_image_period_s",
    }
)


class ParameterError(CvglError, ValueError):
    """A parameter that cannot be used."""


@dataclass(frozen=True)
class Parameters:
    """All parameters of the bridge; each is explained in ``localizer.yaml``.

    Raises:
        ParameterError: names the parameter, what was found and what was expected.
    """

    mission: str = ""
    threads: int = 0
    tracking: bool = True
    mode: str = "continuous"
    least_status: str = "coarse"

    frame_id: str = "base_link"
    map_frame: str = "map"
    map_origin_latitude: float = math.nan
    map_origin_longitude: float = math.nan
    map_origin_altitude_m: float = 0.0
    publish_tf: bool = False

    camera_source: str = ""
    camera_delay_s: float = 0.0
    image_transport: str = "raw"
    use_camera_info: bool = False
    max_image_megapixels: float = 50.0
    attitude_source: str = "imu"
    heading_source: str = "imu"
    heading_offset_deg: float = 0.0
    height_source: str = "range"
    height_offset_m: float = 0.0
    height_sigma_m: float = math.nan

    altitude_source: str = "none"
    altitude_ellipsoid_m: float = math.nan
    ground_ellipsoid_m: float = math.nan
    altitude_sigma_m: float = math.nan

    max_telemetry_age_s: float = 0.5
    telemetry_wait_s: float = 0.1
    clock_jump_s: float = 1.0
    prior_sigma_max_m: float = 5000.0

    output_reliability: str = "reliable"
    output_depth: int = 10
    camera_timeout_s: float = 2.0
    diagnostics_period_s: float = 1.0
    debug_image: bool = False
    debug_image_period_s: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = _converted(field, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            _check_value(field.name, value)
        self._check_together()

    def _check_together(self) -> None:
        for name in ("frame_id", "map_frame"):
            text = getattr(self, name)
            if not text or text.startswith("/") or any(c.isspace() for c in text):
                raise ParameterError("not a frame", field=name, found=text, expected="a name without spaces or slash")
        if self.max_telemetry_age_s > self.clock_jump_s:
            # Telemetry from before a clock was set back would pass for that of now.
            raise ParameterError(
                "too long",
                field="max_telemetry_age_s",
                found=self.max_telemetry_age_s,
                expected=f"at most clock_jump_s, {self.clock_jump_s:g}",
            )
        if math.isnan(self.map_origin_latitude) != math.isnan(self.map_origin_longitude):
            raise ParameterError(
                "half an origin", field="map_origin_latitude", expected="both latitude and longitude, or neither"
            )
        needed = {
            "none": (),
            "planar": (),
            "topic": ("altitude_sigma_m",),
            "constant": ("altitude_ellipsoid_m", "altitude_sigma_m"),
            "ground": ("ground_ellipsoid_m", "altitude_sigma_m", "height_sigma_m"),
        }[self.altitude_source]
        if self.height_source == "altitude":
            needed = (*needed, "ground_ellipsoid_m")
            if self.altitude_source == "ground":
                raise ParameterError(
                    "goes in a circle",
                    field="altitude_source",
                    found="ground",
                    expected="topic, where height_source is altitude",
                )
        for name in needed:
            if math.isnan(getattr(self, name)):
                raise ParameterError(
                    "not set",
                    field=name,
                    expected=f"metres, as altitude_source is {self.altitude_source} "
                    f"and height_source is {self.height_source}",
                )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str | Path | None = None) -> Parameters:
        """Parameters by name; absent ones keep their defaults.

        Raises:
            ParameterError: an unknown name or an unusable value.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise ParameterError("unknown", file=file, field=str(name), expected=", ".join(sorted(known)))
        try:
            return cls(**{str(name): value for name, value in values.items()})
        except ParameterError as error:
            if error.file is not None or file is None:
                raise
            raise ParameterError(
                error.message, file=file, field=error.field, found=error.found, expected=error.expected
            ) from None

    def changed_to(self, other: Parameters) -> frozenset[str]:
        """Names of the parameters that ``other`` sets differently."""
        return frozenset(
            field.name
            for field in dataclasses.fields(self)
            if repr(getattr(self, field.name)) != repr(getattr(other, field.name))
        )


def read_parameters(path: str | Path, node: str = "localizer") -> dict[str, Any]:
    """The values of a parameter file in ROS layout: ``/**`` first, then the node's own section over it.

    Raises:
        ParameterError: no such file, no YAML, or another layout.
    """
    path = Path(path)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ParameterError("no such file", file=path) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as reason:
        raise ParameterError(f"not readable as YAML: {reason}", file=path) from reason
    if not isinstance(data, dict):
        raise ParameterError("not a parameter file", file=path, found=type(data).__name__, expected="a mapping")
    values: dict[str, Any] = {}
    sections = [name for name in ("/**", node, f"/{node}") if name in data]
    if not sections:
        raise ParameterError("no section for this node", file=path, found=list(data), expected=f"/** or {node}")
    for name in sections:
        section = data[name]
        inner = section.get("ros__parameters") if isinstance(section, dict) else None
        if not isinstance(inner, dict):
            raise ParameterError("not usable", file=path, field=name, found=section, expected="ros__parameters: {...}")
        values.update(inner)
    # ROS' own: no parameter of ours, and harmless without ROS.
    values.pop("use_sim_time", None)
    return values


def _converted(field: dataclasses.Field[Any], value: Any) -> Any:
    """The value as its field's type; a whole number may stand for a real one."""
    wanted = field.type
    if wanted == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    right = {"str": str, "bool": bool, "int": int}.get(str(wanted))
    if right is None or not isinstance(value, right) or (wanted == "int" and isinstance(value, bool)):
        words = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
        raise ParameterError("not usable", field=field.name, found=value, expected=words[str(wanted)])
    return value


def _check_value(name: str, value: Any) -> None:
    if name in _CHOICES and value not in _CHOICES[name]:
        raise ParameterError("not one of these", field=name, found=value, expected=", ".join(_CHOICES[name]))
    if name in _BOUNDS:
        low, high = _BOUNDS[name]
        if isinstance(value, float) and math.isnan(value):
            if name not in _MAY_BE_NAN:
                raise ParameterError("not usable", field=name, found=value, expected="a number")
            return
        if not low <= value <= high:
            raise ParameterError("out of range", field=name, found=value, expected=f"{low:g} to {high:g}")
