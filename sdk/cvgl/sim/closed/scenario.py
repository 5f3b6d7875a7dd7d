"""What a simulated flight meets: its route, its sensors' errors, its weather."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

from cvgl import lasting
from cvgl.errors import FlightError
from cvgl.settings import Settings
from cvgl.sim.closed.noise import ERRORS

__all__ = ["PATTERNS", "PRESETS", "Scenario", "preset"]

PATTERNS = ("survey", "transit", "loiter", "random", "excursion")
_SHARES = ("tilt_lasting", "clouds", "shadows", "darkness", "drop_frames", "drop_heading", "drop_velocity")
_SIGNED = ("heading_error_deg", "height_error", "height_offset_m")
_POSITIVE = ("rate_hz", "speed_m_s", "gap_s")


@dataclass(frozen=True)
class Scenario:
    """A kind of flight. How much of each sensor's error lasts, and for how long, :mod:`cvgl.lasting` says.

    Args:
        pattern: of the route: ``survey`` (parallel legs), ``transit`` (from edge to edge), ``loiter`` (a circle),
            ``random`` (waypoints), ``excursion`` (off the map and back, again and again).
        speed_m_s: through the air.
        rate_hz: frames a second.
        wind_m_s: mean wind, from a direction of the flight's own; it drifts the aircraft and crabs its heading.
        gust_m_s: standard deviation of gusts on each axis, correlated over seconds.
        heading_known: whether frames tell their heading.
        heading_sigma_deg: of the heading told.
        heading_error_deg: constant error on top.
        heading_drift_deg: standard deviation of a slow drift on top (two minutes).
        height_sigma: of the height told, relative.
        height_error: constant relative error on top: 0.15 tells 115 m for 100 m.
        height_offset_m: constant error on top, metres.
        velocity_known: whether frames tell their velocity over ground.
        velocity_sigma_m_s: of each component told.
        velocity_bias_m_s: standard deviation of a constant error of each component on top, which frames do not tell.
        tilt_sigma_deg: by which a stabilised camera hangs off level on each axis, which nobody tells.
        tilt_lasting: share of its variance that lasts, where it is another than the law's.
        attitude_sigma_deg: of pitch and roll told, where the camera is not stabilised.
        map_sigma_m: of the map's georeference on each axis: where the aircraft is, is that far from where the map has
            the ground that it sees.
        errors: how the errors of sensors and map last: ``lawful``; or ``white`` and ``constant``, departures from what
            the filter reckons with.
        start_sigma_m: of the position told at the start; 0 tells none.
        kidnap_every: frames between sudden displacements; 0 for none.
        drop_frames, drop_heading, drop_velocity: share of the time in which they are missing, in gaps.
        gap_s: mean length of such a gap.
        exposure_s: of a frame; what moves in the image meanwhile is blurred.
        readout_s: from the first row's exposure to the last one's (rolling shutter).
        clouds: share of the sky between camera and ground that opaque cloud covers.
        shadows: share of the ground in the shadow of clouds.
        darkness: 0 to 1; light falls to 10^(-4 darkness) by the middle of the flight and comes back.
        light: how much season, light and sensor differ from the map's, see :func:`cvgl.sim.views.relight`.
    """

    pattern: str = "random"
    speed_m_s: float = 12.0
    rate_hz: float = 2.0
    wind_m_s: float = 3.0
    gust_m_s: float = 1.0
    heading_known: bool = True
    heading_sigma_deg: float = 6.0
    heading_error_deg: float = 0.0
    heading_drift_deg: float = 0.0
    height_sigma: float = 0.03
    height_error: float = 0.0
    height_offset_m: float = 0.0
    velocity_known: bool = True
    velocity_sigma_m_s: float = 0.5
    velocity_bias_m_s: float = 0.0
    tilt_sigma_deg: float = 5.0
    tilt_lasting: float = lasting.TILT.lasting
    attitude_sigma_deg: float = 1.5
    map_sigma_m: float = 1.0
    errors: str = "lawful"
    start_sigma_m: float = 0.0
    kidnap_every: int = 0
    drop_frames: float = 0.0
    drop_heading: float = 0.0
    drop_velocity: float = 0.0
    gap_s: float = 5.0
    exposure_s: float = 0.001
    readout_s: float = 0.0
    clouds: float = 0.0
    shadows: float = 0.0
    darkness: float = 0.0
    light: float = 1.0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise FlightError("no such pattern", field="pattern", found=self.pattern, expected=", ".join(PATTERNS))
        if self.errors not in ERRORS:
            raise FlightError("no such kind", field="errors", found=self.errors, expected=", ".join(ERRORS))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(field.default, (bool, str)):
                continue
            low = -math.inf if field.name in _SIGNED else 0.0
            high = 0.9 if field.name in _SHARES[4:] else 1.0 if field.name in _SHARES else math.inf
            ok = math.isfinite(value) and low <= value <= high and (value > 0 or field.name not in _POSITIVE)
            if not ok:
                wanted = "above 0" if field.name in _POSITIVE else f"a number from {low:g} to {high:g}"
                raise FlightError("not usable", field=field.name, found=value, expected=wanted)
        if not self.height_error > -0.9:
            raise FlightError("not usable", field="height_error", found=self.height_error, expected="above -0.9")

    def to_dict(self) -> dict[str, Any]:
        """All fields by name."""
        return dataclasses.asdict(self)


PRESETS: dict[str, dict[str, Any]] = {
    "nominal": {},
    "wind": {"wind_m_s": 8.0, "gust_m_s": 3.0},
    "clouds": {"clouds": 0.25, "shadows": 0.3},
    "dark": {"darkness": 1.0},
    "blur": {"exposure_s": 0.02, "readout_s": 0.03},
    "kidnap": {"kidnap_every": 50},
    "wrong-height": {"height_error": 0.15},
    "wrong-heading": {"heading_error_deg": 15.0},
    "heading-unknown": {"heading_known": False},
    "no-velocity": {"velocity_known": False},
    "biased-velocity": {"velocity_bias_m_s": 1.5},
    "dropouts": {"drop_frames": 0.1, "drop_heading": 0.1, "drop_velocity": 0.2},
    "loose-gimbal": {"tilt_lasting": 0.0},
    "white-errors": {"errors": "white"},
    "constant-errors": {"errors": "constant"},
    "off-map": {"pattern": "excursion"},
    "drift": {"heading_drift_deg": 5.0, "velocity_bias_m_s": 1.0, "height_offset_m": 5.0},
}
"""Kinds of flights by name, as changes to an ordinary one."""


def preset(name: str, settings: Settings) -> Scenario:
    """A kind of flight whose sensors err as a mission's settings say that they do.

    Args:
        name: of :data:`PRESETS`.
        settings: of the mission; heading, height, tilt, attitude and map err by its sigmas.

    Raises:
        FlightError: no kind of that name.
    """
    if name not in PRESETS:
        raise FlightError("no such scenario", field="scenario", found=name, expected=", ".join(PRESETS))
    ordinary = Scenario(
        heading_sigma_deg=settings.heading_sigma_deg,
        height_sigma=settings.height_sigma,
        tilt_sigma_deg=settings.tilt_sigma_deg,
        attitude_sigma_deg=settings.attitude_sigma_deg,
        map_sigma_m=settings.map_sigma_m,
    )
    return replace(ordinary, **PRESETS[name])
