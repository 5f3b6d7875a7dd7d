"""What a search is worth: every measure the field reports, named after the rule by which it is counted."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cvgl.geo import LocalFrame
from cvgl_train.data.base import DatasetError

from .ranks import Ranks, Ties

__all__ = [
    "ONE_PERCENT",
    "Percent",
    "ap_standard",
    "ap_trapezoidal",
    "chance_at",
    "distances_m",
    "first_percent",
    "hit_rate",
    "hit_rate_first",
    "percentiles",
    "pssr",
    "recall_at",
    "recall_at_percent",
]

Floats = NDArray[np.float64]

Percent = Literal["university-1652", "cvusa", "cvm-net"]

ONE_PERCENT: dict[Percent, str] = {
    "university-1652": "round(R / 100) + 1: University-1652, SUES-200, DenseUAV, GTA-UAV",
    "cvusa": "R // 100: TransGeo, Sample4Geo and those after them on CVUSA, CVACT and VIGOR",
    "cvm-net": "R // 100 + 1: CVM-Net, SAFA, SAIG and VIGOR's own",
}
"""How many of R references the published codes call "1 %"; they differ by one or two."""


def recall_at(ranks: Ranks, k: int, ties: Ties = "chance") -> float:
    """Share of queries with a true reference among the first k (R@k), 0..1."""
    return float(ranks.within(k, ties).mean())


def chance_at(ranks: Ranks, k: int) -> float:
    """R@k of a random order: what any model has to beat."""
    none = np.ones(len(ranks))
    for i in range(int(ranks.counts.max(initial=0))):
        left = max(ranks.gallery - k - i, 0) / max(ranks.gallery - i, 1)
        none *= np.where(i < ranks.counts, left, 1.0)
    return float(1.0 - none.mean())


def first_percent(gallery: int, rule: Percent = "university-1652") -> int:
    """How many references are "1 %" of a gallery, by one of the rules in `ONE_PERCENT`; at least 1."""
    if rule == "university-1652":
        return round(gallery * 0.01) + 1
    return gallery // 100 + 1 if rule == "cvm-net" else max(gallery // 100, 1)


def recall_at_percent(ranks: Ranks, rule: Percent = "university-1652", ties: Ties = "chance") -> float:
    """R@1 %, by one of the rules in `ONE_PERCENT`."""
    return recall_at(ranks, first_percent(ranks.gallery, rule), ties)


def ap_standard(ranks: Ranks) -> float:
    """Mean over queries of average precision as scikit-learn's `average_precision_score` defines it.

    The mean, over a query's true references, of the precision among all references at least as close. References
    exactly as close therefore enter together, which on descriptors that are all alike leaves the share of true ones.
    """
    starts = ranks.starts[ranks.query]
    # Best first, so a true reference that is at least as close stands before the last of its level.
    changes = np.ones(len(ranks.scores), bool)
    changes[:-1] = (ranks.scores[1:] != ranks.scores[:-1]) | (ranks.query[1:] != ranks.query[:-1])
    ends = np.flatnonzero(changes)
    reached = 1 + ends[np.searchsorted(ends, np.arange(len(changes)))] - starts
    precision = reached / (reached + ranks.above + ranks.tied)
    return float((np.add.reduceat(precision, ranks.starts) / ranks.counts).mean())


def ap_trapezoidal(ranks: Ranks) -> float:
    """Mean over queries of average precision as University-1652's evaluation code computes it.

    The area under the precision-recall curve by trapezoids: for the i-th true reference, at position p (both from 0),
    the mean of (i + 1) / (p + 1) and i / p, the latter 1 where p is 0. False references exactly as close as a true one
    stand before it. Never higher than `ap_standard`, and half of it where a single true reference is not the first.
    """
    i = np.arange(len(ranks.scores)) - ranks.starts[ranks.query]
    position = i + ranks.above + ranks.tied
    before = np.where(position == 0, 1.0, i / np.maximum(position, 1))
    area = ((i + 1) / (position + 1) + before) / 2
    return float((np.add.reduceat(area, ranks.starts) / ranks.counts).mean())


def hit_rate(ranks: Ranks, ties: Ties = "chance") -> float:
    """VIGOR's hit rate as its released code and Sample4Geo's count it.

    Share of queries with no false reference before the true one, semi-positive ones being left out: R@1 of `ranks` as
    they are. Published R@k on VIGOR counts semi-positive references as false: `recall_at(ranks.counting_semi(), k)`.
    """
    return recall_at(ranks, 1, ties)


def hit_rate_first(ranks: Ranks) -> float:
    """The hit rate as VIGOR's paper words it: the first reference is the true one or a semi-positive one.

    At least `hit_rate`, since a semi-positive one may stand first with a false one before the true one.
    """
    return float(ranks.covered.mean())


def pssr(ranks: Ranks, *, counting_itself: bool = True) -> Floats:
    """(Q,) (R - k) / R per query, k the references as close as or closer than the true one; PSSR is their mean.

    Args:
        ranks: of several true references the closest is taken; the others are not in k.
        counting_itself: whether the true reference is in k. With it a perfect model reaches (R - 1) / R and one whose
            descriptors are all alike 0; without it 1 and 1 / R.
    """
    return (ranks.gallery - ranks.worst() + (0 if counting_itself else 1)) / ranks.gallery


def distances_m(
    query: Floats, reference: Floats, found: NDArray[np.int64], frame: Literal["wgs84", "metres"] = "wgs84"
) -> Floats:
    """(Q, T) metres from where each query is to the references found for it.

    Args:
        query, reference: (Q, 2), (R, 2) latitude and longitude in degrees, or easting and northing in metres.
        found: (Q, T) indices of references.
        frame: which of the two.

    Raises:
        DatasetError: positions of another shape.
    """
    for field, value in (("query positions", query), ("reference positions", reference)):
        if value.ndim != 2 or value.shape[1] != 2:
            raise DatasetError("not positions", field=field, found=value.shape, expected="(N, 2)")
    there = reference[found]
    if frame == "metres":
        return np.asarray(np.linalg.norm(there - query[:, None], axis=2))
    result = np.empty(found.shape)
    for i, (latitude, longitude) in enumerate(query):
        # A plane of its own for every query: a dataset may span continents.
        easting, northing = LocalFrame(float(latitude), float(longitude)).to_local(there[i, :, 0], there[i, :, 1])
        result[i] = np.hypot(easting, northing)
    return result


def percentiles(values: NDArray[Any], shares: tuple[int, ...] = (50, 75, 90, 95, 99)) -> dict[int, float]:
    """The values under which these shares, in percent, of all values lie."""
    return {share: float(np.percentile(values, share)) for share in shares}
