"""The first look of refinement: a frame's orientation field slid over windows of the basemap, at a third of its detail.

Cheap enough to try every window that retrieval proposes under several heading errors; its peaks are hypotheses that
:mod:`cvgl.register` then accepts or rejects.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.orientation import orientation_field
from cvgl.rectify import Patch

__all__ = ["REDUCTION", "Peak", "Search", "find_peaks", "reduce_patch"]

# The fine patch and the basemap are reduced by this before they are compared.
REDUCTION = 3
# Peaks closer than this (metres at 0.5 m/px; it scales with the basemap's GSD) are one.
_SAME_PLACE_PX = 16.0
# With fewer windows their peaks say nothing of chance, and the spread of their surfaces has to serve.
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
        rank: share of the places searched that retrieval liked at least as well; by chance anything from 0 to 1.
    """

    easting: float
    northing: float
    turn_deg: float
    score: float
    rank: float = 1.0


@dataclass(frozen=True)
class Search:
    """A heading hypothesis: how the frame looks under it, and where it is looked for.

    Args:
        patches: the frame under several heading corrections (degrees clockwise): grey (size, size) at ``REDUCTION``
            times the basemap's GSD, all of one size.
        places: easting and northing where the patches' middle is looked for, metres; best first by retrieval.
    """

    patches: Sequence[tuple[float, Patch]]
    places: Sequence[tuple[float, float]]


def reduce_patch(patch: Patch, reduction: int) -> Patch:
    """The patch at ``reduction`` times its GSD; its size must be a multiple of ``reduction``."""
    side = patch.mask.shape[0] // reduction
    image = cv2.resize(patch.image, (side, side), interpolation=cv2.INTER_AREA)
    # A reduced pixel counts only if all of it was seen.
    mask = np.where(cv2.resize(patch.mask, (side, side), interpolation=cv2.INTER_AREA) >= 254, 255, 0)
    grow = np.array([[reduction, 0, (reduction - 1) / 2], [0, reduction, (reduction - 1) / 2], [0, 0, 1.0]])
    return Patch(image, mask.astype(np.uint8), patch.gsd * reduction, patch.offset, patch.to_camera @ grow)


def find_peaks(
    basemap: Basemap,
    searches: Sequence[Search],
    reach_m: float,
    keep: int,
    executor: Executor | None = None,
) -> list[tuple[int, Peak]]:
    """The best peaks of all searches with the index of their search, highest first, none near a better one.

    Args:
        basemap: grey.
        searches: heading hypotheses, each with its patches and places.
        reach_m: how far around each place.
        keep: how many peaks to return at most.
        executor: threads to share the windows among.
    """
    windows, ranks = [], []
    for index, search in enumerate(searches):
        templates = _Templates.of(search.patches, int(np.ceil(reach_m / (basemap.gsd * REDUCTION))))
        if templates is not None:  # None: featureless, there is nothing to correlate
            windows += [(index, templates, place) for place in search.places]
            ranks += [(order + 1) / len(search.places) for order in range(len(search.places))]
    if executor is None:
        found = [_look(basemap, templates, place) for _, templates, place in windows]
    else:
        found = list(executor.map(lambda window: _look(basemap, window[1], window[2]), windows))
    # Most windows are wrong, so the middle of their peaks is what chance reaches with this frame on this map. It stands
    # some four deviations high where surfaces are rough, less where the frame is all parallel lines.
    if len(found) >= _ENOUGH_WINDOWS:
        deviation = float(np.median([peak.score for peak, _ in found])) / _CHANCE_PEAK
    else:
        deviation = float(np.sqrt(np.median([spread for _, spread in found]))) if found else 0.0
    if deviation <= 0.0:
        return []
    near = _SAME_PLACE_PX * basemap.gsd
    peaks: list[tuple[int, Peak]] = []
    judged = zip(windows, ranks, found, strict=True)
    for (index, _, _), rank, (peak, _) in sorted(judged, key=lambda entry: -entry[2][0].score):
        if len(peaks) == keep:
            break
        if all(np.hypot(peak.easting - p.easting, peak.northing - p.northing) > near for _, p in peaks):
            peaks.append((index, replace(peak, score=peak.score / deviation, rank=rank)))
    return peaks


@dataclass(frozen=True)
class _Templates:
    """Conjugate spectra (T, padded, padded) of a frame's orientation field under several heading corrections."""

    turns_deg: list[float]
    spectra: NDArray[np.complex64]
    norms: list[float]
    side: int
    reach: int
    padded: int

    @classmethod
    def of(cls, patches: Sequence[tuple[float, Patch]], reach: int) -> _Templates | None:
        fields = [orientation_field(patch.image, patch.mask) for _, patch in patches]
        norms = [float(np.sqrt((np.abs(field) ** 2).sum())) for field in fields]
        if min(norms) == 0.0:
            return None
        side = fields[0].shape[0]
        padded = cv2.getOptimalDFTSize(side + 2 * reach)
        spectra = np.conj(np.stack([_dft(field, padded) for field in fields]))
        return cls([turn for turn, _ in patches], spectra, norms, side, reach, padded)


def _look(basemap: Basemap, templates: _Templates, place: tuple[float, float]) -> tuple[Peak, float]:
    """The best peak in the window around a place, its score not yet judged, and the mean square of the surfaces."""
    side, reach = templates.side, templates.reach
    window_side = side + 2 * reach
    column, row = basemap.to_pixel(*place)
    # Outer corner of the window in whole basemap pixels, so that reduced pixels are whole groups of them.
    left = round(float(column) + 0.5 - window_side * REDUCTION / 2)
    top = round(float(row) + 0.5 - window_side * REDUCTION / 2)
    grey = basemap.read(left, top, window_side * REDUCTION, window_side * REDUCTION)
    small = cv2.resize(grey, (window_side, window_side), interpolation=cv2.INTER_AREA)
    mask = None
    if grey.min() == 0:
        known = np.where(grey > 0, 255, 0).astype(np.uint8)
        whole = cv2.resize(known, (window_side, window_side), interpolation=cv2.INTER_AREA) == 255
        mask = np.where(whole, 255, 0).astype(np.uint8)
    spectrum = _dft(orientation_field(small, mask), templates.padded)
    best = (-np.inf, 0, 0, 0)
    squares = 0.0
    products = (templates.spectra * spectrum).view(np.float32).reshape(-1, templates.padded, templates.padded, 2)
    for index, (product, norm) in enumerate(zip(products, templates.norms, strict=True)):
        full = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)
        surface = np.ascontiguousarray(full[: 2 * reach + 1, : 2 * reach + 1, 0])
        _, value, _, (x, y) = cv2.minMaxLoc(surface)
        squares += float(cv2.norm(surface, cv2.NORM_L2SQR)) / surface.size / norm**2
        best = max(best, (value / norm, index, x, y))
    value, index, x, y = best
    centre_column = left + (x + side / 2) * REDUCTION - 0.5
    centre_row = top + (y + side / 2) * REDUCTION - 0.5
    easting, northing = basemap.to_local(centre_column, centre_row)
    peak = Peak(float(easting), float(northing), templates.turns_deg[index], value)
    return peak, squares / len(templates.spectra)


def _dft(field: NDArray[np.complex64], side: int) -> NDArray[np.complex64]:
    """Spectrum (side, side) of a field padded with zeros; OpenCV's transform is a third of numpy's time here."""
    padded = np.zeros((side, side), np.complex64)
    padded[: field.shape[0], : field.shape[1]] = field
    spectrum = cv2.dft(padded.view(np.float32).reshape(side, side, 2), flags=cv2.DFT_COMPLEX_OUTPUT)
    return np.ascontiguousarray(spectrum).view(np.complex64)[..., 0]
