"""The peer that matches local features: a frame against every window of the map, as deployed research systems do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.bench.peers_map import Place
from cvgl.errors import MissionError, ModelError
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
_XFEAT_LEAST_COSINE = 0.82
_XFEAT_LEAST_PX = 224


@dataclass(frozen=True)
class Features:
    """Local features of a picture.

    Args:
        points: (N, 2) float32, column and row, pixels.
        descriptors: (N, D) float32 of unit length.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]


@dataclass(frozen=True)
class Detector:
    """A kind of local feature.

    Args:
        name: in words.
        detect: features of a grey picture (H, W) uint8.
        least_cosine: of a match.
        ratio: largest distance to the nearest descriptor, in distances to the second nearest; 1 for any.
    """

    name: str
    detect: Callable[[NDArray[np.uint8]], Features]
    least_cosine: float = -1.0
    ratio: float = 1.0


def sift(most: int = 2000) -> Detector:
    """OpenCV's SIFT, upright since pictures are north-up, with root normalisation (Arandjelovic, Zisserman 2012).

    Args:
        most: features of a picture; the strongest are kept.
    """
    # A lower contrast than the default of 0.04: satellite pictures are soft.
    detector = cv2.SIFT.create(nfeatures=most, contrastThreshold=0.02)

    def detect(grey: NDArray[np.uint8]) -> Features:
        found = detector.detect(grey, None)
        # The same place under two orientations is one place here.
        kept = {(point.pt, point.octave): point for point in found}
        for point in kept.values():
            point.angle = 0.0
        points, values = detector.compute(grey, list(kept.values()))
        if values is None:
            return Features(np.empty((0, 2), np.float32), np.empty((0, 128), np.float32))
        root = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1e-9))
        return Features(np.array([point.pt for point in points], np.float32), root.astype(np.float32))

    return Detector("SIFT", detect, ratio=0.85)


def xfeat(path: str | Path, threads: int) -> Detector:
    """XFeat (Potje et al., CVPR 2024) by ONNX Runtime.

    Args:
        path: the network: ``images`` (1, 3, H, W) in 0..1 to ``keypoints`` (N, 2) and ``descriptors`` (N, 64).
        threads: of one inference.

    Raises:
        ModelError: the file does not load.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as reason:  # the runtime's own exceptions have no common base of their own
        raise ModelError("ONNX Runtime does not load it", file=path, found=str(reason)[:200]) from reason

    def detect(grey: NDArray[np.uint8]) -> Features:
        # Its stages halve the picture five times, and the exported network wants more places than features.
        height, width = (max(_XFEAT_LEAST_PX, math.ceil(extent / 32) * 32) for extent in grey.shape)
        picture = np.zeros((1, 3, height, width), np.float32)
        picture[:, :, : grey.shape[0], : grey.shape[1]] = grey.astype(np.float32) / 255
        points, descriptors = session.run(["keypoints", "descriptors"], {"images": picture})
        inside = (points[:, 0] < grey.shape[1] - 1) & (points[:, 1] < grey.shape[0] - 1)
        points, descriptors = points[inside], descriptors[inside]
        lengths = np.linalg.norm(descriptors, axis=1, keepdims=True)
        return Features(points.astype(np.float32), (descriptors / np.maximum(lengths, 1e-9)).astype(np.float32))

    return Detector("XFeat", detect, least_cosine=_XFEAT_LEAST_COSINE)


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
        frame = self._of_frame(patch)
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

    def _of_frame(self, patch: Patch) -> Features:
        """Features of what the camera saw: none on the edge of it."""
        rows, columns = np.flatnonzero(patch.mask.any(axis=1)), np.flatnonzero(patch.mask.any(axis=0))
        if not len(rows):
            return Features(np.empty((0, 2), np.float32), np.empty((0, 1), np.float32))
        top, left = rows[0], columns[0]
        part = np.s_[top : rows[-1] + 1, left : columns[-1] + 1]
        found = self.detector.detect(np.ascontiguousarray(patch.image[part]))
        inner = cv2.erode(
            np.ascontiguousarray(patch.mask[part]), np.ones((7, 7), np.uint8), borderType=cv2.BORDER_CONSTANT
        )
        x, y = np.round(found.points).astype(int).T if len(found.points) else (np.empty(0, int), np.empty(0, int))
        kept = inner[np.clip(y, 0, inner.shape[0] - 1), np.clip(x, 0, inner.shape[1] - 1)] > 0
        return Features(found.points[kept] + np.array([left, top], np.float32), found.descriptors[kept])


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
