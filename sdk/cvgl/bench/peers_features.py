"""The peer that matches local features: a frame against every window of the map, as deployed research systems do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.bench.peers_map import Place
from cvgl.errors import MissionError
from cvgl.features.detect import Detector, Features, seen_features, sift, xfeat
from cvgl.rectify import Patch

__all__ = ["Detector", "FeatureMap", "Features", "sift", "xfeat"]

# MAGSAC++ scores within this; pixels of the map.
_WITHIN_PX = 4.0
_ROUNDS, _CONFIDENCE = 2000, 0.999
# Fewer matches than this agree on a homography by chance.
_LEAST = 8
# A homography that shrinks or stretches the frame by more is none of a picture whose scale is known.
_STRETCH = 1.5
_MOST_WINDOWS = 800


class FeatureMap:
    """A map whose features are made beforehand, window by window, and matched with frames exhaustively.

    Windows overlap so that every place lies well inside one of them. A frame's features are matched to each window's by
    mutual nearest neighbours; MAGSAC++ fits a homography where enough of them do, the fullest windows first, until no
    window left has as many matches as the best has inliers. That skips work without changing the answer.

    Args:
        basemap: the map.
        detector: the kind of features.
        window_px: side of a window.
        step_px: from one to the next.
        executor: threads to share the windows among.
        on_window: called when a window is done, with the number done and the number of all.

    Raises:
        MissionError: more windows than anyone would wait for.
    """

    def __init__(
        self,
        basemap: Basemap,
        detector: Detector,
        *,
        window_px: int,
        step_px: int,
        executor: Executor | None = None,
        on_window: Callable[[int, int], None] | None = None,
    ) -> None:
        self.basemap = basemap
        self.detector = detector
        self._run: Any = executor.map if executor is not None else map
        self.windows: list[Features] = []
        corners = list(_corners(basemap.pixels.shape, window_px, step_px))
        if len(corners) > _MOST_WINDOWS:
            raise MissionError(
                "too large to match every window of it",
                field="map",
                found=f"{len(corners)} windows",
                expected=f"at most {_MOST_WINDOWS}",
            )
        for number, (left, top) in enumerate(corners, start=1):
            found = detector.detect(basemap.read(left, top, window_px, window_px))
            self.windows.append(Features(found.points + np.array([left, top], np.float32), found.descriptors))
            if on_window is not None:
                on_window(number, len(corners))

    @property
    def memory_bytes(self) -> int:
        """Of the features."""
        return sum(window.points.nbytes + window.descriptors.nbytes for window in self.windows)

    def find(self, patch: Patch) -> Place | None:
        """Where the patch's middle lies, its score the number of inliers; None where no window agrees.

        Args:
            patch: the frame, north-up, grey, at the map's GSD.
        """
        frame = seen_features(self.detector, patch.image, patch.mask)
        if len(frame.points) < _LEAST:
            return None
        matched = list(self._run(lambda window: _match(frame, window, self.detector), self.windows))
        order = sorted(range(len(matched)), key=lambda index: -len(matched[index][0]))
        middle = (patch.mask.shape[0] - 1) / 2
        best: Place | None = None
        for index in order:
            of_frame, of_window = matched[index]
            if len(of_frame) < max(_LEAST, 0 if best is None else best.score):
                break
            window = self.windows[index]
            found = _verify(frame.points[of_frame], window.points[of_window], middle)
            if found is not None and (best is None or found[2] > best.score):
                easting, northing = self.basemap.to_local(found[0], found[1])
                best = Place(float(easting), float(northing), float(found[2]))
        return best


def _corners(shape: tuple[int, ...], window: int, step: int) -> Iterator[tuple[int, int]]:
    """Left and top of windows that cover the map, the last of a row or column flush with its edge."""

    def starts(extent: int) -> Sequence[int]:
        last = max(0, extent - window)
        return sorted({*range(0, last, step), last})

    return ((left, top) for top in starts(shape[0]) for left in starts(shape[1]))


def _match(one: Features, other: Features, kind: Detector) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Mutual nearest neighbours: indices into both."""
    if len(other.points) < 2:
        empty = np.empty(0, np.intp)
        return empty, empty
    cosines = one.descriptors @ other.descriptors.T
    forward, backward = cosines.argmax(axis=1), cosines.argmax(axis=0)
    numbers = np.arange(len(forward))
    nearest = cosines[numbers, forward]
    kept = (backward[forward] == numbers) & (nearest >= kind.least_cosine)
    if kind.ratio < 1.0:
        cosines[numbers, forward] = -1.0
        second = cosines.max(axis=1)
        # Squared distances of unit vectors are 2 - 2 cosine.
        kept &= (1 - nearest) <= kind.ratio**2 * (1 - second)
    return numbers[kept], forward[kept]


def _verify(frame: NDArray[np.float32], window: NDArray[np.float32], middle: float) -> tuple[float, float, int] | None:
    """Column and row on the map of the frame's middle, and how many matches agree."""
    cv2.setRNGSeed(0)
    homography, inliers = cv2.findHomography(
        frame, window, cv2.USAC_MAGSAC, _WITHIN_PX, maxIters=_ROUNDS, confidence=_CONFIDENCE
    )
    if homography is None or inliers is None:
        return None
    corners = np.array([[middle, middle], [middle + 1, middle], [middle, middle + 1]], np.float32)
    placed = cv2.perspectiveTransform(corners[None], homography)[0]
    right, down = placed[1] - placed[0], placed[2] - placed[0]
    area = float(right[0] * down[1] - right[1] * down[0])
    if not (1 / _STRETCH**2 <= area <= _STRETCH**2):
        return None
    return float(placed[0, 0]), float(placed[0, 1]), int(inliers.sum())
