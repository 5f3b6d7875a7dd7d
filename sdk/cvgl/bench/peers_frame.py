"""Whole frames: ours beside peers that look at the whole map, from the decoded picture to a place on the ground."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.bench.peers_features import Detector, FeatureMap
from cvgl.bench.peers_map import Place, WholeMap
from cvgl.camera import Camera
from cvgl.errors import FrameError
from cvgl.fix import FixStatus
from cvgl.flight import FrameRecord
from cvgl.footprint import footprint_sides
from cvgl.frame import Frame
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu
from cvgl.localizer import Localizer
from cvgl.rectify import Patch, rectify
from cvgl.refine import TURNS_DEG, View, view_of

__all__ = ["Finder", "correlating", "errors_m", "judge", "locating", "matching"]

Finder = Callable[[Frame], Place | None]
"""A frame to where its middle lies; None where there is no answer."""

NEAR_M, FAR_M = 10.0, 25.0
_DETAILS = (1, 2, 3)
# Windows of the map for local features: so many long sides of the footprint, and from one to the next.
_WINDOW, _STEP = 1.3, 0.65


def locating(localizer: Localizer) -> Finder:
    """``Localizer.locate``; only a refined fix is an answer."""

    def find(frame: Frame) -> Place | None:
        fix = localizer.locate(frame)
        if fix.status is not FixStatus.REFINED:
            return None
        easting, northing = localizer.gallery.local.to_local(fix.center_latitude, fix.center_longitude)
        return Place(float(easting), float(northing), fix.score)

    return find


def correlating(
    localizer: Localizer, frames: Sequence[Frame], reduction: int, executor: Executor | None
) -> tuple[Finder, WholeMap]:
    """Gradient-orientation correlation with the whole basemap, under the heading corrections that ours tries.

    Args:
        localizer: its basemap and camera.
        frames: those that will be searched for; the largest decides for what the map is made ready.
        reduction: 1 for all of the basemap's detail, 2 for half of it, 3 for a third (that of our first look).
        executor: threads.

    Raises:
        FrameError: a frame without a heading, or a reduction that no patch is made for.
        MissionError: the map is too large for its spectra to be kept.
    """
    if reduction not in _DETAILS:
        raise FrameError("no such detail", field="reduction", found=reduction, expected="1, 2 or 3")
    largest = max(_reduced(_view(localizer, frame), reduction).mask.shape[0] for frame in frames)
    whole = WholeMap(localizer.gallery.basemap, largest, reduction=reduction, executor=executor)

    def find(frame: Frame) -> Place | None:
        view = _view(localizer, frame)
        return whole.find([view.turned(_reduced(view, reduction), turn) for turn in TURNS_DEG])

    return find, whole


def matching(
    localizer: Localizer,
    frames: Sequence[Frame],
    detector: Detector,
    executor: Executor | None,
    basemap: Basemap | None = None,
    on_window: Callable[[int, int], None] | None = None,
) -> tuple[Finder, FeatureMap]:
    """Local features of the rectified frame against every window of the map.

    Args:
        localizer: its camera.
        frames: those that will be searched for; the largest footprint decides how large windows are.
        detector: the kind of features.
        executor: threads.
        basemap: the map; None for the localiser's, another for more detail.
        on_window: see :class:`cvgl.bench.peers_features.FeatureMap`.

    Raises:
        FrameError: a frame without a heading.
    """
    chosen = localizer.gallery.basemap if basemap is None else basemap
    sides = [footprint_sides(_camera(localizer, frame), frame.height) for frame in frames]
    longest = max(side for _, side in sides)
    window, step = (int(share * longest / chosen.gsd) for share in (_WINDOW, _STEP))
    features = FeatureMap(chosen, detector, window_px=window, step_px=step, executor=executor, on_window=on_window)
    size = math.ceil(max(math.hypot(*side) for side in sides) / chosen.gsd)

    def find(frame: Frame) -> Place | None:
        camera, rotation = _camera(localizer, frame), _rotation(localizer, frame)
        patch = rectify(frame.grey(), camera, rotation, frame.height, chosen.gsd, size, localizer.threads)
        return features.find(patch)

    return find, features


def errors_m(records: Sequence[FrameRecord], places: Sequence[Place | None], local: LocalFrame) -> NDArray[np.float64]:
    """(N,) metres from each frame's reference; infinite where there is no answer, NaN where there is no reference."""
    errors = np.full(len(records), np.nan)
    for index, (record, place) in enumerate(zip(records, places, strict=True)):
        if record.center_latitude is not None and record.center_longitude is not None:
            east, north = local.to_local(record.center_latitude, record.center_longitude)
            errors[index] = math.inf if place is None else math.hypot(place.easting - east, place.northing - north)
    return errors


def judge(errors: NDArray[np.float64]) -> dict[str, float | int | None]:
    """Errors as figures: ``referenced`` and ``answered`` frames, share ``within_10m`` of the referenced, and of the
    answered ones ``median_m`` and how many lie ``beyond_25m``."""
    referenced = errors[~np.isnan(errors)]
    answered = referenced[np.isfinite(referenced)]
    return {
        "referenced": len(referenced),
        "answered": len(answered),
        "within_10m": round(float((referenced <= NEAR_M).mean()), 4) if len(referenced) else None,
        "median_m": round(float(np.median(answered)), 2) if len(answered) else None,
        "beyond_25m": int((answered > FAR_M).sum()),
    }


def _view(localizer: Localizer, frame: Frame) -> View:
    camera, rotation = _camera(localizer, frame), _rotation(localizer, frame)
    heading, gsd = float(frame.heading or 0.0), localizer.gallery.basemap.gsd
    return view_of(frame.grey(), camera, rotation, frame.height, heading, gsd, localizer.threads)


def _reduced(view: View, reduction: int) -> Patch:
    return {1: view.patch, 2: view.half, 3: view.third}[reduction]


def _camera(localizer: Localizer, frame: Frame) -> Camera:
    return localizer.camera.scaled_to(*frame.size)


def _rotation(localizer: Localizer, frame: Frame) -> NDArray[np.float64]:
    if frame.heading is None:
        raise FrameError("peers need a heading", field="heading")
    return camera_to_enu(localizer.camera.mount, frame.heading, frame.pitch or 0.0, frame.roll or 0.0)
