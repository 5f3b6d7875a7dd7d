"""Other ways to answer the same frames: what the tracker is measured against."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.bench.peers_features import Detector, sift, xfeat
from cvgl.bench.peers_frame import Finder, correlating, matching
from cvgl.errors import FlightError
from cvgl.fix import Fix
from cvgl.frame import Frame
from cvgl.geometry import camera_to_enu
from cvgl.localizer import Localizer
from cvgl.rectify import ground_offset
from cvgl.sim.closed.fly import Flown, blank_rows, note
from cvgl.sim.closed.rows import NO_FIX, REFINED, Rows

__all__ = ["BASELINES", "PlainFilter", "fly_baselines"]

BASELINES = ("single", "retrieval", "correlation", "features", "ekf")
"""``single``: our own answer to every frame by itself, no tracking. ``retrieval``: the centre of the most similar tile.
``correlation``: gradient orientation correlated with the whole map, a third of the detail. ``features``: local features
matched with every window of the map. ``ekf``: a Kalman filter that takes the best place of every frame, whatever its
odds, as a measurement."""

# Of an aircraft that manoeuvres, for a filter of constant velocity, m/s^2.
_ACCELERATION = 1.5
_START_SPEED_M_S = 15.0
_REDUCTION = 3


class PlainFilter:
    """Position and velocity by a Kalman filter that rejects nothing.

    Source: Bar-Shalom, Li, Kirubarajan: Estimation with Applications to Tracking and Navigation, 5.2 and 6.3.2 (the
    model of nearly constant velocity with discrete white noise acceleration).
    """

    def __init__(self) -> None:
        self.state: NDArray[np.float64] | None = None
        self.covariance = np.zeros((4, 4))
        self._time = 0.0

    def predict(self, time: float) -> None:
        """Move on to a time, seconds."""
        step = time - self._time
        self._time = time
        if self.state is None:
            return
        move = np.eye(4)
        move[0, 2] = move[1, 3] = step
        gain = np.array([[step**2 / 2, 0], [0, step**2 / 2], [step, 0], [0, step]])
        self.state = move @ self.state
        self.covariance = move @ self.covariance @ move.T + _ACCELERATION**2 * gain @ gain.T

    def position(self, place: NDArray[np.float64], covariance: NDArray[np.float64]) -> None:
        """Take in a position (2,) with its covariance (2, 2)."""
        if self.state is None:
            self.state = np.array([*place, 0.0, 0.0])
            self.covariance = np.zeros((4, 4))
            self.covariance[:2, :2] = covariance
            self.covariance[2:, 2:] = _START_SPEED_M_S**2 * np.eye(2)
        else:
            self._update(np.eye(4)[:2], place, covariance)

    def velocity(self, velocity: NDArray[np.float64], sigma: float) -> None:
        """Take in a velocity (2,) over ground with the standard deviation of each component."""
        self._update(np.eye(4)[2:], velocity, sigma**2 * np.eye(2))

    def _update(self, what: NDArray[np.float64], value: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        if self.state is None:
            return
        gain = self.covariance @ what.T @ np.linalg.inv(what @ self.covariance @ what.T + noise)
        self.state = self.state + gain @ (value - what @ self.state)
        # Joseph's form keeps the covariance positive definite.
        left = np.eye(4) - gain @ what
        self.covariance = left @ self.covariance @ left.T + gain @ noise @ gain.T


def fly_baselines(
    localizer: Localizer,
    flown: Flown,
    names: Sequence[str],
    network: Path | None = None,
    on_frame: Callable[[], object] | None = None,
) -> dict[str, Rows]:
    """Answer a flight's frames by other methods.

    Peers that find the image's middle are given the aircraft's place from it as our own fixes have it: by the attitude
    and height that were told. They answer every frame, as surely as any.

    Args:
        localizer: of the mission.
        flown: the flight.
        names: of :data:`BASELINES`.
        network: of XFeat; None for SIFT.
        on_frame: called after every frame.

    Raises:
        FlightError: no such baseline.
        MissionError: the map is too large for a peer that looks at all of it.
    """
    for name in names:
        if name not in BASELINES:
            raise FlightError("no such baseline", field="baselines", found=name, expected=", ".join(BASELINES))
    rows = {name: blank_rows(flown) for name in names}
    finders = _finders(localizer, flown, names, network)
    filtered, kalman = rows.get("ekf"), PlainFilter()
    for index in range(len(flown)):
        if on_frame is not None:
            on_frame()
        if not flown.told.present[index]:
            continue
        frame = flown.frame(index)
        for name, find in finders.items():
            place = None if frame.heading is None else find(frame)
            if place is not None:
                _note_centre(rows[name], index, flown, frame, place.easting, place.northing)
        if not {"single", "retrieval", "ekf"} & set(names):
            continue
        fix = localizer.locate(frame)
        if "single" in rows:
            note(rows["single"], index, fix, flown.local)
        if "retrieval" in rows and fix.candidates:
            best = fix.candidates[0]
            _note_centre(rows["retrieval"], index, flown, frame, best.easting, best.northing)
        if filtered is not None:
            _filter(kalman, filtered, index, frame, fix)
    return rows


def _finders(localizer: Localizer, flown: Flown, names: Sequence[str], network: Path | None) -> dict[str, Finder]:
    """Peers that look at the whole map, made ready for the largest view of the flight."""
    tallest = float(flown.told.height.max())
    blank = np.zeros((flown.camera.height, flown.camera.width), np.uint8)
    largest = Frame(blank, 0.0, tallest, heading=0.0)

    def features() -> Finder:
        detector: Detector = sift() if network is None else xfeat(network, localizer.threads)
        return matching(localizer, [largest], detector, None)[0]

    makers: dict[str, Callable[[], Finder]] = {
        "correlation": lambda: correlating(localizer, [largest], _REDUCTION, None)[0],
        "features": features,
    }
    return {name: make() for name, make in makers.items() if name in names}


def _note_centre(rows: Rows, index: int, flown: Flown, frame: Frame, east: float, north: float) -> None:
    """An answer that says where the image's middle lies, without a covariance."""
    attitude = (frame.heading or 0.0, frame.pitch or 0.0, frame.roll or 0.0)
    offset = ground_offset(flown.camera, camera_to_enu(flown.camera.mount, *attitude), frame.height)
    rows["status"][index] = REFINED
    rows["found_center_east"][index], rows["found_center_north"][index] = east, north
    rows["east"][index], rows["north"][index] = east - offset[0], north - offset[1]


def _filter(kalman: PlainFilter, rows: Rows, index: int, frame: Frame, fix: Fix) -> None:
    kalman.predict(frame.time)
    if frame.velocity is not None:
        sigma = frame.velocity_sigma if frame.velocity_sigma is not None else 1.0
        kalman.velocity(np.array(frame.velocity), sigma)
    if fix.alternatives:
        best = fix.alternatives[0]
        kalman.position(np.array([best.easting, best.northing]), best.covariance)
    if kalman.state is None or math.isnan(kalman.state[0]):
        rows["status"][index] = NO_FIX
        return
    rows["status"][index] = REFINED
    rows["east"][index], rows["north"][index] = kalman.state[:2]
    rows["var_east"][index], rows["var_north"][index] = kalman.covariance[0, 0], kalman.covariance[1, 1]
    rows["cov_east_north"][index] = kalman.covariance[0, 1]
