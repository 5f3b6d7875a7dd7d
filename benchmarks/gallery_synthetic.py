"""Descriptors of a map that nobody has, distributed as a real gallery's are.

A real gallery's descriptors, taken about their mean and along their principal axes, are close to normal (kurtosis 2.1
to 3.1), and each axis has a correlation from tile to tile: a part that neighbours share since they overlap, and a part
that a whole quarter shares. So a synthetic gallery is a random field on a grid of tiles with the real one's mean,
covariance and, axis by axis, these two parts; an orthonormal matrix lifts it into more dimensions, which keeps every
similarity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.gallery import Gallery
from cvgl.gallery.parts import NpyWriter

__all__ = ["Law", "likeness", "write_descriptors"]

# Tiles on a side of what shares the slow part.
_QUARTER = 40
# Steps between tiles at which only the slow part is left.
_SLOW_AT = (4, 5, 6)
# Neighbours cannot share more of the fast part than this by a kernel three tiles wide.
_MOST_SHARED = 0.7


@dataclass(frozen=True)
class Law:
    """How descriptors are distributed.

    Args:
        mean: (R,).
        axes: (R, R), a principal axis a row.
        spread: (R,) standard deviation along each.
        slow: (R,) share of the variance that a quarter has in common.
        weight: (R,) of a tile's neighbours in the rest, against 1 of its own.
    """

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]
    spread: NDArray[np.float32]
    slow: NDArray[np.float32]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, gallery: Gallery) -> Law:
        """Fitted to a gallery's first layer, whose tiles fill a rectangle."""
        layer = gallery.manifest.layers[0]
        rows = np.asarray(gallery.descriptors[layer.first : layer.stop], np.float32)
        across = int((gallery.tiles[layer.first : layer.stop, 1] == gallery.tiles[layer.first, 1]).sum())
        mean = rows.mean(axis=0)
        values, vectors = np.linalg.eigh(np.cov(rows.T, bias=True))
        spread = np.sqrt(np.maximum(values[::-1], 1e-12)).astype(np.float32)
        axes = np.ascontiguousarray(vectors[:, ::-1].T, np.float32)
        grid = ((rows - mean) @ axes.T / spread)[: len(rows) // across * across].reshape(-1, across, len(spread))

        def shared(step: int) -> NDArray[Any]:
            eastward = (grid[:, :-step] * grid[:, step:]).mean(axis=(0, 1))
            return np.asarray(eastward + (grid[:-step] * grid[step:]).mean(axis=(0, 1))) / 2

        slow = np.clip(np.mean([shared(step) for step in _SLOW_AT], axis=0), 0.0, 0.9)
        fast = np.clip((shared(1) - slow) / (1 - slow), 1e-3, _MOST_SHARED)
        # Of neighbours in noise that was smoothed by (w, 1, w): 2 w / (1 + 2 w^2).
        weight = (1 - np.sqrt(1 - 2 * fast**2)) / (2 * fast)
        return cls(mean, axes, spread, slow.astype(np.float32), weight.astype(np.float32))

    def rows(self, across: int, row: int, lift: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
        """(across, D) of unit length: a row of tiles. Any row can be had by itself.

        Args:
            across: tiles in a row.
            row: number of the row.
            lift: (R, D) with orthonormal rows.
            seed: of the map.
        """
        size = len(self.mean)

        def noise(part: int, number: int, count: int) -> NDArray[np.float32]:
            return np.random.default_rng([seed, part, number]).standard_normal((count, size), np.float32)

        weights = np.stack([self.weight, np.ones_like(self.weight), self.weight])
        weights /= np.linalg.norm(weights, axis=0)
        near = sum(noise(0, row + step, across + 2) * weights[step] for step in range(3))
        fast = sum(near[step : step + across] * weights[step] for step in range(3))
        slow = np.repeat(noise(1, row // _QUARTER, -(-across // _QUARTER)), _QUARTER, axis=0)[:across]
        field = (np.sqrt(1 - self.slow) * fast + np.sqrt(self.slow) * slow) * self.spread
        found = (self.mean + field @ self.axes) @ lift
        return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def write_descriptors(law: Law, path: Path, count: int, dimension: int, seed: int, tell: Callable[[int], None]) -> None:
    """Write (count, dimension) float16 as ``.npy``: tiles of a square, row by row; ``path`` must not be there."""
    lift = np.linalg.qr(np.random.default_rng(seed).standard_normal((dimension, len(law.mean))))[0].T
    across = int(np.ceil(np.sqrt(count)))
    with NpyWriter(path, np.float16, (dimension,)) as writer:
        for row in range(-(-count // across)):
            found = law.rows(across, row, lift.astype(np.float32), seed)
            writer.write(found[: count - writer.count].astype(np.float16))
            tell(writer.count)


def likeness(rows: NDArray[Any], sample: int = 300) -> dict[str, Any]:
    """What tells whether descriptors are as real ones: similarity of tiles drawn at random, and to their nearest.

    Args:
        rows: (N, D) of unit length.
        sample: of tiles that are looked at.
    """
    rng = np.random.default_rng(0)
    one, other = (np.asarray(rows[np.sort(rng.integers(0, len(rows), 5000))], np.float32) for _ in range(2))
    pairs = (one * rng.permutation(other)).sum(axis=1)
    chosen = np.asarray(rows[np.sort(rng.integers(0, len(rows), sample))], np.float32)
    best = np.full((sample, 101), -2.0, np.float32)
    for start in range(0, len(rows), 1 << 13):
        found = chosen @ np.asarray(rows[start : start + (1 << 13)], np.float32).T
        best = -np.partition(-np.concatenate([best, found], axis=1), 100, axis=1)[:, :101]
    best = -np.sort(-best, axis=1)
    return {
        "random_pairs": {f"p{p}": round(float(np.percentile(pairs, p)), 3) for p in (1, 50, 99)},
        "nearest": {str(k): round(float(best[:, k].mean()), 3) for k in (1, 4, 20, 100)},
    }
