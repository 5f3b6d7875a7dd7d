"""Refinement: from places that retrieval proposes to a frame registered on the basemap, with its evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.camera import Camera
from cvgl.correlate import REDUCTION, Peak, Search, find_peaks, reduce_patch
from cvgl.fix import Candidate
from cvgl.rectify import Patch, rectify, rectify_again
from cvgl.register import Correction, PoseSigmas, Registration, block_side, ground_around, register

__all__ = [
    "REACH_STRIDES",
    "STUDIED",
    "TURNS_DEG",
    "Hypothesis",
    "View",
    "examine",
    "footprint_sides",
    "look",
    "merge",
    "view_of",
]

# A patch larger than this (pixels a side) is cut to its middle: the middle is enough, and time is bounded.
_LARGEST_PATCH = 480
# Corrections of a given heading that are tried, degrees.
TURNS_DEG = (-8.0, -4.0, 0.0, 4.0, 8.0)
# How far around a place the frame is looked for, in strides of the gallery's tiles.
REACH_STRIDES = 1.5
# Hypotheses that are registered at full detail.
STUDIED = 2


@dataclass(frozen=True)
class View:
    """A grey frame under one heading hypothesis, rectified at the basemap's GSD.

    Args:
        camera: that took it.
        patch: what is registered; its size is a multiple of 6.
        half, third: the same at two and three times its GSD.
        rotation: (3, 3) camera to ENU that made it.
        height: metres above ground that made it.
        heading_deg: the vehicle's heading that made it.
        short_px: short side of the camera's footprint, pixels of the patch.
    """

    camera: Camera
    patch: Patch
    half: Patch
    third: Patch
    rotation: NDArray[np.float64]
    height: float
    heading_deg: float
    short_px: float

    def turned(self, patch: Patch, turn_deg: float) -> Patch:
        """One of the patches under a heading correction."""
        return patch if turn_deg == 0.0 else self._again(patch, Correction(turn_deg), self.height)

    def corrected(self, correction: Correction) -> tuple[Patch, float]:
        """The patch, in all detail, as a corrected pose would have made it, and that pose's height."""
        height = self.height * (1 + correction.scale)
        return self._again(self.patch, correction, height), height

    def _again(self, patch: Patch, correction: Correction, height: float) -> Patch:
        return rectify_again(patch, self.camera, correction.rotation(self.rotation), height)


@dataclass(frozen=True)
class Hypothesis:
    """A place that was looked at closely, from a peak."""

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
    half, third = reduce_patch(patch, 2), reduce_patch(patch, REDUCTION)
    return View(camera, patch, half, third, rotation, height, heading_deg, short / gsd)


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
    turns_deg: Sequence[float],
    reach_m: float,
    keep: int,
    executor: Executor | None,
) -> list[tuple[View, Peak]]:
    """The best correlation peaks of all views, each searched at its own places; highest first."""
    run = executor.map if executor is not None else map
    turned = [(view, turn) for view in views for turn in turns_deg]
    patches = iter(list(run(lambda entry: (entry[1], entry[0].turned(entry[0].third, entry[1])), turned)))
    searches = [Search(list(islice(patches, len(turns_deg))), at) for at in places]
    return [(views[index], peak) for index, peak in find_peaks(basemap, searches, reach_m, keep, executor)]


def examine(
    basemap: Basemap,
    peaks: Sequence[tuple[View, Peak]],
    turns_deg: Sequence[float],
    sigmas: PoseSigmas,
    executor: Executor | None,
) -> list[Hypothesis]:
    """Register every peak's place at half the detail, and the best few again at full detail from the pose found."""
    run = executor.map if executor is not None else map

    # The turns of a peak look at the same ground.
    sides = [view.half.mask.shape[0] for view, _ in peaks]
    places = [(side, 2, peak.easting, peak.northing) for side, (_, peak) in zip(sides, peaks, strict=True)]
    grounds = list(run(lambda place: ground_around(basemap, *place), places))

    def glance(entry: tuple[int, float]) -> Hypothesis | None:
        index, turn = entry
        view, peak = peaks[index]
        patch = view.turned(view.half, turn)
        start, side = Correction(turn), block_side(view.short_px)
        found = register(basemap, patch, peak.easting, peak.northing, start, view.height, side, sigmas, grounds[index])
        return None if found is None else Hypothesis(view, peak, found)

    def study(hypothesis: Hypothesis) -> Hypothesis | None:
        view, before = hypothesis.view, hypothesis.registration
        patch, height = view.corrected(before.correction)
        side = block_side(view.short_px)
        after = register(basemap, patch, before.easting, before.northing, before.correction, height, side, sigmas)
        return None if after is None else Hypothesis(view, hypothesis.peak, after)

    # The correlation of the whole frame is a poor judge of the heading, so the best peak is looked at under all.
    entries = [(0, turn) for turn in turns_deg] if peaks else []
    entries += [(index, peaks[index][1].turn_deg) for index in range(1, len(peaks))]
    glanced = [hypothesis for hypothesis in run(glance, entries) if hypothesis is not None]
    # Peak and evidence are in comparable units: standard deviations of chance.
    glanced.sort(key=lambda h: -(h.peak.score + h.registration.evidence))
    chosen: list[Hypothesis] = []
    for hypothesis in glanced:
        if len(chosen) < STUDIED and all(hypothesis.peak is not other.peak for other in chosen):
            chosen.append(hypothesis)
    return [studied for studied in run(study, chosen) if studied is not None]
