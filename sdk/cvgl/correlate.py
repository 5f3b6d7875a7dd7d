"""The first look of refinement: a frame's orientation field slid over windows of the basemap, at a third of its detail.

Cheap enough to try every window that retrieval proposes under several heading errors; its peaks are hypotheses that
:mod:`cvgl.register` then accepts or rejects.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from cvgl.basemap import Basemap
from cvgl.native import match_windows, reduce
from cvgl.orientation import NOISE_LEVEL, SIGMA_PX, map_site
from cvgl.rectify import Look, Patch

__all__ = ["REDUCTION", "Peak", "Search", "find_peaks", "reduce_patch"]

# The fine patch and the basemap are reduced by this before they are compared.
REDUCTION = 3
# Peaks closer than this (metres at 0.5 m/px; it scales with the basemap's GSD) are one.
_SAME_PLACE_PX = 16.0
# With fewer peaks they say nothing of chance, and the spread of their surfaces has to serve.
_ENOUGH_WINDOWS = 5
_CHANCE_PEAK = 4.0


@dataclass(frozen=True)
class Peak:
    """A place where the frame's middle may be.

    Args:
        easting, northing: metres in the gallery's local tangent plane.
        turn_deg: correction of the heading, clockwise, under which it was found.
        score: height of the correlation peak, in quarters of what wrong windows reach (or, with few windows, in
            standard deviations of the correlations, which comes to about the same).
        order: of the place in retrieval's list, from 1.
        listed: places in that list.
        lists: lists that were searched, one a heading hypothesis.
    """

    easting: float
    northing: float
    turn_deg: float
    score: float
    order: int = 1
    listed: int = 1
    lists: int = 1


@dataclass(frozen=True)
class Search:
    """A heading hypothesis: how the frame looks under it, and where it is looked for.

    Args:
        looks: the frame under several heading corrections (degrees clockwise): grey (size, size) at ``REDUCTION``
            times the basemap's GSD, all of one size.
        places: easting and northing where the looks' middle is looked for, metres; best first by retrieval.
        decoys: places where it cannot be; their peaks are no answers, they only tell what chance reaches.
    """

    looks: Sequence[tuple[float, Look]]
    places: Sequence[tuple[float, float]]
    decoys: Sequence[tuple[float, float]] = ()


def reduce_patch(patch: Patch, reduction: int) -> Patch:
    """The patch at ``reduction`` times its GSD; its size must be a multiple of ``reduction``."""
    # A reduced pixel counts only if all of it was seen.
    image, mask = reduce(patch.image, patch.mask, reduction)
    grow = np.array([[reduction, 0, (reduction - 1) / 2], [0, reduction, (reduction - 1) / 2], [0, 0, 1.0]])
    return Patch(image, mask, patch.gsd * reduction, patch.offset, patch.to_camera @ grow, patch.aim)


def find_peaks(
    basemap: Basemap,
    searches: Sequence[Search],
    reach_m: float,
    keep: int,
    threads: int = 1,
) -> list[tuple[int, Peak]]:
    """The best peaks of all searches with the index of their search, highest first, none near a better one.

    Args:
        basemap: grey.
        searches: heading hypotheses, each with its looks and places.
        reach_m: how far around each place.
        keep: how many peaks to return at most.
        threads: to share the windows among; 0 for one a core. The answer does not depend on it.
    """
    reach = math.ceil(reach_m / (basemap.gsd * REDUCTION))
    sides = [(search.looks[0][1].mask.shape[0] + 2 * reach) * REDUCTION for search in searches]
    windows = [
        _window(basemap, index, sides[index], place, order)
        for index, search in enumerate(searches)
        for order, place in [*enumerate(search.places, 1), *((0, decoy) for decoy in search.decoys)]
    ]
    looks = [look for search in searches for _, look in search.looks]
    numbers = iter(range(len(looks)))
    matches = match_windows(
        looks,
        [list(islice(numbers, len(search.looks))) for search in searches],
        [(one.search, *map_site(basemap.pixels, one.left, one.top, sides[one.search])) for one in windows],
        reach,
        REDUCTION,
        SIGMA_PX,
        NOISE_LEVEL,
        threads,
    )
    # Featureless looks have nothing to correlate.
    seen = [(window, match) for window, match in zip(windows, matches, strict=True) if match is not None]
    windows = [window for window, _ in seen]
    found = [_peak(basemap, searches[window.search], window, match) for window, match in seen]
    near = _SAME_PLACE_PX * basemap.gsd
    deviation = _deviation(found, near)
    if deviation <= 0.0:
        return []
    peaks: list[tuple[int, Peak]] = []
    judged = [(window, peak) for window, (peak, _) in zip(windows, found, strict=True) if window.order]
    for window, peak in sorted(judged, key=lambda entry: -entry[1].score):
        if len(peaks) == keep:
            break
        if all(_apart(peak, other.easting, other.northing) > near for _, other in peaks):
            # Windows overlap. What several of them found is as high in each, but for rounding, which must not choose
            # the rank: the peak is the nearest one's.
            seers = [w for w, p in judged if w.search == window.search and _apart(peak, p.easting, p.northing) <= near]
            own = min(seers, key=lambda seer: _apart(peak, *seer.place))
            listed, lists = len(searches[own.search].places), sum(bool(search.places) for search in searches)
            judged_peak = replace(peak, score=peak.score / deviation, order=own.order, listed=listed, lists=lists)
            peaks.append((own.search, judged_peak))
    return peaks


def _deviation(found: Sequence[tuple[Peak, float]], near: float) -> float:
    """What one deviation of chance is with this frame on this map.

    Most windows are wrong, so the middle of their peaks is what chance reaches. It stands some four deviations high
    where surfaces are rough, less where the frame is all parallel lines. A peak that several windows see counts once:
    near a prior most windows may overlap the right place.
    """
    distinct: list[Peak] = []
    for peak, _ in sorted(found, key=lambda entry: -entry[0].score):
        if all(_apart(peak, other.easting, other.northing) > near for other in distinct):
            distinct.append(peak)
    if len(distinct) >= _ENOUGH_WINDOWS:
        return float(np.median([peak.score for peak in distinct])) / _CHANCE_PEAK
    return float(np.sqrt(np.median([spread for _, spread in found]))) if found else 0.0


def _apart(peak: Peak, easting: float, northing: float) -> float:
    return math.hypot(peak.easting - easting, peak.northing - northing)


@dataclass(frozen=True)
class _Window:
    """What is looked at around one place.

    Args:
        search: index of the search that it belongs to.
        place: easting and northing, metres.
        order: of the place in its search, from 1; 0 for a decoy.
        left, top: its first pixel in the basemap.
    """

    search: int
    place: tuple[float, float]
    order: int
    left: int
    top: int


def _window(basemap: Basemap, search: int, side: int, place: tuple[float, float], order: int) -> _Window:
    """The window of so many basemap pixels around a place."""
    column, row = basemap.to_pixel(*place)
    # Its outer corner in whole basemap pixels, so that reduced pixels are whole groups of them.
    left, top = round(float(column) + 0.5 - side / 2), round(float(row) + 0.5 - side / 2)
    return _Window(search, place, order, left, top)


def _peak(
    basemap: Basemap, search: Search, window: _Window, match: tuple[int, int, int, float, float]
) -> tuple[Peak, float]:
    """The best peak in a window, its score not yet judged, and the mean square of the surfaces."""
    index, x, y, height, mean_square = match
    turn, look = search.looks[index]
    half = look.mask.shape[0] / 2
    column, row = window.left + (x + half) * REDUCTION - 0.5, window.top + (y + half) * REDUCTION - 0.5
    easting, northing = basemap.to_local(column, row)
    return Peak(float(easting), float(northing), turn, height), mean_square
