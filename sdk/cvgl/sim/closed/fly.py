"""One flight in closed loop: each answer narrows where the next frame is looked for."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import FlightError
from cvgl.fix import Fix
from cvgl.footprint import footprint_sides
from cvgl.frame import Frame, Prior
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu
from cvgl.localizer import Localizer
from cvgl.sim.closed.effects import Sky, darken, image_motion, light_level, motion_blur, rolling_shutter
from cvgl.sim.closed.ground import Ground
from cvgl.sim.closed.noise import map_errors
from cvgl.sim.closed.route import Bounds, Route, pattern_route, recorded_route
from cvgl.sim.closed.rows import ROW, STATUSES, Rows
from cvgl.sim.closed.scenario import Scenario
from cvgl.sim.closed.sensors import Telemetry, measure
from cvgl.sim.closed.trajectory import Trajectory, fly
from cvgl.srt import TelemetryLog

__all__ = ["FRAME_SIDE", "Flown", "blank_rows", "frame_camera", "mission_bounds", "note", "plan", "run_flight"]

FRAME_SIDE = 512
"""Longest side of simulated frames, pixels: about twice the detail that registration uses."""

# Flights are this far apart in time, seconds, so that no answer of one can be taken for the last one's.
_APART_S = 1e6


@dataclass(frozen=True)
class Flown:
    """A flight that is ready to be answered: everything about it is decided, and no picture made yet.

    Args:
        number: of the flight.
        truth, told: what happens, and what the vehicle is told of it.
        sky: the clouds over it.
        scenario: what kind of flight it is.
        day: seed of its light.
        seed: of what is random in a frame.
        ground: that it flies over.
        camera: of the frames.
        bounds: of the mission's map in the ground's plane.
        local: the gallery's plane, in which rows are noted.
        map_error: (N, 2) metres east and north by which the ground that a frame sees truly lies off the ground's own
            coordinates.
    """

    number: int
    truth: Trajectory
    told: Telemetry
    sky: Sky
    scenario: Scenario
    day: int
    seed: int
    ground: Ground
    camera: Camera
    bounds: Bounds
    local: LocalFrame
    map_error: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.truth)

    def image(self, index: int) -> NDArray[np.uint8]:
        """The picture of a frame, BGR (H, W, 3)."""
        truth, scenario, camera = self.truth, self.scenario, self.camera
        attitude = (float(truth.heading[index]), *map(float, truth.seen[index]))
        # What the map has at a place is in truth elsewhere, so that what is seen is what it has elsewhere.
        position = truth.position[index] - [*self.map_error[index], 0.0]
        picture = self.ground.view(camera, position, attitude, self.day, index, scenario.light)  # type: ignore[arg-type]
        rotation = camera_to_enu(camera.mount, *attitude)
        picture = self.sky.over(picture, camera, rotation, position, float(truth.time[index]))
        motion = image_motion(camera, rotation, truth.velocity[index], float(position[2]))
        if scenario.readout_s > 0:
            picture = rolling_shutter(picture, motion, float(truth.turning[index]), scenario.readout_s)
        picture = motion_blur(picture, motion * scenario.exposure_s)
        level = light_level(scenario.darkness, index / max(len(self) - 1, 1))
        return darken(picture, level, np.random.default_rng([self.seed, self.number, 5, index]))

    def moment(self, index: int) -> float:
        """Time of a frame on the vehicle's clock, seconds."""
        return self.number * _APART_S + float(self.truth.time[index])

    def frame(self, index: int) -> Frame:
        """A frame with its telemetry, as the flight software hands it in."""
        told = self.told
        pitch, roll = told.attitude[index]
        east, north = told.velocity[index]
        return Frame(
            image=self.image(index),
            time=self.moment(index),
            height=float(told.height[index]),
            heading=_known(told.heading[index]),
            pitch=_known(pitch),
            roll=_known(roll),
            velocity=None if math.isnan(east) else (float(east), float(north)),
            velocity_sigma=None if math.isnan(east) else told.velocity_sigma,
            name=f"{self.number}/{index}",
        )

    def start(self) -> Prior | None:
        """What is told of the position before the first frame."""
        sigma = self.scenario.start_sigma_m
        if sigma <= 0:
            return None
        rng = np.random.default_rng([self.seed, self.number, 6])
        east, north = self.truth.position[0, :2] + sigma * rng.standard_normal(2)
        latitude, longitude = self.ground.local.to_wgs84(east, north)
        return Prior(float(latitude), float(longitude), sigma)


def frame_camera(camera: Camera, side: int = FRAME_SIDE) -> Camera:
    """The mission's camera at the size of simulated frames.

    Raises:
        FlightError: frames would have a side of less than 16 or more than 512 pixels.
    """
    scale = side / max(camera.width, camera.height)
    width, height = round(camera.width * scale), round(camera.height * scale)
    if not 16 <= min(width, height) <= max(width, height) <= FRAME_SIDE:
        raise FlightError("not usable", field="frame side", found=side, expected=f"at most {FRAME_SIDE} pixels")
    return camera.scaled_to(width, height)


def mission_bounds(localizer: Localizer, ground: Ground) -> Bounds:
    """What the mission's map and the ground have in common, in the ground's plane, metres.

    Raises:
        FlightError: nothing.
    """
    west, south, east, north = localizer.gallery.basemap.bounds
    corners = localizer.gallery.local.to_wgs84([west, east, west, east], [south, south, north, north])
    easting, northing = ground.local.to_local(*corners)
    low = np.maximum(ground.bounds[:2], (easting.min(), northing.min()))
    high = np.minimum(ground.bounds[2:], (easting.max(), northing.max()))
    if (high <= low).any():
        raise FlightError("the map lies elsewhere than the mission", field="map", found=str(ground.local))
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def plan(
    localizer: Localizer,
    ground: Ground,
    scenario: Scenario,
    *,
    seed: int,
    number: int,
    frames: int,
    height_m: float | None = None,
    log: TelemetryLog | None = None,
    side: int = FRAME_SIDE,
) -> Flown:
    """Decide everything about a flight; a function of its arguments alone.

    Args:
        localizer: of the mission, for its camera, planned height and map.
        ground: to fly over.
        scenario: the kind of flight.
        seed, number: of the run and of the flight in it.
        frames: of the flight.
        height_m: above ground; None for the mission's.
        log: a recorded trajectory to fly along, instead of the scenario's pattern.
        side: longest side of the frames, pixels.

    Raises:
        FlightError: the ground is too small for the camera, or the recording leads nowhere over it.
    """
    camera = frame_camera(localizer.camera, side)
    height = localizer.mission.height_m if height_m is None else height_m
    bounds = mission_bounds(localizer, ground)
    if log is None:
        route: Route = pattern_route(
            scenario.pattern, bounds, footprint_sides(camera, height), height, np.random.default_rng([seed, number, 1])
        )
    else:
        # Lower down a frame shows less than a tile of the gallery does, and no mission is planned for it.
        route = recorded_route(log, ground.local, 0.5 * height)
        inside = _inside(route.points, bounds)
        if not inside.any():
            raise FlightError("the recorded trajectory does not cross the map", field="trajectory")
    truth = fly(route, scenario, frames, np.random.default_rng([seed, number, 2]), stabilized=camera.stabilized)
    told = measure(truth, scenario, np.random.default_rng([seed, number, 3]), stabilized=camera.stabilized)
    weather = np.random.default_rng([seed, number, 4])
    # Drawn first, so that a flight with clouds has the light of the same flight without.
    day = int(weather.integers(2**31))
    sky = Sky(scenario, truth.wind, weather)
    local = localizer.gallery.local
    misplaced = map_errors(np.random.default_rng([seed, number, 7]), _middles(camera, truth), scenario.errors)
    shift = scenario.map_sigma_m * misplaced
    return Flown(number, truth, told, sky, scenario, day, seed, ground, camera, bounds, local, shift)


def run_flight(localizer: Localizer, flown: Flown, on_frame: Callable[[], object] | None = None) -> Rows:
    """Fly it: every frame is made, answered by ``Localizer.track``, and noted; where one was dropped, the estimate is.

    Args:
        localizer: its sequence is begun anew.
        flown: the flight.
        on_frame: called after every frame.
    """
    rows = blank_rows(flown)
    localizer.reset(flown.start())
    for index in range(len(flown)):
        expected = localizer.estimate(flown.moment(index))
        if expected.covariance is not None:
            east, north = flown.local.to_local(expected.latitude, expected.longitude)
            rows["prior_east"][index], rows["prior_north"][index] = float(east), float(north)
            rows["prior_sigma"][index] = expected.sigma_m
        if not flown.told.present[index]:
            note(rows, index, expected, flown.local)
        else:
            began = time.perf_counter()
            frame = flown.frame(index)
            rows["render_ms"][index] = 1000 * (time.perf_counter() - began)
            note(rows, index, localizer.track(frame), flown.local)
        if on_frame is not None:
            on_frame()
    return rows


def blank_rows(flown: Flown) -> Rows:
    """The rows of a flight before anything is answered."""
    truth, told = flown.truth, flown.told
    rows = np.zeros(len(flown), ROW)
    for name in ROW.names or ():
        if ROW[name].kind == "f":
            rows[name] = np.nan
    rows["flight"], rows["frame"], rows["segment"] = flown.number, np.arange(len(flown)), truth.segment
    rows["time"] = truth.time
    centre = _middles(flown.camera, truth)
    rows["on_map"] = _inside(centre, flown.bounds)
    for prefix, place in (("true", truth.position[:, :2]), ("center", centre)):
        rows[f"{prefix}_east"], rows[f"{prefix}_north"] = flown.local.to_local(*flown.ground.local.to_wgs84(*place.T))
    rows["true_height"], rows["true_heading"] = truth.position[:, 2], truth.heading
    rows["seen"] = told.present
    rows["told_height"], rows["told_heading"] = told.height, told.heading
    return rows


def note(rows: Rows, index: int, fix: Fix, local: LocalFrame) -> None:
    """Write an answer into its row."""
    if fix.timings_ms:
        rows["latency_ms"][index] = fix.latency_ms
    rows["reason"][index] = fix.reason_code.value
    rows["probability"][index] = fix.probability
    if fix:
        rows["protection_m"][index] = fix.protection_radius_m
    _note_position(rows, index, fix, local, "")
    if fix.center_covariance is not None:
        east, north = local.to_local(fix.center_latitude, fix.center_longitude)
        rows["found_center_east"][index], rows["found_center_north"][index] = float(east), float(north)
    rows["heading"][index], rows["heading_sigma"][index] = fix.heading_deg, fix.heading_sigma_deg
    _note_position(rows, index, fix if fix.measured is None else fix.measured, local, "measured_")


def _note_position(rows: Rows, index: int, fix: Fix, local: LocalFrame, prefix: str) -> None:
    rows[f"{prefix}status"][index] = STATUSES.index(fix.status.value)
    if fix.covariance is None:
        return
    east, north = local.to_local(fix.latitude, fix.longitude)
    rows[f"{prefix}east"][index], rows[f"{prefix}north"][index] = float(east), float(north)
    rows[f"{prefix}var_east"][index] = fix.covariance[0, 0]
    rows[f"{prefix}cov_east_north"][index] = fix.covariance[0, 1]
    rows[f"{prefix}var_north"][index] = fix.covariance[1, 1]


def _middles(camera: Camera, truth: Trajectory) -> NDArray[np.float64]:
    """(N, 2) where the middle of each image lies on the ground, metres."""
    middle = camera.rays(camera.center[None])[0]
    places = np.empty((len(truth), 2))
    for index in range(len(truth)):
        rotation = camera_to_enu(camera.mount, float(truth.heading[index]), *map(float, truth.seen[index]))
        ray = rotation @ middle
        places[index] = truth.position[index, :2] - ray[:2] * truth.position[index, 2] / min(ray[2], -0.1)
    return places


def _inside(points: NDArray[np.float64], bounds: Bounds) -> NDArray[np.bool_]:
    west, south, east, north = bounds
    return (points[:, 0] >= west) & (points[:, 0] <= east) & (points[:, 1] >= south) & (points[:, 1] <= north)


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
