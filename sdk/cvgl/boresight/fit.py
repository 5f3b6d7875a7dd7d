"""From a flight with GNSS to its camera: locate, solve, and again with the better camera until nothing changes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from cvgl.boresight.sights import Finder, Sight, collect, usable
from cvgl.boresight.solve import FEWEST_SIGHTS, Solution, looks_at, solve
from cvgl.camera import Camera
from cvgl.errors import FlightError
from cvgl.flight import FrameRecord
from cvgl.geo import LocalFrame

__all__ = ["Calibration", "Change", "calibrate_camera", "position_errors"]

# A focal length is looked for in these factors of the one given, from the nearest outwards: EXIF's are up to a fifth
# off, and a match survives some 10 %.
_SCAN = tuple(math.exp(0.06 * step) for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5))
_SCANNED = 8
_ROUNDS = 8
# Done when a round changes nothing by more than this share of its uncertainty: matches differ a little in every round.
_SETTLED = 0.3
# A camera that was tilted anew during the flight: this many standard deviations, and at least this many degrees.
_CHANGE_SIGMAS = 6.0
_CHANGE_DEG = 2.0
_CHANGE_SIDE = 4


@dataclass(frozen=True)
class Change:
    """A moment at which the camera's tilt changed, as when a pilot turns the gimbal.

    Args:
        name: of the first frame after it.
        forward_deg, right_deg: by which the optical axis moved, towards image-up and image-right.
    """

    name: str
    forward_deg: float
    right_deg: float


@dataclass(frozen=True)
class Calibration:
    """What a flight says of its camera.

    Args:
        start: the camera it began from.
        solution: the fit, with the camera found for each part of the flight.
        sights: that it rests on, taken with the second last cameras.
        parts: of each sight, the index of its part of the flight.
        frames: that could have told: with GNSS, heading and height.
        rounds: of locating and solving.
        settled: whether the last round changed nothing to speak of.
        changes: of the camera's tilt during the flight, where its parts begin.
        errors_before, errors_after: metres from the aircraft's GNSS to the position that the given and the found
            camera put it at, one entry a sight. The found camera is judged on sights it was not fitted to: each half of
            the flight by the fit to the other.
    """

    start: Camera
    solution: Solution
    sights: tuple[Sight, ...]
    parts: tuple[int, ...]
    frames: int
    rounds: int
    settled: bool
    changes: tuple[Change, ...]
    errors_before: NDArray[np.float64]
    errors_after: NDArray[np.float64]


@dataclass(frozen=True)
class _Fit:
    """Where locating and solving have come to."""

    sights: list[Sight]
    parts: list[int]
    before: tuple[Camera, ...]
    solution: Solution
    rounds: int
    settled: bool


def calibrate_camera(
    finder: Finder,
    local: LocalFrame,
    records: Sequence[FrameRecord],
    camera: Camera,
    *,
    gnss_sigma_m: float = 2.5,
    heading_sigma_deg: float = 3.0,
    on_round: Callable[[int], Callable[[], None]] | None = None,
) -> Calibration:
    """Estimate focal length, mount, time offset and height offset from a flight's refined fixes and its GNSS.

    Where the camera's tilt changes during the flight, each part gets a tilt of its own and everything else is fitted
    to all of them together.

    Args:
        finder: the localiser of the flight's mission.
        local: the gallery's local tangent plane.
        records: the flight's frames in their order; those without GNSS, heading or height are passed over.
        camera: where to start; its focal length may be off by a quarter, its mount by some 15 degrees.
        gnss_sigma_m: of one position of the receiver, on each axis.
        heading_sigma_deg: of one reported heading.
        on_round: called with the number of frames of each round, returns what to call after each of them.

    Raises:
        FlightError: too few frames tell where they were, or too few of them are found on the map.
    """
    found = usable(records)
    if len(found) < FEWEST_SIGHTS:
        raise FlightError(
            "too few frames with a GNSS position, a heading and a height",
            found=len(found),
            expected=f"at least {FEWEST_SIGHTS}",
        )

    def look(candidate: Camera, frames: Sequence[FrameRecord], done: Callable[[], None] | None = None) -> list[Sight]:
        return collect(finder, local, candidate, frames, done)

    def fit(cameras: tuple[Camera, ...], starts: Sequence[int], rounds: int) -> _Fit:
        """Locate and solve until nothing changes; ``starts`` are the places in ``found`` where the parts begin."""
        most = rounds + _ROUNDS
        while True:
            done = None if on_round is None else on_round(len(found))
            sights: list[Sight] = []
            parts: list[int] = []
            for part, (first, last) in enumerate(pairwise((*starts, len(found)))):
                seen = look(cameras[part], found[first:last], done)
                sights += seen
                parts += [part] * len(seen)
            rounds += 1
            if len(sights) < FEWEST_SIGHTS:
                raise FlightError(
                    "too few frames are found on the map; is it this flight's, and the focal length within a quarter?",
                    found=f"{len(sights)} of {len(found)} refined",
                    expected=f"at least {FEWEST_SIGHTS}",
                )
            solution = solve(sights, cameras, parts, gnss_sigma_m, heading_sigma_deg)
            settled = _settled(cameras, solution)
            if settled or rounds == most:
                return _Fit(sights, parts, cameras, solution, rounds, settled)
            cameras = solution.cameras

    starts = [0]
    last = fit((_scanned(look, found, camera),), starts, 0)
    changes = _changes(last.sights, last.solution)
    if changes:
        names = [record.name for record in found]
        starts += [names.index(change.name) for change in changes]
        last = fit((last.solution.camera,) * len(starts), starts, last.rounds)
    sights, parts = last.sights, last.parts
    after = np.empty(len(sights))
    for own, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
        judged = solve(sights[other], last.before, parts[other], gnss_sigma_m, heading_sigma_deg).cameras
        after[own] = position_errors(sights[own], [judged[part] for part in parts[own]])
    return Calibration(
        start=camera,
        solution=last.solution,
        sights=tuple(sights),
        parts=tuple(parts),
        frames=len(found),
        rounds=last.rounds,
        settled=last.settled,
        changes=changes,
        errors_before=position_errors(sights, [camera] * len(sights)),
        errors_after=after,
    )


def position_errors(sights: Sequence[Sight], cameras: Sequence[Camera]) -> NDArray[np.float64]:
    """(N,) metres from each sight's GNSS position to where its camera says the aircraft was.

    The map's own offset from the receiver's positions is part of it, as it is in flight.
    """
    away = [s.center - looks_at(s, camera, s.height) - s.gnss for s, camera in zip(sights, cameras, strict=True)]
    return np.linalg.norm(np.array(away).reshape(-1, 2), axis=1)


def _scanned(
    look: Callable[[Camera, Sequence[FrameRecord]], list[Sight]], records: Sequence[FrameRecord], camera: Camera
) -> Camera:
    """The camera with the focal length, of those scanned, under which a few frames are matched most surely."""
    few = [records[index] for index in np.linspace(0, len(records) - 1, _SCANNED).round().astype(int)]
    few = list({record.name: record for record in few}.values())
    best, surest = camera, 0.0
    for factor in _SCAN:
        candidate = replace(camera, fx=camera.fx * factor, fy=camera.fy * factor)
        sights = look(candidate, few)
        sure = -sum(sight.log10_chance for sight in sights)
        if sure > surest:
            best, surest = candidate, sure
    return best


def _settled(before: Sequence[Camera], solution: Solution) -> bool:
    estimates = solution.estimates
    for part, (old, new) in enumerate(zip(before, solution.cameras, strict=True)):
        suffix = "" if len(before) == 1 else f"_{part + 1}"
        moved = {
            "focal_length": new.fx - old.fx,
            f"mount_roll{suffix}": new.mount.roll_deg - old.mount.roll_deg,
            f"mount_pitch{suffix}": new.mount.pitch_deg - old.mount.pitch_deg,
            "mount_yaw": new.mount.yaw_deg - old.mount.yaw_deg,
        }
        if any(abs(change) >= _SETTLED * estimates[name].sigma for name, change in moved.items()):
            return False
    return True


def _changes(sights: Sequence[Sight], solution: Solution) -> tuple[Change, ...]:
    """Where the flight falls into parts with different tilts, found by splitting it again and again in two."""
    heights = np.array([sight.height for sight in sights])
    left = solution.residuals
    tilts = np.degrees(np.arctan2(np.column_stack([left.forward_m, left.right_m]), heights[:, None]))
    changes: list[tuple[int, NDArray[np.float64]]] = []
    parts = [(0, len(sights))]
    while parts:
        first, last = parts.pop()
        split = _split(tilts[first:last])
        if split is not None:
            at, step = first + split[0], split[1]
            changes.append((at, step))
            parts += [(first, at), (at, last)]
    return tuple(
        Change(sights[at].name, float(step[0]), float(step[1])) for at, step in sorted(changes, key=lambda c: c[0])
    )


def _split(tilts: NDArray[np.float64]) -> tuple[int, NDArray[np.float64]] | None:
    """The split of (N, 2) tilts into two parts that leaves them most alike within, and the step between the parts.

    None where the step could be chance, or is too small to matter.
    """
    places = range(_CHANGE_SIDE, len(tilts) - _CHANGE_SIDE + 1)
    if not places:
        return None

    def rest(at: int) -> NDArray[np.float64]:
        parts = (tilts[:at], tilts[at:])
        return np.concatenate([np.abs(part - np.median(part, axis=0)) for part in parts])

    at = min(places, key=lambda place: float(rest(place).sum()))
    step = np.median(tilts[at:], axis=0) - np.median(tilts[:at], axis=0)
    # Median absolute deviation to standard deviation; the median of n is sure to 1.25 sigma / sqrt(n).
    sigma = 1.25 * 1.4826 * np.median(rest(at), axis=0) * math.sqrt(1 / at + 1 / (len(tilts) - at))
    sure = float(np.linalg.norm(step / np.maximum(sigma, 1e-6)))
    return (at, step) if sure > _CHANGE_SIGMAS and float(np.linalg.norm(step)) > _CHANGE_DEG else None
