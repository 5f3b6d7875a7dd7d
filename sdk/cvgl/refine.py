"""Refinement: from places that retrieval proposes to a frame registered on the basemap, with its evidence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cvgl.ambiguity import look_alikes
from cvgl.basemap import Basemap
from cvgl.camera import Camera
from cvgl.correlate import REDUCTION, Peak, Search, find_peaks, reduce_patch
from cvgl.errors import FrameError
from cvgl.features.refiner import FeatureMatch, FeatureRefiner
from cvgl.fix import Candidate
from cvgl.footprint import footprint, footprint_sides
from cvgl.ground import aim, ground_offset
from cvgl.native import Template, best_match
from cvgl.orientation import map_field, orientation_field
from cvgl.rectify import Look, Patch, look_again, rectify, rectify_again
from cvgl.register import Correction, PoseSigmas, Registration, Trial, block_side, register

__all__ = [
    "REACH_STRIDES",
    "SECOND_PEAKS",
    "STUDIED",
    "TURNS_DEG",
    "Hypothesis",
    "View",
    "add_detail",
    "add_look_alikes",
    "ask_features",
    "examine",
    "examine_again",
    "examine_features",
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
# Where the first look leaves doubt: peaks that are registered, and hypotheses at full detail.
SECOND_PEAKS, SECOND_STUDIED = 12, 3
# How far around a fitted pose a frame is correlated in all detail, pixels: the surface tells what chance reaches.
_DETAIL_PX = 24
# Share of the blocks at half the detail that have to vote for a pose before no other heading is tried. At places that
# photos were not taken at one look in a hundred has so many: those are seen under one heading instead of five.
_AGREED = 0.5


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
        short_px: short side of a level camera's footprint, pixels of the patch.
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

    def looked(self, patch: Patch, correction: Correction) -> tuple[Look, NDArray[np.float64], float]:
        """One of the patches as a corrected pose would have made it, not yet made; its offset (2,) from the point
        below the camera, metres, and that pose's height.

        Raises:
            FrameError: the corrected pose looks to the horizon.
        """
        if correction == Correction():
            return patch.look, patch.offset, self.height
        height = self.height * (1 + correction.scale)
        look, offset = look_again(patch, self.camera, correction.rotation(self.rotation), height)
        return look, offset, height

    def corrected(self, correction: Correction) -> tuple[Patch, float]:
        """The patch, in all detail, as a corrected pose would have made it, and that pose's height."""
        height = self.height * (1 + correction.scale)
        return self._again(self.patch, correction, height), height

    def middle(self, correction: Correction) -> NDArray[np.float64]:
        """(2,) east and north from the patch's centre on the ground to the image's middle, by a corrected pose."""
        if self.patch.aim is None:
            return np.zeros(2)
        rotation, height = correction.rotation(self.rotation), self.height * (1 + correction.scale)
        middle, center = (
            ground_offset(self.camera, rotation, height, pixel, math.inf) for pixel in (None, self.patch.aim)
        )
        return middle - center

    def _again(self, patch: Patch, correction: Correction, height: float) -> Patch:
        return rectify_again(patch, self.camera, correction.rotation(self.rotation), height)


@dataclass(frozen=True)
class Hypothesis:
    """A place that was looked at closely, from a peak; with what local features and the peak in all detail say of it
    (standard deviations of chance) where they were asked.
    """

    view: View
    peak: Peak
    registration: Registration
    features: FeatureMatch | None = None
    detail: float | None = None


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
    short, _ = footprint_sides(camera, height)
    group = 2 * REDUCTION
    # Twice as far as the footprint reaches from the patch's centre, whatever the heading.
    pixel = aim(camera, rotation)
    corners = footprint(camera, rotation, height, points_a_side=1) - ground_offset(camera, rotation, height, pixel)
    across = 2 * float(np.hypot(corners[:, 0], corners[:, 1]).max())
    size = group * int(min(across / gsd, _LARGEST_PATCH) / group)
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
        (math.fsum(c.easting for c in group) / len(group), math.fsum(c.northing for c in group) / len(group))
        for group in groups
    ]


def look(
    basemap: Basemap,
    views: Sequence[View],
    places: Sequence[Sequence[tuple[float, float]]],
    turns_deg: Sequence[float],
    reach_m: float,
    keep: int,
    threads: int,
    decoys: Sequence[tuple[float, float]] = (),
) -> list[tuple[View, Peak]]:
    """The best correlation peaks of all views, each searched at its own places; highest first.

    The first view is also looked for at ``decoys``, where it cannot be, to tell what chance reaches.
    """
    searches = [
        Search(
            [(turn, view.looked(view.third, Correction(turn))[0]) for turn in turns_deg], at, () if index else decoys
        )
        for index, (view, at) in enumerate(zip(views, places, strict=True))
    ]
    return [(views[index], peak) for index, peak in find_peaks(basemap, searches, reach_m, keep, threads)]


def examine(
    basemap: Basemap,
    peaks: Sequence[tuple[View, Peak]],
    turns_deg: Sequence[float],
    sigmas: PoseSigmas,
    threads: int,
) -> list[Hypothesis]:
    """Register every peak's place at half the detail, and the best few again at full detail from the pose found."""
    studied = _study(basemap, _glance(basemap, peaks, turns_deg, sigmas, threads)[:STUDIED], sigmas, threads)
    return [hypothesis for hypothesis in studied if hypothesis is not None]


def examine_again(
    basemap: Basemap,
    peaks: Sequence[tuple[View, Peak]],
    turns_deg: Sequence[float],
    sigmas: PoseSigmas,
    threads: int,
) -> list[Hypothesis]:
    """As :func:`examine`, with more of the peaks and each place registered twice at full detail: where heading or tilt
    are far off, the first time ends short of the pose, which costs a right place much of its evidence and a wrong one
    nothing.
    """
    chosen = _glance(basemap, peaks, turns_deg, sigmas, threads)[:SECOND_STUDIED]
    once = [found for found in _study(basemap, chosen, sigmas, threads) if found is not None]
    twice = _study(basemap, once, sigmas, threads)
    return [again or before for before, again in zip(once, twice, strict=True)]


def add_detail(basemap: Basemap, hypotheses: Sequence[Hypothesis], executor: Executor | None) -> list[Hypothesis]:
    """The hypotheses with the height of the whole frame's correlation peak in all detail, under their fitted pose.

    The first peak is of a third of the detail and of the pose that the frame came with. At wrong places the two know
    nothing of each other, nor of the blocks.
    """
    run = executor.map if executor is not None else map

    def measure(hypothesis: Hypothesis) -> Hypothesis:
        view, place = hypothesis.view, hypothesis.registration
        try:
            patch, _ = view.corrected(place.correction)
        except FrameError:
            return hypothesis  # the fitted pose looks to the horizon
        template = Template(orientation_field(patch.image, patch.mask), _DETAIL_PX)
        if not template.norm > 0.0:
            return hypothesis
        side = patch.mask.shape[0]
        column, row = basemap.to_pixel(place.easting, place.northing)
        left, top = (round(float(at) - (side - 1) / 2) - _DETAIL_PX for at in (column, row))
        field, _ = map_field(basemap.pixels, left, top, side + 2 * _DETAIL_PX, 1)
        *_, height, mean_square = best_match([template], field)
        return replace(hypothesis, detail=height / math.sqrt(mean_square) if mean_square > 0.0 else 0.0)

    return list(run(measure, hypotheses))


def _glance(
    basemap: Basemap,
    peaks: Sequence[tuple[View, Peak]],
    turns_deg: Sequence[float],
    sigmas: PoseSigmas,
    threads: int,
) -> list[Hypothesis]:
    """Every peak's place registered at half the detail, best first."""
    looks: dict[tuple[int, float], tuple[Look, NDArray[np.float64], float]] = {}

    def trial(view: View, peak: Peak, turn: float) -> Trial:
        key = id(view), turn
        if key not in looks:
            looks[key] = view.looked(view.half, Correction(turn))
        look, offset, height = looks[key]
        side = block_side(view.short_px)
        return Trial(look, offset, peak.easting, peak.northing, Correction(turn), height, side, view.patch.offset)

    def glance(places: Sequence[tuple[View, Peak]], turns: Sequence[float]) -> list[Hypothesis | None]:
        trials = [trial(view, peak, turn) for (view, peak), turn in zip(places, turns, strict=True)]
        found = register(basemap, trials, 2 * basemap.gsd, sigmas, threads)
        return [
            None if place is None else Hypothesis(view, peak, place)
            for (view, peak), place in zip(places, found, strict=True)
        ]

    found = glance(peaks, [peak.turn_deg for _, peak in peaks])
    # The correlation of the whole frame is a poor judge of the heading, so the best peak is looked at under all; unless
    # most of its blocks already agree on a pose: from there the fit finds its heading by itself.
    if peaks and (found[0] is None or found[0].registration.votes < _AGREED):
        others = [turn for turn in turns_deg if turn != peaks[0][1].turn_deg]
        found += glance([peaks[0]] * len(others), others)
    glanced = [hypothesis for hypothesis in found if hypothesis is not None]
    # Peak and evidence are in comparable units: standard deviations of chance.
    glanced.sort(key=lambda h: -(h.peak.score + h.registration.evidence))
    chosen: list[Hypothesis] = []
    for hypothesis in glanced:
        if all(hypothesis.peak is not other.peak for other in chosen):
            chosen.append(hypothesis)
    return chosen


def add_look_alikes(
    basemap: Basemap,
    hypotheses: Sequence[Hypothesis],
    reach_m: float,
    apart_m: float,
    sigmas: PoseSigmas,
    threads: int = 1,
) -> list[Hypothesis]:
    """The hypotheses, and those places around the best of them that look alike on the map and to the frame.

    Args:
        reach_m: how far around is looked.
        apart_m: closer than this is the same place.
    """
    if not hypotheses:
        return []
    best = max(hypotheses, key=lambda h: h.peak.score + h.registration.evidence)
    place, view = best.registration, best.view
    try:
        patch = view.turned(view.third, place.correction.turn_deg)
    except FrameError:
        return list(hypotheses)  # the fitted pose looks to the horizon
    known = [(h.registration.easting, h.registration.northing) for h in hypotheses]
    rivals: list[Hypothesis] = []
    for other in look_alikes(basemap, patch, place.easting, place.northing, reach_m, apart_m):
        if min(math.hypot(other.easting - east, other.northing - north) for east, north in known) <= apart_m:
            continue
        peak = replace(
            best.peak, easting=other.easting, northing=other.northing, score=best.peak.score * other.peak_ratio
        )
        moved = replace(place, easting=other.easting, northing=other.northing)
        rivals.append(Hypothesis(view, peak, moved))
    return [*hypotheses, *(found for found in _study(basemap, rivals, sigmas, threads) if found is not None)]


def _study(
    basemap: Basemap, hypotheses: Sequence[Hypothesis], sigmas: PoseSigmas, threads: int
) -> list[Hypothesis | None]:
    """Hypotheses registered at full detail from the poses that they have; None where there is too little to see."""
    trials: dict[int, Trial] = {}
    for index, hypothesis in enumerate(hypotheses):
        view, before = hypothesis.view, hypothesis.registration
        try:
            look, offset, height = view.looked(view.patch, before.correction)
        except FrameError:
            continue  # the fitted pose looks to the horizon
        at, side = (before.easting, before.northing), block_side(view.short_px)
        trials[index] = Trial(look, offset, *at, before.correction, height, side, view.patch.offset)
    studied: list[Hypothesis | None] = [None] * len(hypotheses)
    found = register(basemap, list(trials.values()), basemap.gsd, sigmas, threads)
    for index, after in zip(trials, found, strict=True):
        if after is not None:
            studied[index] = Hypothesis(hypotheses[index].view, hypotheses[index].peak, after)
    return studied


def ask_features(
    basemap: Basemap,
    hypotheses: Sequence[Hypothesis],
    doubtful: Sequence[Hypothesis],
    refiner: FeatureRefiner,
    sigmas: PoseSigmas,
    executor: Executor | None,
) -> list[Hypothesis]:
    """The hypotheses, the doubtful ones among them with what local features say of them."""
    run = executor.map if executor is not None else map
    asked = {id(hypothesis) for hypothesis in doubtful}

    def ask(hypothesis: Hypothesis) -> Hypothesis:
        if id(hypothesis) not in asked:
            return hypothesis
        view, place = hypothesis.view, hypothesis.registration
        try:
            patch, _ = view.corrected(place.correction)
        except FrameError:
            return hypothesis  # the fitted pose looks to the horizon
        found = _look(refiner, basemap, view, patch, place, place.correction, sigmas, executor)
        return replace(hypothesis, features=found)

    return list(run(ask, hypotheses))


def examine_features(
    basemap: Basemap,
    peaks: Sequence[tuple[View, Peak]],
    refiner: FeatureRefiner,
    sigmas: PoseSigmas,
    executor: Executor | None,
) -> list[Hypothesis]:
    """The best peaks' places by local features alone; those where they find a plausible place.

    Their registration holds what the features found; its evidence is minus infinity, since no blocks were asked.
    """
    run = executor.map if executor is not None else map

    def study(entry: tuple[View, Peak]) -> Hypothesis | None:
        view, peak = entry
        applied = Correction(peak.turn_deg)
        patch = view.turned(view.patch, peak.turn_deg)
        found = _look(refiner, basemap, view, patch, peak, applied, sigmas, executor)
        if found.reason or found.covariance is None:
            return None
        place = Registration(
            easting=found.easting,
            northing=found.northing,
            covariance=found.covariance,
            correction=found.correction,
            turn_sigma_deg=found.turn_sigma_deg,
            blocks=found.matches,
            votes=found.inliers / found.matches,
            evidence=-math.inf,
            residual_m=math.nan,
        )
        return Hypothesis(view, peak, place, found)

    return [studied for studied in run(study, peaks[:STUDIED]) if studied is not None]


def _look(
    refiner: FeatureRefiner,
    basemap: Basemap,
    view: View,
    patch: Patch,
    place: Peak | Registration,
    applied: Correction,
    sigmas: PoseSigmas,
    executor: Executor | None,
) -> FeatureMatch:
    return refiner.look(
        basemap,
        patch,
        place.easting,
        place.northing,
        applied,
        view.rotation,
        view.height,
        sigmas,
        view.patch.offset,
        executor,
    )
