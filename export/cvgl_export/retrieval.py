"""What a search finds with the descriptors of two engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cvgl_train.evaluation.metrics import pssr, recall_at
from cvgl_train.evaluation.ranks import Ranks, rank_descriptors

from .descriptors import Descriptors

__all__ = ["TIE", "Metric", "Retrieval", "compare_retrieval", "nearest"]

Metric = Literal["cosine", "euclidean"]

TIE = 1e-6
"""Two references whose similarities differ by no more than this are as close as each other: about ten times what the
order of summation changes in single precision. Of distances, as a share of their median."""

_ROWS = 512


@dataclass(frozen=True)
class Retrieval:
    """What a search finds under both engines.

    Args:
        agreement: share of queries whose nearest reference is the same. A query also agrees where the candidate's
            nearest is, to the original engine, as close as its own nearest to within `TIE`: then either answer is the
            original's own. Ties that only the candidate has are not excused.
        exact_agreement: the same without that excuse; the lower number among exact ties is the nearest.
        tied: share of queries for which the original engine has two or more nearest references to within `TIE`.
        recall_before, recall_after: R@1, 0..1, ties broken by chance.
        chance: R@1 of a random order.
        pssr_before, pssr_after: mean of (R - k) / R, k the references as close as or closer than the true one.
        displacement: mean number of ranks by which the true reference moves, either way.
        largest_displacement: of any query.
    """

    agreement: float
    exact_agreement: float
    tied: float
    recall_before: float
    recall_after: float
    chance: float
    pssr_before: float
    pssr_after: float
    displacement: float
    largest_displacement: int

    @property
    def recall_change(self) -> float:
        """R@1 after less before."""
        return self.recall_after - self.recall_before

    @property
    def pssr_change(self) -> float:
        """PSSR after less before."""
        return self.pssr_after - self.pssr_before


def nearest(descriptors: Descriptors, metric: Metric) -> NDArray[np.int64]:
    """(Q, 2) indices of the two nearest references, the lower index first among equals."""
    found = []
    for start in range(0, len(descriptors.query), _ROWS):
        found.append(np.argsort(-_similarities(descriptors, start, metric), axis=1, kind="stable")[:, :2])
    return np.concatenate(found).astype(np.int64)


def compare_retrieval(
    reference: Descriptors,
    candidate: Descriptors,
    truth: NDArray[np.int64],
    first_before: NDArray[np.int64],
    first_after: NDArray[np.int64],
    metric: Metric,
    tie: float,
) -> Retrieval:
    """What a search finds with the descriptors of both engines, all of which are finite.

    Args:
        reference, candidate: of the original and of the export.
        truth: (Q,) the true reference of each query.
        first_before, first_after: (Q,) the nearest reference by either.
        metric: by which descriptors are compared.
        tie: see `TIE`.
    """
    agrees = np.zeros(len(truth), bool)
    tied = np.zeros(len(truth), bool)
    for start in range(0, len(truth), _ROWS):
        scores = _similarities(reference, start, metric)
        rows = np.arange(len(scores))
        part = slice(start, start + len(scores))
        within = tie if metric == "cosine" else tie * float(np.median(-scores))
        close = scores >= scores.max(1, keepdims=True) - within
        agrees[part] = close[rows, first_after[part]]
        tied[part] = close.sum(1) > 1
    matches = [truth[i : i + 1] for i in range(len(truth))]
    before, after = (
        rank_descriptors(engine.query, engine.reference, matches, metric=metric) for engine in (reference, candidate)
    )
    moved = np.abs(after.worst() - before.worst())
    return Retrieval(
        float(agrees.mean()),
        float((first_before == first_after).mean()),
        float(tied.mean()),
        recall_at(before, 1),
        recall_at(after, 1),
        1 / len(reference.reference),
        _pssr(before),
        _pssr(after),
        float(moved.mean()),
        int(moved.max()),
    )


def _similarities(descriptors: Descriptors, start: int, metric: Metric) -> NDArray[np.float64]:
    """(B, R) of some queries with all references, greater is closer, in double precision."""
    mine = descriptors.query[start : start + _ROWS].astype(np.float64)
    theirs = descriptors.reference.astype(np.float64)
    if metric == "cosine":
        return mine @ theirs.T
    squares = (mine**2).sum(1)[:, None] + (theirs**2).sum(1) - 2 * mine @ theirs.T
    return -np.sqrt(np.maximum(squares, 0.0))


def _pssr(ranks: Ranks) -> float:
    return float(pssr(ranks).mean())
