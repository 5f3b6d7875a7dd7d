"""Descriptors as a gallery stores them, and what storing them so costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.gallery.parts import PartArray

__all__ = ["UnitRows", "kept_neighbours", "restore", "store"]


@dataclass(frozen=True)
class UnitRows:
    """Descriptors stored as int8, read as what they stand for: float32 of unit length.

    Args:
        stored: (N, D) int8.
    """

    stored: PartArray
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        return self.stored.shape

    @property
    def nbytes(self) -> int:
        """Bytes as they are stored."""
        return self.stored.nbytes

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        found = self.stored[rows]
        return restore(found[None], "int8")[0] if found.ndim == 1 else restore(found, "int8")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or np.float32, copy=False)


def store(descriptors: NDArray[np.float32], kind: str) -> NDArray[Any]:
    """Descriptors as they are written.

    Args:
        descriptors: (B, D) of unit length.
        kind: "float16"; or "int8", where each is stretched until its largest component is 127: only its direction
            counts, so that the factor need not be kept.
    """
    if kind == "float16":
        return descriptors.astype(np.float16)
    largest = np.abs(descriptors).max(axis=1, keepdims=True)
    return np.rint(descriptors * (127.0 / largest)).astype(np.int8)


def restore(stored: NDArray[Any], kind: str) -> NDArray[np.float32]:
    """(B, D) float32 of what :func:`store` wrote."""
    found = stored.astype(np.float32)
    if kind == "float16":
        return found
    # Sums of squares of whole numbers are exact, so that a row is the same in whatever company it is read.
    length = np.sqrt(np.square(found, dtype=np.float32).sum(axis=1, dtype=np.float64, keepdims=True))
    return (found / np.maximum(length, 1.0)).astype(np.float32)


def kept_neighbours(exact: NDArray[np.float32], stored: NDArray[np.float32], k: int = 20) -> float:
    """Share of the k nearest others of each descriptor that are still among its k nearest when all are stored.

    Args:
        exact: (N, D) as the network gave them.
        stored: (N, D) as they are read back.
        k: at most N - 1 of them are looked at.
    """
    k = min(k, len(exact) - 1)
    if k < 1:
        return 1.0
    kept = 0
    for start in range(0, len(exact), 256):
        nearest = []
        for rows in (exact, stored):
            similarity = rows[start : start + 256] @ rows.T
            similarity[np.arange(len(similarity)), start + np.arange(len(similarity))] = -2.0
            nearest.append(np.argpartition(-similarity, k - 1, axis=1)[:, :k])
        kept += sum(len(np.intersect1d(one, other)) for one, other in zip(*nearest, strict=True))
    return kept / (k * len(exact))
