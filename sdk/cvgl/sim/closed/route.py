"""Where a flight leads: closed routes by pattern, or along a recorded trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import FlightError
from cvgl.geo import LocalFrame
from cvgl.srt import TelemetryLog

__all__ = ["Bounds", "Route", "pattern_route", "recorded_route"]

Bounds = tuple[float, float, float, float]
"""West, south, east, north, metres in a local tangent plane."""

_STEP_M = 2.0
_TURN_M = 30.0
_WAYPOINTS = 60
# How far beyond the edge an excursion leads, in footprints: past where a frame still shows some of the map.
_BEYOND = 1.5
_LEAST_SPEED_M_S = 1.0


@dataclass(frozen=True)
class Route:
    """A closed line over ground; arrays along it, point after point at equal distances.

    Args:
        points: (N, 2) easting and northing, metres.
        step_m: from one point to the next, the last to the first included.
        height: (N,) above ground, metres.
        speed: (N,) over ground, m/s; None where it follows from airspeed and wind.
    """

    points: NDArray[np.float64]
    step_m: float
    height: NDArray[np.float64]
    speed: NDArray[np.float64] | None = None

    @property
    def length_m(self) -> float:
        """All the way round."""
        return self.step_m * len(self.points)

    def at(self, s: float) -> tuple[NDArray[np.float64], float, float]:
        """Place (2,), course (degrees clockwise from north) and height at a way from the start, metres."""
        count = len(self.points)
        where = (s / self.step_m) % count
        index, share = int(where) % count, where - int(where)
        here, there = self.points[index], self.points[(index + 1) % count]
        before, after = self.points[index - 1], self.points[(index + 2) % count]
        east, north = (1 - share) * (there - before) + share * (after - here)
        height = (1 - share) * self.height[index] + share * self.height[(index + 1) % count]
        return here + share * (there - here), math.degrees(math.atan2(east, north)), float(height)

    def speed_at(self, s: float) -> float | None:
        """Recorded speed over ground, m/s; None where none was recorded."""
        return None if self.speed is None else float(self.speed[int(s / self.step_m) % len(self.points)])


def pattern_route(
    pattern: str, bounds: Bounds, footprint_m: tuple[float, float], height_m: float, rng: np.random.Generator
) -> Route:
    """A route over a map.

    Args:
        pattern: see :class:`cvgl.sim.closed.Scenario`.
        bounds: of the map.
        footprint_m: short and long side of what the camera sees; the route keeps half its diagonal from the edge.
        height_m: above ground.
        rng: draws the route.

    Raises:
        FlightError: the map is too small for the camera at this height.
    """
    margin = 0.5 * math.hypot(*footprint_m)
    west, south, east, north = bounds
    low, high = np.array([west + margin, south + margin]), np.array([east - margin, north - margin])
    extent = high - low
    if extent.min() < 20.0:
        raise FlightError(
            "the map is too small to fly over",
            field="map",
            found=f"{east - west:.0f} x {north - south:.0f} m",
            expected=f"{2 * margin + 20:.0f} m or more on each side at a height of {height_m:.0f} m",
        )
    if pattern == "survey":
        corners = _survey(low, high, footprint_m[0])
    elif pattern == "loiter":
        radius = float(rng.uniform(0.2, 0.5)) * min(float(extent.min()), 400.0)
        centre = rng.uniform(low + radius, high - radius)
        angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        corners = centre + radius * np.column_stack([np.sin(angle), np.cos(angle)])
    elif pattern == "transit":
        corners = _transit(low, high, rng)
    elif pattern == "excursion":
        corners = _excursion(low, high, _BEYOND * footprint_m[1], rng)
    else:
        corners = rng.uniform(low, high, (_WAYPOINTS, 2))
    points, step = _even(corners)
    points = _rounded(points, step, min(_TURN_M, 0.2 * float(extent.min())))
    return Route(points, step, np.full(len(points), float(height_m)))


def recorded_route(log: TelemetryLog, local: LocalFrame, least_height_m: float) -> Route:
    """The way of a recorded flight, at its own heights and speeds, closed by a straight leg from its end to its start.

    Receivers report a position several times before they have a new one, to a tenth of a metre; so the way is smoothed
    over a second. Where it hovered it is passed at 1 m/s.

    Args:
        log: the recording.
        local: the plane that the route lies in.
        least_height_m: parts flown lower are left out: take-off and landing.

    Raises:
        FlightError: nothing was flown that high, or nothing moved.
    """
    flown = log.height >= least_height_m
    if np.count_nonzero(flown) < 2:
        raise FlightError(
            "never flown so high", field="rel_alt", found=float(log.height.max()), expected=f">= {least_height_m:g} m"
        )
    east, north = local.to_local(log.latitude[flown], log.longitude[flown])
    # The clock without what was left out.
    step = float(np.median(np.diff(log.time)))
    elapsed = np.concatenate([[0.0], np.cumsum(np.clip(np.diff(log.time[flown]), 0.0, 10 * step))])
    even = np.arange(0.0, elapsed[-1], 0.1)
    track = np.column_stack([np.interp(even, elapsed, axis) for axis in (east, north, log.height[flown])])
    window = np.hanning(13)
    padded = np.pad(track, ((6, 6), (0, 0)), mode="edge")
    smooth = np.column_stack([np.convolve(column, window / window.sum(), mode="valid") for column in padded.T])
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(smooth[:, :2], axis=0).T))])
    if not way[-1] > 10 * _STEP_M:
        raise FlightError("nothing moved", field="latitude, longitude", found=f"{way[-1]:.1f} m", expected="a flight")
    rate = np.gradient(way, 0.1)
    home = float(np.hypot(*(smooth[-1, :2] - smooth[0, :2])))
    count = max(8, round((way[-1] + home) / _STEP_M))
    s = np.linspace(0, way[-1] + home, count, endpoint=False)
    stations = np.append(way, way[-1] + home)
    closed = np.vstack([smooth, smooth[:1]])
    speeds = np.append(np.maximum(rate, _LEAST_SPEED_M_S), max(float(np.median(rate)), 5.0))
    columns = [np.interp(s, stations, closed[:, axis]) for axis in range(3)]
    return Route(
        np.column_stack(columns[:2]), (way[-1] + home) / count, columns[2], np.asarray(np.interp(s, stations, speeds))
    )


def _survey(low: NDArray[np.float64], high: NDArray[np.float64], side_m: float) -> NDArray[np.float64]:
    """Legs along the longer side, as far apart as two thirds of the footprint's short side."""
    extent = high - low
    along = int(extent[0] < extent[1])
    legs = max(2, math.ceil(extent[1 - along] / (0.67 * side_m)))
    corners = []
    for leg, across in enumerate(np.linspace(low[1 - along], high[1 - along], legs)):
        ends = (low[along], high[along]) if leg % 2 == 0 else (high[along], low[along])
        corners += [(end, across) if along == 0 else (across, end) for end in ends]
    return np.array(corners)


def _transit(low: NDArray[np.float64], high: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Straight legs from edge to opposite edge."""
    legs, axis = [], 0
    for leg in range(_WAYPOINTS):
        if leg % 2 == 0:
            axis = int(rng.random() < 0.5)
        end = np.array(rng.uniform(low, high))
        end[axis] = (low, high)[leg % 2][axis]
        legs.append(end)
    return np.array(legs)


def _excursion(
    low: NDArray[np.float64], high: NDArray[np.float64], beyond_m: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Two waypoints on the map, one off it, and again."""
    corners = []
    for leg in range(_WAYPOINTS):
        point = np.array(rng.uniform(low, high))
        if leg % 3 == 2:
            axis, side = int(rng.random() < 0.5), int(rng.random() < 0.5)
            point[axis] = high[axis] + beyond_m if side else low[axis] - beyond_m
        corners.append(point)
    return np.array(corners)


def _even(corners: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Points at equal distances along the closed line through some corners, and that distance."""
    ring = np.vstack([corners, corners[:1]])
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ring, axis=0).T))])
    count = max(8, round(way[-1] / _STEP_M))
    s = np.linspace(0, way[-1], count, endpoint=False)
    return np.column_stack([np.interp(s, way, ring[:, axis]) for axis in (0, 1)]), float(way[-1] / count)


def _rounded(points: NDArray[np.float64], step_m: float, radius_m: float) -> NDArray[np.float64]:
    """The closed line with its corners cut: a moving average along it, which cannot leave the corners' hull."""
    half = min(round(radius_m / step_m), (len(points) - 1) // 2)
    if half < 1:
        return points
    window = np.hanning(2 * half + 3)[1:-1]
    padded = np.concatenate([points[-half:], points, points[:half]])
    return np.column_stack([np.convolve(column, window / window.sum(), mode="valid") for column in padded.T])
