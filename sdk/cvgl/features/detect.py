"""Local features of a grey picture: OpenCV's, and networks of XFeat's kind that a user supplies."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import ModelError

__all__ = ["DETECTORS", "Detector", "Features", "akaze", "open_network", "orb", "seen_features", "sift", "xfeat"]

_XFEAT_LEAST_COSINE = 0.82
_XFEAT_LEAST_PX = 224
# Features this close to the edge of what was seen (pixels, a square's side) describe the edge.
_EDGE_PX = 7


@dataclass(frozen=True)
class Features:
    """Local features of a picture.

    Args:
        points: (N, 2) float32, column and row, pixels.
        descriptors: (N, D) float32 of unit length.
    """

    points: NDArray[np.float32]
    descriptors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.points)


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
            return _nothing(128)
        root = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1e-9))
        return Features(np.array([point.pt for point in points], np.float32), root.astype(np.float32))

    return Detector("SIFT", detect, ratio=0.85)


def akaze() -> Detector:
    """OpenCV's AKAZE (Alcantarilla, Nuevo, Bartoli, BMVC 2013), upright."""
    # A threshold of half the default: satellite pictures are soft. One octave: frame and map are of one scale.
    kind = cv2.AKAZE_DESCRIPTOR_MLDB_UPRIGHT
    detector = cv2.AKAZE.create(descriptor_type=kind, threshold=0.0005, nOctaves=1)

    def detect(grey: NDArray[np.uint8]) -> Features:
        points, values = detector.detectAndCompute(grey, None)
        return _binary(points, values)

    return Detector("AKAZE", detect, ratio=0.9)


def orb(most: int = 1500) -> Detector:
    """OpenCV's ORB (Rublee et al., ICCV 2011), upright.

    Args:
        most: features of a picture; the strongest are kept.
    """
    detector = cv2.ORB.create(nfeatures=most, fastThreshold=7)

    def detect(grey: NDArray[np.uint8]) -> Features:
        found = detector.detect(grey, None)
        for point in found:
            point.angle = 0.0
        points, values = detector.compute(grey, found)
        return _binary(points, values)

    return Detector("ORB", detect, ratio=0.9)


def xfeat(path: str | Path, threads: int) -> Detector:
    """XFeat (Potje et al., CVPR 2024) by ONNX Runtime.

    Args:
        path: the network: ``images`` (1, 3, H, W) in 0..1 to ``keypoints`` (N, 2) and ``descriptors`` (N, 64).
        threads: of one inference.

    Raises:
        ModelError: the file does not load, or is another network.
    """
    session = open_network(path, threads, inputs={"images"}, outputs={"keypoints", "descriptors"})

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


DETECTORS: dict[str, Callable[[], Detector]] = {"akaze": akaze, "orb": orb, "sift": sift}
"""The kinds that need no file, by the name that a mission gives them."""


def seen_features(detector: Detector, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> Features:
    """Features of what a mask calls seen: none on the edge of it.

    Args:
        detector: their kind.
        image: (H, W) grey.
        mask: (H, W), nonzero where the image holds a picture.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return _nothing(1)
    top, left = rows[0], columns[0]
    part = np.s_[top : rows[-1] + 1, left : columns[-1] + 1]
    found = detector.detect(np.ascontiguousarray(image[part]))
    if not len(found):
        return found
    edge = np.ones((_EDGE_PX, _EDGE_PX), np.uint8)
    inner = cv2.erode(np.ascontiguousarray(mask[part]), edge, borderType=cv2.BORDER_CONSTANT)
    x, y = np.round(found.points).astype(int).T
    kept = inner[np.clip(y, 0, inner.shape[0] - 1), np.clip(x, 0, inner.shape[1] - 1)] > 0
    return Features(found.points[kept] + np.array([left, top], np.float32), found.descriptors[kept])


def open_network(path: str | Path, threads: int, *, inputs: set[str], outputs: set[str]) -> Any:
    """An ONNX Runtime session on the CPU of a network with these inputs and outputs.

    Raises:
        ModelError: the file does not load, or is another network.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as reason:  # the runtime's own exceptions have no common base of their own
        raise ModelError("ONNX Runtime does not load it", file=path, found=str(reason)[:200]) from reason
    for kind, wanted, there in (
        ("inputs", inputs, {node.name for node in session.get_inputs()}),
        ("outputs", outputs, {node.name for node in session.get_outputs()}),
    ):
        if not wanted <= there:
            expected = ", ".join(sorted(wanted))
            raise ModelError("another network", file=path, field=kind, found=sorted(there), expected=expected)
    return session


def _binary(points: Any, values: NDArray[np.uint8] | None) -> Features:
    """Features of bits, as unit vectors whose cosine is 1 - 2 Hamming distance / bits."""
    if values is None or not len(points):
        return _nothing(8)
    signs = np.unpackbits(values, axis=1).astype(np.float32) * 2 - 1
    return Features(np.array([p.pt for p in points], np.float32), signs / np.float32(math.sqrt(signs.shape[1])))


def _nothing(dimension: int) -> Features:
    return Features(np.empty((0, 2), np.float32), np.empty((0, dimension), np.float32))
