"""The first look of refinement: a frame's orientation field slid over windows of the basemap, at a third of its detail.

Cheap enough to try every window that retrieval proposes under several heading errors; its peaks are hypotheses that
:mod:`cvgl.register` then accepts or rejects.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.orientation import orientation_field
from cvgl.rectify import Patch

__all__ = ["Peak", "find_peaks", "reduce_patch"]

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
    """

    easting: float
    northing: float
    turn_deg: float
    score: float


def reduce_patch(patch: Patch, reduction: int = REDUCTION) -> Patch:
    """The patch at ``reduction`` times its GSD; its size must be a multiple of ``reduction``."""
    if reduction == 1:
        return patch
    side = patch.mask.shape[0] // reduction
    image = cv2.resize(patch.image, (side, side), interpolation=cv2.INTER_AREA)
    # A reduced pixel counts only if all of it was seen.
    mask = np.where(cv2.resize(patch.mask, (side, side), interpolation=cv2.INTER_AREA) >= 254, 255, 0)
    grow = np.array([[reduction, 0, (reduction - 1) / 2], [0, reduction, (reduction - 1) / 2], [0, 0, 1.0]])
    return Patch(image, mask.astype(np.uint8), patch.gsd * reduction, patch.offset, patch.to_camera @ grow)


def find_peaks(
    basemap: Basemap,
    patches: Sequence[tuple[float, Patch]],
    places: Sequence[tuple[float, float]],
    reach_m: float,
    keep: int,
    executor: Executor | None = None,
) -> list[Peak]:
    """The best peaks, highest first, at most one a place and none near a better one.

    Args:
        basemap: grey, at the patches' GSD.
        patches: the frame under several heading corrections (degrees clockwise): grey (size, size), all of one size,
            a multiple of 3.
        places: easting and northing where the patches' middle is looked for, metres.
        reach_m: how far around each place.
        keep: how many peaks to return at most.
        executor: threads to share the windows among.
    """
    templates = []
    for _, patch in patches:
        small = reduce_patch(patch)
        templates.append(orientation_field(small.image, small.mask))
    side = templates[0].shape[0]
    gsd = basemap.gsd * REDUCTION
    reach = int(np.ceil(reach_m / gsd))
    window_side = side + 2 * reach
    padded = cv2.getOptimalDFTSize(window_side)
    spectra, norms = [], []
    for template in templates:
        norms.append(float(np.sqrt((np.abs(template) ** 2).sum())))
        spectra.append(_dft(template, padded))
    if min(norms) == 0.0:  # featureless: there is nothing to correlate
        return []

    def look(place: tuple[float, float]) -> tuple[float, float, int, float, float, int]:
        column, row = basemap.to_pixel(*place)
        # Outer corner of the window in whole basemap pixels, so that reduced pixels are whole groups of them.
        left = round(float(column) + 0.5 - window_side * REDUCTION / 2)
        top = round(float(row) + 0.5 - window_side * REDUCTION / 2)
        grey = basemap.read(left, top, window_side * REDUCTION, window_side * REDUCTION)
        small = cv2.resize(grey, (window_side, window_side), interpolation=cv2.INTER_AREA)
        known = cv2.resize(
            (grey > 0).astype(np.uint8) * np.uint8(255), (window_side, window_side), interpolation=cv2.INTER_AREA
        )
        mask = None if known.min() == 255 else np.where(known == 255, 255, 0).astype(np.uint8)
        spectrum = _dft(orientation_field(np.asarray(small), mask), padded)
        best = (-np.inf, 0, 0, 0)
        total, squares, count = 0.0, 0.0, 0
        for index, (template, norm) in enumerate(zip(spectra, norms, strict=True)):
            product = cv2.mulSpectrums(spectrum, template, 0, conjB=True)
            surface = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[: 2 * reach + 1, : 2 * reach + 1, 0]
            _, top_value, _, (x, y) = cv2.minMaxLoc(np.ascontiguousarray(surface))
            mean, deviation = cv2.meanStdDev(surface)
            total += float(mean[0, 0]) / norm
            squares += float(mean[0, 0] ** 2 + deviation[0, 0] ** 2) / norm**2
            count += 1
            best = max(best, (top_value / norm, index, x, y))
        value, index, x, y = best
        centre_column = left + (x + side / 2) * REDUCTION - 0.5
        centre_row = top + (y + side / 2) * REDUCTION - 0.5
        easting, northing = basemap.to_local(centre_column, centre_row)
        return value, squares / count, index, float(easting), float(northing), count

    found = list(executor.map(look, places)) if executor is not None else [look(place) for place in places]
    # Most windows are wrong, so the middle of their peaks is what chance reaches with this frame on this map. It stands
    # some four deviations high where surfaces are rough, less where the frame is all parallel lines.
    if len(found) >= _ENOUGH_WINDOWS:
        deviation = float(np.median([entry[0] for entry in found])) / _CHANCE_PEAK
    else:
        deviation = float(np.sqrt(np.median([entry[1] for entry in found]))) if found else 0.0
    if deviation <= 0.0:
        return []
    peaks: list[Peak] = []
    for value, _, index, easting, northing, _ in sorted(found, key=lambda entry: -entry[0]):
        near = _SAME_PLACE_PX * basemap.gsd
        if all(np.hypot(easting - peak.easting, northing - peak.northing) > near for peak in peaks):
            peaks.append(Peak(easting, northing, patches[index][0], value / deviation))
        if len(peaks) == keep:
            break
    return peaks


def _dft(field: NDArray[np.complex64], side: int) -> NDArray[np.float32]:
    padded = np.zeros((side, side, 2), np.float32)
    padded[: field.shape[0], : field.shape[1]] = field.view(np.float32).reshape(*field.shape, 2)
    return np.asarray(cv2.dft(padded, flags=cv2.DFT_COMPLEX_OUTPUT))
