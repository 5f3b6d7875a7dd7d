"""What an engine makes of the tiles, and how two engines' values differ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import ModelError
from cvgl_train.models.base import View

from .source import VIEWS

__all__ = ["Descriptors", "Floats", "NonFinite", "cosines", "largest_error", "non_finite", "spread_of"]

Floats = NDArray[np.float32]
_SPREAD_TILES = 512


@dataclass(frozen=True, eq=False)
class Descriptors:
    """What one engine makes of the tiles.

    Args:
        query: (Q, D) of the queries.
        reference: (R, D) of the references.
        engine: what made them, for people.

    Raises:
        ModelError: other shapes.
    """

    query: Floats
    reference: Floats
    engine: str = ""

    def __post_init__(self) -> None:
        for name, value in (("query", self.query), ("reference", self.reference)):
            if value.ndim != 2 or value.shape[1] != self.query.shape[-1] or value.shape[1] == 0:
                raise ModelError(
                    "not descriptors", field=name, found=value.shape, expected=f"(N, {self.query.shape[-1]})"
                )

    def view(self, view: View) -> Floats:
        """Those of a view."""
        return self.query if view == "query" else self.reference


@dataclass(frozen=True)
class NonFinite:
    """Values of descriptors that are no numbers.

    Args:
        nan, inf: how many.
        first: the first tile that has one, such as "query 3"; None without any.
    """

    nan: int = 0
    inf: int = 0
    first: str | None = None

    @property
    def count(self) -> int:
        """Of both kinds."""
        return self.nan + self.inf


def cosines(one: Floats, other: Floats) -> NDArray[np.float64]:
    """(N,) row by row; 0 where a row is all zeros, nan where one is not finite."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    good = np.isfinite(left).all(1) & np.isfinite(right).all(1)
    result = np.full(len(left), np.nan)
    left, right = left[good], right[good]
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    result[good] = (left * right).sum(1) / np.where(lengths > 0, lengths, 1.0)
    return result


def largest_error(one: Descriptors, other: Descriptors) -> tuple[float, str]:
    """The largest difference of two finite values, and its tile, such as "query 3"; nan and "" where none is finite."""
    largest, place = -1.0, ""
    for view in VIEWS:
        with np.errstate(invalid="ignore", over="ignore"):
            error = np.abs(one.view(view).astype(np.float64) - other.view(view).astype(np.float64))
        error[~np.isfinite(error)] = -1.0
        row = int(error.max(1).argmax()) if len(error) else 0
        if len(error) and error[row].max() > largest:
            largest, place = float(error[row].max()), f"{view} {row}"
    return (largest, place) if largest >= 0 else (float("nan"), "")


def non_finite(descriptors: Descriptors) -> NonFinite:
    """The values of both views that are no numbers."""
    nan = inf = 0
    first = None
    for view in VIEWS:
        values = descriptors.view(view)
        nan += int(np.isnan(values).sum())
        inf += int(np.isinf(values).sum())
        bad = np.flatnonzero(~np.isfinite(values).all(1))
        if first is None and len(bad):
            first = f"{view} {int(bad[0])}"
    return NonFinite(nan, inf, first)


def spread_of(references: Floats) -> float:
    """Median of 1 - cosine over pairs of different rows; of many rows, evenly chosen ones."""
    chosen = np.linspace(0, len(references) - 1, min(len(references), _SPREAD_TILES)).round().astype(int)
    rows = references[chosen].astype(np.float64)
    rows = rows[np.isfinite(rows).all(1)]
    if len(rows) < 2:
        return float("nan")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    rows /= np.where(lengths > 0, lengths, 1.0)
    return float(1 - np.median((rows @ rows.T)[np.triu_indices(len(rows), 1)]))
