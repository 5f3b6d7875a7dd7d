"""Matches between the features of a frame and of the ground below where it is supposed to be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.features.detect import Detector, Features, open_network

__all__ = ["Match", "lighterglue", "match_nearby"]

# A second nearest descriptor this close to the nearest, pixels, is the same thing again.
_SAME_PX = 3.0
# A network's match counts from this score on.
_LEAST_SCORE = 0.1

Match = Callable[[Features, Features, float], tuple[NDArray[np.intp], NDArray[np.intp]]]
"""From features of the frame, of the ground, and a radius in pixels to indices into both."""


def match_nearby(
    frame: Features, ground: Features, kind: Detector, radius: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Mutual nearest neighbours among features that lie at about the same place.

    Args:
        frame, ground: features in common pixels.
        kind: says which matches are good enough.
        radius: how far apart two features of a match lie at most, pixels.

    Returns:
        Indices into both, (M,) each.
    """
    if not len(frame) or not len(ground):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    squares = np.add.outer((frame.points**2).sum(axis=1), (ground.points**2).sum(axis=1))
    squares -= 2 * frame.points @ ground.points.T
    # About one pair in a hundred lies together: the others' descriptors need not be compared.
    one, other = np.nonzero(squares <= radius**2)
    cosines = np.full(squares.shape, -2.0, np.float32)
    cosines[one, other] = np.einsum("nd,nd->n", frame.descriptors[one], ground.descriptors[other])
    forward, backward = cosines.argmax(axis=1), cosines.argmax(axis=0)
    numbers = np.arange(len(forward))
    nearest = cosines[numbers, forward]
    kept = np.flatnonzero((backward[forward] == numbers) & (nearest >= max(kind.least_cosine, -1.0)))
    if kind.ratio < 1.0 and len(kept):
        second = _second(cosines[kept], forward[kept], ground.points)
        # Where the neighbourhood holds no second one, a descriptor that has nothing in common stands for it.
        second[second < -1.0] = 0.0
        # Squared distances of unit vectors are 2 - 2 cosine.
        kept = kept[(1 - nearest[kept]) <= kind.ratio**2 * (1 - second)]
    return kept, forward[kept]


def _second(
    cosines: NDArray[np.float32], nearest: NDArray[np.intp], points: NDArray[np.float32]
) -> NDArray[np.float32]:
    """(M,) the best of each row (M, N) that is not the nearest one again: one at another place. Overwrites the rows."""
    rows = np.arange(len(nearest))
    cosines[rows, nearest] = -2.0
    second = np.empty(len(rows), cosines.dtype)
    open_rows = rows
    while len(open_rows):
        best = cosines[open_rows].argmax(axis=1)
        second[open_rows] = cosines[open_rows, best]
        apart = np.abs(points[best] - points[nearest[open_rows]]).max(axis=1)
        again = (apart <= _SAME_PX) & (second[open_rows] > -1.5)
        cosines[open_rows[again], best[again]] = -2.0
        open_rows = open_rows[again]
    return second


def lighterglue(path: str | Path, threads: int) -> Match:
    """LighterGlue (LightGlue, Lindenberger et al., ICCV 2023, trained for XFeat's descriptors) by ONNX Runtime.

    Args:
        path: the network: ``kpts0``, ``kpts1`` (1, N, 2) and ``desc0``, ``desc1`` (1, N, 64) to ``matches`` (M, 2) and
            ``scores`` (M,).
        threads: of one inference.

    Raises:
        ModelError: the file does not load, or is another network.
    """
    inputs = {"kpts0", "kpts1", "desc0", "desc1"}
    session = open_network(path, threads, inputs=inputs, outputs={"matches", "scores"})

    def match(frame: Features, ground: Features, radius: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        if min(len(frame), len(ground)) < 2:
            return np.empty(0, np.intp), np.empty(0, np.intp)
        # It was trained on points in -1..1 about the picture's middle; both pictures share one frame of pixels here.
        both = np.concatenate([frame.points, ground.points])
        low, high = both.min(axis=0), both.max(axis=0)
        half = max(float((high - low).max()) / 2, 1.0)
        given = {
            "kpts0": ((frame.points - (low + high) / 2) / half)[None],
            "kpts1": ((ground.points - (low + high) / 2) / half)[None],
            "desc0": frame.descriptors[None],
            "desc1": ground.descriptors[None],
        }
        pairs, scores = session.run(["matches", "scores"], given)
        one, other = pairs[scores >= _LEAST_SCORE].T
        near = np.linalg.norm(frame.points[one] - ground.points[other], axis=1) <= radius
        return one[near], other[near]

    return match
