"""Whether two engines are the same model still: their descriptors of the same tiles, and what a search finds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import ModelError

from .descriptors import Descriptors, NonFinite, cosines, largest_error, non_finite, spread_of
from .retrieval import TIE, Metric, Retrieval, compare_retrieval, nearest
from .source import VIEWS

__all__ = ["COLLAPSED", "Failure", "Parity", "Thresholds", "compare", "judge"]

# Tiles for which the defaults are stated.
_STATED_FOR = 500

COLLAPSED = 0.01
"""Spread below which a model's descriptors of different tiles hardly differ."""


@dataclass(frozen=True)
class Thresholds:
    """What an export has to reach; None is not judged. `of` has the defaults by precision.

    Args:
        cosine_median, cosine_minimum: between both engines' descriptors of a tile, over all tiles of both views.
        agreement: see `Retrieval`.
        recall_drop, pssr_drop: by how much R@1 and PSSR may fall.
        error: largest difference of any value.
        spread: see `Parity`. Below `COLLAPSED` a model gives much the same for every tile, and agreement with it proves
            little; to export it is the user's right all the same, so that by default this is said and not judged.
    """

    cosine_median: float | None = 0.9999
    cosine_minimum: float | None = 0.999
    agreement: float | None = 0.995
    recall_drop: float | None = 0.005
    pssr_drop: float | None = 0.001
    error: float | None = None
    spread: float | None = None

    @classmethod
    def of(cls, precision: str) -> Thresholds:
        """The defaults of a precision.

        fp32: cosine 0.99999 (median) and 0.9999 (least), agreement 99.5 %. fp16: 0.9999, 0.999, 99.5 %. bf16 has 8
        bits where fp16 has 11, which turns the nearest of two close tiles eight times as often: 0.999, 0.99, 95 %.
        int8: 0.99, 0.95, 98 %. R@1 may fall by 0.5 points (fp32, fp16) or 2 points (bf16, int8), PSSR by 0.1 or 0.5.

        Raises:
            ModelError: no such precision.
        """
        if precision not in _DEFAULTS:
            raise ModelError("no such precision", field="precision", found=precision, expected=" or ".join(_DEFAULTS))
        return _DEFAULTS[precision]

    def on(self, queries: int, references: int) -> Thresholds:
        """What they come to on so many tiles; on 500 the defaults stay what they are.

        Of agreement and R@1 one query may differ in any case: on 22 tiles nothing finer than 4.5 % can be told. PSSR is
        a mean rank as a share of the references: with fewer than 500, the limit is that of as many ranks.
        """
        # A little more, for the rounding of shares.
        one = (1 + 1e-9) / queries
        ranks = max(1.0, _STATED_FOR / references)
        return replace(
            self,
            agreement=None if self.agreement is None else min(self.agreement, 1 - one),
            recall_drop=None if self.recall_drop is None else max(self.recall_drop, one),
            pssr_drop=None if self.pssr_drop is None else ranks * self.pssr_drop,
        )


_DEFAULTS = {
    "fp32": Thresholds(cosine_median=0.99999, cosine_minimum=0.9999),
    "fp16": Thresholds(),
    "bf16": Thresholds(cosine_median=0.999, cosine_minimum=0.99, agreement=0.95, recall_drop=0.02, pssr_drop=0.005),
    "int8": Thresholds(cosine_median=0.99, cosine_minimum=0.95, agreement=0.98, recall_drop=0.02, pssr_drop=0.005),
}


@dataclass(frozen=True)
class Failure:
    """A threshold that was not reached.

    Args:
        metric: which.
        found: what was measured.
        expected: what it should have been, such as "at least 0.9999".
        note: what more there is to know.
    """

    metric: str
    found: float
    expected: str
    note: str = ""

    def __str__(self) -> str:
        note = f": {self.note}" if self.note else ""
        return f"{self.metric} {self.found:.7g}, expected {self.expected}{note}"


@dataclass(frozen=True, eq=False)
class Parity:
    """How far a candidate is from the original engine. True where it passes.

    Args:
        reference, candidate: names of the engines.
        metric: by which descriptors are compared in a search.
        dimension: length of a descriptor.
        cosine_query, cosine_reference: (Q,), (R,) cosine between both engines' descriptors of each tile; not a number
            where one of them is not finite.
        max_error: largest difference of any two values that are finite.
        max_error_tile: where, such as "query 3".
        before, after: values that are not finite, of the original and of the candidate.
        spread: median over pairs of different references of 1 - cosine, by the original engine: how different its
            descriptors of different tiles are at all. 0 for a model that gives the same for every tile.
        retrieval: None where a descriptor is not finite.
        nearest_before, nearest_after: (Q, 2) the two nearest references; -1 where a descriptor is not finite.
        thresholds: by which it is judged, on as many tiles as there are.
    """

    reference: str
    candidate: str
    metric: Metric
    dimension: int
    cosine_query: NDArray[np.float64]
    cosine_reference: NDArray[np.float64]
    max_error: float
    max_error_tile: str
    before: NonFinite
    after: NonFinite
    spread: float
    retrieval: Retrieval | None
    nearest_before: NDArray[np.int64]
    nearest_after: NDArray[np.int64]
    thresholds: Thresholds = field(default_factory=Thresholds)

    @property
    def cosines(self) -> NDArray[np.float64]:
        """(Q + R,) of both views, without what is not finite."""
        both = np.concatenate([self.cosine_query, self.cosine_reference])
        return both[np.isfinite(both)]

    @property
    def cosine_median(self) -> float:
        """Median over the tiles of both views; nan where none is finite."""
        return float(np.median(self.cosines)) if len(self.cosines) else float("nan")

    @property
    def cosine_percentile_1(self) -> float:
        """What 99 % of the tiles reach."""
        return float(np.percentile(self.cosines, 1)) if len(self.cosines) else float("nan")

    @property
    def cosine_minimum(self) -> float:
        """Of the worst tile."""
        return float(self.cosines.min()) if len(self.cosines) else float("nan")

    @property
    def failures(self) -> list[Failure]:
        """By its own thresholds."""
        return _failures(self, self.thresholds)

    def __bool__(self) -> bool:
        return not self.failures

    def __repr__(self) -> str:
        agreement = "no retrieval" if self.retrieval is None else f"top-1 agreement {self.retrieval.agreement:.4f}"
        verdict = "passed" if self else "failed"
        return (
            f"Parity({verdict}: cosine median {self.cosine_median:.7f}, least {self.cosine_minimum:.7f}, {agreement})"
        )


def compare(
    reference: Descriptors,
    candidate: Descriptors,
    truth: NDArray[np.int64],
    thresholds: Thresholds | None = None,
    *,
    metric: Metric = "cosine",
    tie: float = TIE,
) -> Parity:
    """Two engines' descriptors of the same tiles.

    Args:
        reference: of the original, which is taken for right.
        candidate: of the export.
        truth: (Q,) the true reference of each query.
        thresholds: by which the result is judged, see `Thresholds.on`; those of FP16 without.
        metric: of the model, see `cvgl_train.models.base.ModelInfo`.
        tie: see `TIE`.

    Raises:
        ModelError: descriptors of different shapes, or a truth that does not fit them.
    """
    for view in VIEWS:
        if reference.view(view).shape != candidate.view(view).shape:
            raise ModelError(
                "the engines' descriptors do not have one shape",
                field=view,
                found=candidate.view(view).shape,
                expected=str(reference.view(view).shape),
            )
    truth = np.asarray(truth, np.int64)
    queries, references = len(reference.query), len(reference.reference)
    if truth.shape != (queries,) or queries == 0 or references < 2 or truth.min() < 0 or truth.max() >= references:
        raise ModelError(
            "does not fit the descriptors",
            field="truth",
            found=truth.shape,
            expected=f"({queries},) indices of {references} references, two or more",
        )
    error, place = largest_error(reference, candidate)
    before, after = non_finite(reference), non_finite(candidate)
    none = np.full((queries, 2), -1, np.int64)
    nearest_before = none if before.count else nearest(reference, metric)
    nearest_after = none if after.count else nearest(candidate, metric)
    retrieval = None
    if before.count == after.count == 0:
        retrieval = compare_retrieval(
            reference, candidate, truth, nearest_before[:, 0], nearest_after[:, 0], metric, tie
        )
    return Parity(
        reference.engine,
        candidate.engine,
        metric,
        reference.query.shape[1],
        cosines(reference.query, candidate.query),
        cosines(reference.reference, candidate.reference),
        error,
        place,
        before,
        after,
        spread_of(reference.reference),
        retrieval,
        nearest_before,
        nearest_after,
        (thresholds or Thresholds()).on(queries, references),
    )


def judge(parity: Parity, thresholds: Thresholds) -> list[Failure]:
    """Every threshold, on as many tiles as there are (`Thresholds.on`), that was not reached; an empty list is a pass.

    A descriptor that is not finite fails whatever the thresholds are: so does an original engine that gives one, since
    nothing can be proven against it.
    """
    return _failures(parity, thresholds.on(len(parity.cosine_query), len(parity.cosine_reference)))


def _failures(parity: Parity, thresholds: Thresholds) -> list[Failure]:
    """Of thresholds as they are on these tiles."""
    found: list[Failure] = []
    for name, scan in (("original", parity.before), ("candidate", parity.after)):
        if scan.count:
            words = f"{scan.nan} NaN and {scan.inf} infinite, first in {scan.first}"
            found.append(Failure(f"values of the {name} that are not finite", scan.count, "none", words))

    def least(metric: str, value: float, limit: float | None, note: str = "") -> None:
        # Not "value < limit": what is not a number must fail.
        if limit is not None and not value >= limit:
            found.append(Failure(metric, value, f"at least {limit:.7g}", note))

    def most(metric: str, value: float, limit: float | None, note: str = "") -> None:
        if limit is not None and not value <= limit:
            found.append(Failure(metric, value, f"at most {limit:.7g}", note))

    least("cosine (median)", parity.cosine_median, thresholds.cosine_median)
    least("cosine (minimum)", parity.cosine_minimum, thresholds.cosine_minimum, _worst(parity))
    most("maximum error", parity.max_error, thresholds.error, f"in {parity.max_error_tile}")
    least(
        "spread of the original's descriptors",
        parity.spread,
        thresholds.spread,
        "it gives much the same for every tile, so that agreement with it proves nothing",
    )
    seen = parity.retrieval
    if seen is not None:
        queries = len(parity.cosine_query)
        same = f"{round(seen.agreement * queries)} of {queries} queries"
        least("top-1 agreement", seen.agreement, thresholds.agreement, same)
        falls = _fall(seen.recall_change), _fall(seen.pssr_change)
        most(
            "fall of R@1",
            falls[0],
            thresholds.recall_drop,
            _change(seen.recall_before, seen.recall_after),
        )
        most("fall of PSSR", falls[1], thresholds.pssr_drop, _change(seen.pssr_before, seen.pssr_after))
    return found


def _fall(change: float) -> float:
    # The rounding of a mean of whole numbers must not fail a limit that is met exactly.
    return max(0.0, round(-change, 12))


def _change(before: float, after: float) -> str:
    return f"from {before:.4f} to {after:.4f}"


def _worst(parity: Parity) -> str:
    both = np.concatenate([parity.cosine_query, parity.cosine_reference])
    if not np.isfinite(both).any():
        return ""
    index, queries = int(np.nanargmin(both)), len(parity.cosine_query)
    return f"in query {index}" if index < queries else f"in reference {index - queries}"
