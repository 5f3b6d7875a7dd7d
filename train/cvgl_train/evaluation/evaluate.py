"""A model on a dataset, both directions, every metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from cvgl_train.data.base import CrossViewSet, DatasetError
from cvgl_train.models.base import View

from . import metrics
from .embed import Embedded, Embedder, embed_all
from .ranks import Ranks, Score, rank_descriptors
from .sdm import sdm_degrees, sdm_metres

__all__ = [
    "BACKWARD",
    "FORWARD",
    "Direction",
    "Evaluation",
    "Progress",
    "Search",
    "evaluate",
    "height_groups",
    "measure",
    "search",
]

FORWARD = "query->reference"
BACKWARD = "reference->query"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""

RECALLS = (1, 5, 10)
SDM_DEGREES = (1, 3, 5, 10)
SDM_METRES = (1, 3, 5)

_TOP = 10
_MANY_HEIGHTS = 8
_BINS = 50


@dataclass(frozen=True)
class Search:
    """One direction: who searches whom, with what, and how it went.

    Args:
        dataset: its queries search its references; for `BACKWARD` that is a dataset that was turned round.
        query, reference: (Q, D), (R, D) descriptors.
        ranks: with the ten closest references kept.
        compare: what `ranks` were made by.
    """

    dataset: CrossViewSet
    query: NDArray[np.float32]
    reference: NDArray[np.float32]
    ranks: Ranks
    compare: Score

    def similarity(self, queries: Sequence[int]) -> NDArray[np.float64]:
        """(n, R) of some queries, greater is closer: for a few, all references being compared at once."""
        mine, theirs = (torch.from_numpy(x).double() for x in (self.query[queries], self.reference))
        with torch.inference_mode():
            scores: NDArray[np.float64] = self.compare(mine, theirs).cpu().numpy()
        return scores


@dataclass(frozen=True)
class Direction:
    """What one direction came to.

    Args:
        queries, gallery: how many searched how many.
        values: by metric: shares in 0..1, distances in metres, ranks from 1. ``R@k`` with ties broken by chance, and
            ``R@k_ties_against`` where that is another value; ``R@k`` as published counts references that are neither
            true nor false as false, ``R@k_semi_out`` leaves them out; ``R@1_chance`` is what a random order gives.
        first_percent: how many references the three rules of R@1 % take.
        tied: queries that have a false reference exactly as close as the true one.
        most_tied: the most that any has.
        pssr: (Q,) each query's share of the gallery that is farther than its true reference (which counts itself).
        groups: the same values of a part of the queries, such as those from one height.
    """

    queries: int
    gallery: int
    values: dict[str, float]
    first_percent: dict[str, int]
    tied: int
    most_tied: int
    pssr: NDArray[np.float64]
    groups: dict[str, dict[str, float]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the distribution of PSSR as percentiles and a histogram."""
        counts, edges = np.histogram(self.pssr, _BINS, (0.0, 1.0))
        return {
            "queries": self.queries,
            "gallery": self.gallery,
            "values": self.values,
            "first_percent": self.first_percent,
            "ties": {"queries": self.tied, "most": self.most_tied},
            "pssr_distribution": {
                "percentiles": {str(k): v for k, v in metrics.percentiles(self.pssr, (1, 5, 10, 25, 50)).items()},
                "edges": edges.round(4).tolist(),
                "counts": counts.tolist(),
            },
            "groups": self.groups,
        }


@dataclass(frozen=True)
class Evaluation:
    """A model on a dataset.

    Args:
        model, dataset, split: names.
        descriptor_size: length of a descriptor.
        score: how descriptors were compared: "cosine", "euclidean" or "the model's own".
        directions: by `FORWARD` and `BACKWARD`.
        seconds_per_image: mean time in the network for each view, a batch at a time.
        searches: what was measured, by direction; not part of `as_dict`.
    """

    model: str
    dataset: str
    split: str
    descriptor_size: int
    score: str
    directions: dict[str, Direction]
    seconds_per_image: dict[str, float]
    searches: dict[str, Search] = field(default_factory=dict, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "descriptor_size": self.descriptor_size,
            "score": self.score,
            "seconds_per_image": self.seconds_per_image,
            "directions": {name: direction.as_dict() for name, direction in self.directions.items()},
        }


def evaluate(
    embedder: Embedder,
    dataset: CrossViewSet,
    *,
    turned: CrossViewSet | None = None,
    groups: Mapping[str, NDArray[np.int64]] | None = None,
    score: Score | None = None,
    batch: int = 32,
    workers: int = 2,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Evaluation:
    """Embed a dataset, search both ways, and measure.

    Args:
        embedder: the model.
        dataset: its queries search its references. One that is `unmatched` is only searched the other way.
        turned: the set for the other way where that is another one, as in University-1652: its references search its
            queries. None: `dataset` itself.
        groups: parts of the queries to measure on their own, by name; None: those of `height_groups`.
        score: of a model that has one of its own, with the query first; None: the embedder's metric.
        batch: images at a time.
        workers: threads that read images.
        device: on which to compare, "cpu" or "cuda".
        progress: told how far it is.

    Raises:
        DatasetError: an image cannot be read, or no query has a true reference.
        ModelError: a descriptor or a score that is not finite.
    """
    seconds: dict[View, list[Embedded]] = {"query": [], "reference": []}

    def embed(data: CrossViewSet) -> tuple[Embedded, Embedded]:
        made = []
        views: tuple[tuple[View, Sequence[Any]], ...] = (("query", data.queries), ("reference", data.references))
        for view, sources in views:
            tell = _telling(progress, f"{view} images", len(sources))
            done = embed_all(embedder, sources, view, batch=batch, workers=workers, progress=tell)
            seconds[view].append(done)
            made.append(done)
        return made[0], made[1]

    searches: dict[str, Search] = {}
    query, reference = embed(dataset)
    for way in (FORWARD, BACKWARD):
        data = dataset
        if way == FORWARD and dataset.unmatched:
            continue
        if way == BACKWARD and turned is not None:
            data = turned
            query, reference = embed(data)
        searches[way] = search(
            data,
            query.descriptors,
            reference.descriptors,
            backward=way == BACKWARD,
            metric=embedder.metric,
            score=score,
            device=device,
            progress=_telling(progress, f"search {way}", len(data.queries)),
        )
    directions = {}
    for way, found in searches.items():
        parts = {} if way == BACKWARD else height_groups(dataset) if groups is None else groups
        directions[way] = measure(found, parts)
    return Evaluation(
        model=embedder.name,
        dataset=dataset.name,
        split=dataset.split,
        descriptor_size=embedder.descriptor_size,
        score="the model's own" if score is not None else embedder.metric,
        directions=directions,
        seconds_per_image={
            view: sum(x.seconds for x in done) / max(sum(len(x.descriptors) for x in done), 1)
            for view, done in seconds.items()
        },
        searches=searches,
    )


def _telling(progress: Progress | None, what: str, size: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(what, done, size)


def search(
    dataset: CrossViewSet,
    query: NDArray[np.float32],
    reference: NDArray[np.float32],
    *,
    backward: bool = False,
    metric: Literal["cosine", "euclidean"] = "cosine",
    score: Score | None = None,
    device: str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Search:
    """Rank a dataset's references for its queries, or the other way round.

    Args:
        dataset: as it was read.
        query, reference: (Q, D), (R, D) descriptors of its queries and references.
        backward: its references search its queries; those without a match are left out.
        metric, score, device, progress: as `rank_descriptors`.

    Raises:
        DatasetError: nothing has a true match.
        ModelError: as `rank_descriptors`.
    """
    compare = score
    if backward:
        none = np.zeros(0, np.int64)
        with_match = np.unique(np.concatenate([none, *(np.asarray(found, np.int64) for found in dataset.matches)]))
        query, reference = reference[with_match], query
        dataset = dataset.reversed()
        if score is not None:

            def compare(mine: Any, theirs: Any) -> Any:
                return score(theirs, mine).T

    if not len(query):
        raise DatasetError("no query has a true reference", field="matches", found=dataset.name)
    ranks = rank_descriptors(
        query,
        reference,
        dataset.matches,
        dataset.semi,
        metric=metric,
        score=compare,
        top=_TOP,
        device=device,
        progress=progress,
    )
    return Search(dataset, query, reference, ranks, compare or _BY_METRIC[metric])


_BY_METRIC: dict[str, Score] = {"cosine": lambda q, r: q @ r.T, "euclidean": lambda q, r: -torch.cdist(q, r)}


def height_groups(dataset: CrossViewSet) -> dict[str, NDArray[np.int64]]:
    """Queries by flying height: each where there are few different ones, otherwise five groups of about one size."""
    heights = dataset.query_heights
    if heights is None or not len(heights):
        return {}
    different = np.unique(heights)
    if len(different) <= _MANY_HEIGHTS:
        return {f"{height:g} m": np.flatnonzero(heights == height) for height in different}
    # Rounded, so that the names can be read and none stands for two groups.
    fifths = np.quantile(heights, np.linspace(0, 1, 6))
    edges = np.unique(fifths.round(0 if np.ptp(heights) >= 20 else 2))
    number = np.digitize(heights, edges[1:-1])
    groups = {f"{edges[i]:g}-{edges[i + 1]:g} m": np.flatnonzero(number == i) for i in range(len(edges) - 1)}
    return {name: chosen for name, chosen in groups.items() if len(chosen)}


def measure(found: Search, groups: Mapping[str, NDArray[np.int64]] | None = None) -> Direction:
    """Every metric of a search, of all its queries and of groups of them.

    Args:
        found: the search.
        groups: indices of queries by name; empty ones are left out.
    """
    data, ranks = found.dataset, found.ranks
    degrees: NDArray[np.float64] | None = None
    metres: NDArray[np.float64] | None = None
    if data.query_positions is not None and data.reference_positions is not None:
        metres = metrics.distances_m(data.query_positions, data.reference_positions, ranks.top, data.frame)
        if data.frame == "wgs84":
            degrees = data.reference_positions[ranks.top]
    everyone = np.arange(len(ranks))

    def values(chosen: NDArray[np.int64]) -> dict[str, float]:
        result = _rank_values(ranks.select(chosen), data.semi is not None)
        if metres is not None:
            result.update(_place_values(metres[chosen]))
        if degrees is not None and data.query_positions is not None:
            for k in _possible(SDM_DEGREES, ranks):
                result[f"SDM_degrees@{k}"] = float(sdm_degrees(data.query_positions[chosen], degrees[chosen], k).mean())
        return result

    counted = ranks.counting_semi()
    tied = counted.tied[counted.starts]
    return Direction(
        queries=len(ranks),
        gallery=ranks.gallery,
        values=values(everyone),
        first_percent={str(rule): metrics.first_percent(ranks.gallery, rule) for rule in metrics.ONE_PERCENT},
        tied=int((tied > 0).sum()),
        most_tied=int(tied.max(initial=0)),
        pssr=metrics.pssr(counted),
        groups={
            name: {"queries": float(len(chosen)), **values(chosen)}
            for name, chosen in (groups or {}).items()
            if len(chosen)
        },
    )


def _possible(ks: tuple[int, ...], ranks: Ranks) -> list[int]:
    return [k for k in ks if k <= ranks.top.shape[1]]


def _rank_values(ranks: Ranks, has_semi: bool) -> dict[str, float]:
    counted = ranks.counting_semi()
    recalls: dict[str, Callable[[metrics.Ties], float]] = {
        **{f"R@{k}": partial(metrics.recall_at, counted, k) for k in RECALLS},
        "R@1%_university1652": partial(metrics.recall_at_percent, counted, "university-1652"),
        "R@1%_cvusa": partial(metrics.recall_at_percent, counted, "cvusa"),
        "R@1%_cvmnet": partial(metrics.recall_at_percent, counted, "cvm-net"),
    }
    values = {name: recall("chance") for name, recall in recalls.items()}
    lower = {name: recall("against") for name, recall in recalls.items()}
    if lower != values:
        values.update({f"{name}_ties_against": value for name, value in lower.items()})
    values["R@1_chance"] = metrics.chance_at(counted, 1)
    values["AP_trapezoidal"] = metrics.ap_trapezoidal(counted)
    values["AP_standard"] = metrics.ap_standard(counted)
    if has_semi:
        values["hit_rate"] = metrics.hit_rate(ranks)
        values["hit_rate_first"] = metrics.hit_rate_first(ranks)
        values.update({f"R@{k}_semi_out": metrics.recall_at(ranks, k) for k in RECALLS if k > 1})
    values["PSSR"] = float(metrics.pssr(counted).mean())
    values["PSSR_without_itself"] = float(metrics.pssr(counted, counting_itself=False).mean())
    values["rank_median"] = float(np.median(counted.worst()))
    return values


def _place_values(metres: NDArray[np.float64]) -> dict[str, float]:
    values = {"distance_m_mean": float(metres[:, 0].mean())}
    values.update({f"distance_m_p{share}": value for share, value in metrics.percentiles(metres[:, 0]).items()})
    for k in SDM_METRES:
        if k <= metres.shape[1]:
            values[f"SDM_metres@{k}"] = float(sdm_metres(metres, k).mean())
    return values
