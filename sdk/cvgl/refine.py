"""Refinement: from places that retrieval proposes to a frame registered on the basemap, with its evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.camera import Camera
from cvgl.correlate import REDUCTION, Peak, find_peaks, turn_patch
from cvgl.fix import Candidate
from cvgl.rectify import Patch, rectify
from cvgl.register import Correction, PoseSigmas, Registration, block_side, register

__all__ = ["Hypothesis", "View", "examine", "footprint_sides", "look", "merge", "view_of"]

# A patch larger than this (pixels a side) is cut to its middle: the middle is enough, and time is bounded.
_LARGEST_PATCH = 480
_TURNS_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)


@dataclass(frozen=True)
class View:
    """A grey frame under one heading hypothesis, rectified at the basemap's GSD.

    Args:
        patch: what is correlated.
        rotation: (3, 3) camera to ENU that made it.
        height: metres above ground that made it.
        heading_deg: the vehicle's heading that made it.
        short_px: short side of the camera's footprint, pixels of the patch.
    """

    patch: Patch
    rotation: NDArray[np.float64]
    height: float
    heading_deg: float
    short_px: float


@dataclass(frozen=True)
class Hypothesis:
    """A place that was looked at closely."""

    view: View
    peak: Peak
    registration: Registration


def footprint_sides(camera: Camera, height: float) -> tuple[float, float]:
    """Short and long side of the ground that a level camera sees, metres."""
    right, bottom = camera.width - 0.5, camera.height - 0.5
    corners = camera.rays([[-0.5, -0.5], [right, -0.5], [right, bottom]])[:, :2] * height
    sides = np.linalg.norm(np.diff(corners, axis=0), axis=1)
    return float(sides.min()), float(sides.max())


def view_of(
    grey: NDArray[np.uint8],
    camera: Camera,
    rotation: NDArray[np.float64],
    height: float,
    heading_deg: float,
    gsd: float,
    threads: int,
) -> View:
    """Rectify a grey frame for refinement.

    Raises:
        FrameError: the camera does not look at the ground.
    """
    short, long = footprint_sides(camera, height)
    group = 2 * REDUCTION
    size = group * int(min(math.hypot(short, long) / gsd, _LARGEST_PATCH) / group)
    patch = rectify(grey, camera, rotation, height, gsd, max(size, group), threads)
    return View(patch, rotation, height, heading_deg, short / gsd)


def merge(candidates: Sequence[Candidate], reach_m: float) -> list[tuple[float, float]]:
    """Places (easting, northing) to search, best first: candidates near a better one's place join it.

    A place is the mean of its candidates, so that a window looks at the middle of those that agree.
    """
    groups: list[list[Candidate]] = []
    for candidate in candidates:
        for group in groups:
            lead = group[0]
            if math.hypot(candidate.easting - lead.easting, candidate.northing - lead.northing) <= reach_m:
                group.append(candidate)
                break
        else:
            groups.append([candidate])
    return [
        (float(np.mean([c.easting for c in group])), float(np.mean([c.northing for c in group]))) for group in groups
    ]


def look(
    basemap: Basemap,
    views: Sequence[View],
    places: Sequence[Sequence[tuple[float, float]]],
    reach_m: float,
    keep: int,
    executor: Executor | None,
) -> list[tuple[View, Peak]]:
    """The best correlation peaks of all views, each searched at its own places; highest first."""
    found = [
        (view, peak)
        for view, at in zip(views, places, strict=True)
        for peak in find_peaks(basemap, view.patch, at, _TURNS_DEG, reach_m, keep, executor)
    ]
    return sorted(found, key=lambda entry: -entry[1].score)[:keep]


def examine(
    basemap: Basemap,
    grey: NDArray[np.uint8],
    camera: Camera,
    peaks: Sequence[tuple[View, Peak]],
    sigmas: PoseSigmas,
    executor: Executor | None,
) -> list[Hypothesis]:
    """Register every peak's place block by block, twice: the second time from the pose that the first one found."""

    def one(entry: tuple[View, Peak]) -> Hypothesis | None:
        view, peak = entry
        side = block_side(view.short_px)
        turned = turn_patch(view.patch, peak.turn_deg)
        start = Correction(peak.turn_deg)
        first = register(basemap, turned, peak.easting, peak.northing, start, view.height, side, sigmas)
        if first is None:
            return None
        better = first.correction
        height = view.height * (1 + better.scale)
        size = view.patch.mask.shape[0]
        again = rectify(grey, camera, better.rotation(view.rotation), height, basemap.gsd, size, 1)
        second = register(basemap, again, first.easting, first.northing, better, height, side, sigmas)
        return Hypothesis(view, peak, second or first)

    found = executor.map(one, peaks) if executor is not None else map(one, peaks)
    return [hypothesis for hypothesis in found if hypothesis is not None]
