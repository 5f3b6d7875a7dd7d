"""What the vehicle does: along a route, in wind, with sudden displacements."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvgl import lasting
from cvgl.geometry import wrap_degrees
from cvgl.sim.closed.noise import gauss_markov, lasting_errors
from cvgl.sim.closed.route import Route
from cvgl.sim.closed.scenario import Scenario

__all__ = ["Trajectory", "fly"]

# How well an autopilot holds its line: metres on each axis in still air, and seconds over which that changes.
_HOLD_M, _HOLD_S = 1.0, 5.0
_GUST_S = 4.0
# The nose wanders about the direction that wind and course ask for, degrees.
_NOSE_DEG, _NOSE_S = 1.5, 3.0
_HEIGHT_M, _HEIGHT_S = 1.5, 20.0
_BODY_S, _BODY_DEG = 2.0, 2.0
_G = 9.81
# A kidnapped aircraft comes to itself at least so far away, metres or share of the route's extent.
_FAR_M, _FAR_SHARE, _TRIES = 100.0, 0.2, 50


@dataclass(frozen=True)
class Trajectory:
    """The truth, a row for every frame.

    Args:
        time: (N,) seconds from the flight's start.
        position: (N, 3) easting, northing and height above ground of the camera, metres.
        heading: (N,) degrees clockwise from true north.
        vehicle: (N, 2) pitch and roll of the vehicle, degrees.
        seen: (N, 2) pitch and roll with which the camera's carrier hangs: the gimbal's, or the vehicle's.
        velocity: (N, 2) east and north over ground, m/s, the mean since the frame before.
        turning: (N,) rate of heading, degrees a second.
        segment: (N,) counts the sudden displacements before a frame.
        wind: (2,) mean wind, the direction in which it blows, m/s east and north.
    """

    time: NDArray[np.float64]
    position: NDArray[np.float64]
    heading: NDArray[np.float64]
    vehicle: NDArray[np.float64]
    seen: NDArray[np.float64]
    velocity: NDArray[np.float64]
    turning: NDArray[np.float64]
    segment: NDArray[np.int64]
    wind: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.time)


def fly(
    route: Route, scenario: Scenario, frames: int, rng: np.random.Generator, *, stabilized: bool = True
) -> Trajectory:
    """Fly a route as often as it takes.

    The aircraft keeps its airspeed and turns its nose into the wind so that the course is the route's (a crab angle);
    gusts and its autopilot's limits move it off the line. On a recorded route the speed over ground is the recording's.

    Args:
        route: closed.
        scenario: speed, wind, displacements, tilt.
        frames: how many.
        rng: draws everything.
        stabilized: whether a gimbal carries the camera; otherwise it hangs as the vehicle does.
    """
    step = 1.0 / scenario.rate_hz
    direction = rng.uniform(0, 2 * math.pi)
    wind = scenario.wind_m_s * np.array([math.sin(direction), math.cos(direction)])
    gusts = scenario.gust_m_s * gauss_markov(rng, frames, step, _GUST_S, 2)
    hold = (_HOLD_M + scenario.gust_m_s) * gauss_markov(rng, frames, step, _HOLD_S, 2)
    nose = _NOSE_DEG * gauss_markov(rng, frames, step, _NOSE_S)[:, 0]
    height = _HEIGHT_M * gauss_markov(rng, frames, step, _HEIGHT_S)[:, 0]
    segment = np.arange(frames) // scenario.kidnap_every if scenario.kidnap_every else np.zeros(frames, int)
    position, heading = np.empty((frames, 3)), np.empty(frames)
    s = float(rng.uniform(0, route.length_m))
    for index in range(frames):
        if index and segment[index] != segment[index - 1]:
            s = _elsewhere(route, position[index - 1, :2], rng)
        place, course, above = route.at(s)
        ground_speed, crab = _triangle(scenario.speed_m_s, course, wind + gusts[index])
        recorded = route.speed_at(s)
        s += step * (ground_speed if recorded is None else recorded)
        position[index] = *(place + hold[index]), max(above + height[index], 2.0)
        heading[index] = (course + crab + nose[index]) % 360.0
    velocity, turning = _rates(position[:, :2], heading, segment, step)
    vehicle = _BODY_DEG * gauss_markov(rng, frames, step, _BODY_S, 2)
    # A coordinated turn: tan(roll) = v omega / g (Beard, McLain: Small Unmanned Aircraft, 2.4).
    speed = np.hypot(*velocity.T)
    vehicle[:, 1] += np.degrees(np.arctan(np.clip(speed * np.radians(turning) / _G, -0.6, 0.6)))
    law = replace(lasting.TILT, lasting=scenario.tilt_lasting)
    tilt = scenario.tilt_sigma_deg * lasting_errors(rng, law, frames, step, 2, scenario.errors)
    seen = np.asarray(tilt if stabilized else vehicle, np.float64)
    time = step * np.arange(frames, dtype=np.float64)
    return Trajectory(time, position, heading, vehicle, seen, velocity, turning, segment, wind)


def _triangle(airspeed: float, course_deg: float, wind: NDArray[np.float64]) -> tuple[float, float]:
    """Speed over ground (m/s) along a course and crab angle (degrees) that keeps to it.

    In wind that the aircraft cannot hold its course against it still makes a tenth of its airspeed good.
    """
    course = math.radians(course_deg)
    along = float(wind @ (math.sin(course), math.cos(course)))
    across = float(wind @ (math.cos(course), -math.sin(course)))
    sine = min(max(-across / airspeed, -0.9), 0.9)
    return max(airspeed * math.sqrt(1 - sine * sine) + along, 0.1 * airspeed), math.degrees(math.asin(sine))


def _elsewhere(route: Route, place: NDArray[np.float64], rng: np.random.Generator) -> float:
    """A way along the route far from a place; on a small route the farthest of those tried."""
    reach = max(_FAR_M, _FAR_SHARE * float(np.ptp(route.points, axis=0).max()))
    best, farthest = 0.0, -1.0
    for _ in range(_TRIES):
        s = float(rng.uniform(0, route.length_m))
        apart = float(np.hypot(*(route.at(s)[0] - place)))
        if apart >= reach:
            return s
        if apart > farthest:
            best, farthest = s, apart
    return best


def _rates(
    place: NDArray[np.float64], heading: NDArray[np.float64], segment: NDArray[np.int64], step: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Velocity (N, 2) and turn rate (N,) since the frame before; after a displacement those of the next frame."""
    count = len(place)
    velocity, turning = np.zeros((count, 2)), np.zeros(count)
    if count > 1:
        velocity[1:] = np.diff(place, axis=0) / step
        turning[1:] = [wrap_degrees(float(change)) / step for change in np.diff(heading)]
    first = np.flatnonzero(np.r_[True, np.diff(segment) != 0])
    for index in first:
        if index + 1 < count and segment[index + 1] == segment[index]:
            velocity[index], turning[index] = velocity[index + 1], turning[index + 1]
        else:
            velocity[index], turning[index] = 0.0, 0.0
    return velocity, turning
