"""Batches of places that look alike: the super-batches of the PSSR paper."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.base import CrossViewSet
from .base import Pairs, SamplerError, batches_of, deal, draw_references
from .shuffled import Shuffled

__all__ = ["Clusters"]


@dataclass
class Clusters:
    """Batches that stay inside one cluster of the descriptors of the references, found by k-means.

    A partly trained network tells the clusters apart already; what it has to learn lies within. A cluster of less than
    a batch joins the nearest other one. As the number of batches is the same in every epoch, some of what the clusters
    leave over is filled up to a batch with pairs of the same cluster, which then come twice.

    Args:
        clusters: k of k-means.
        depth: k-means inside each cluster again, which makes up to clusters ** depth of them.
        sample: descriptors that k-means sees at most; the others get the nearest centre.
        first: the first epoch, counted from 0, whose batches are of clusters; shuffled before.
    """

    dataset: CrossViewSet
    batch: int
    clusters: int = 3
    depth: int = 1
    sample: int = 50_000
    first: int = 1
    needs_descriptors: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        for name in ("clusters", "depth", "sample"):
            if getattr(self, name) < 1:
                raise SamplerError(
                    "out of range", field=f"sampler clusters: {name}", found=getattr(self, name), expected="1 or more"
                )
        self._start = Shuffled(self.dataset, self.batch)
        self._cluster: NDArray[np.int64] | None = None

    def update(self, query_descriptors: NDArray[np.float32], reference_descriptors: NDArray[np.float32]) -> None:
        """Cluster the queries by their best references."""
        descriptors = reference_descriptors[[int(found[0]) for found in self.dataset.matches]]
        cluster = self._split(descriptors, self.depth)
        self._cluster = _merged(descriptors, cluster, batches_of(len(descriptors), self.batch)[1])

    def _split(self, descriptors: NDArray[np.float32], depth: int) -> NDArray[np.int64]:
        from sklearn.cluster import KMeans  # type: ignore[import-untyped]

        count = min(self.clusters, len(descriptors))
        seen = descriptors
        if len(descriptors) > self.sample:
            seen = descriptors[np.random.default_rng(0).choice(len(descriptors), self.sample, replace=False)]
        means = KMeans(count, n_init=3, random_state=0).fit(seen)
        cluster = means.predict(descriptors).astype(np.int64)
        if depth > 1:
            inner = np.zeros_like(cluster)
            for number in range(count):
                inside = cluster == number
                if inside.any():
                    inner[inside] = self._split(descriptors[inside], depth - 1)
            cluster = cluster * self.clusters ** (depth - 1) + inner
        return cluster

    def epoch(self, number: int, rng: np.random.Generator) -> list[Pairs]:
        """See `Sampler`."""
        if self._cluster is None or number < self.first:
            return self._start.epoch(number, rng)
        pairs = draw_references(self.dataset, np.arange(len(self._cluster)), rng)
        count, size = batches_of(len(pairs), self.batch)
        members = [np.flatnonzero(self._cluster == number) for number in np.unique(self._cluster)]
        full = [len(inside) // size for inside in members]
        # One more batch for the clusters that leave most over, until there are as many as in any epoch.
        over = sorted(range(len(members)), key=lambda i: -(len(members[i]) % size))[: count - sum(full)]
        batches: list[NDArray[np.int64]] = []
        for i, inside in enumerate(members):
            dealt = inside[deal(self.dataset.query_labels[inside], full[i], size, rng)]
            batches += list(dealt)
            if i in over:
                batches.append(self._filled(np.setdiff1d(inside, dealt), dealt.ravel(), size, rng))
        return [pairs[batches[i]] for i in rng.permutation(len(batches))]

    def _filled(
        self, left: NDArray[np.int64], others: NDArray[np.int64], size: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        """What is left over and as many others as make a batch; every label once, if there are enough."""
        candidates = np.concatenate([rng.permutation(left), rng.permutation(others)])
        _, first = np.unique(self.dataset.query_labels[candidates], return_index=True)
        again = np.setdiff1d(np.arange(len(candidates)), first)
        return candidates[np.concatenate([np.sort(first), again])[:size]]

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """The cluster of each query, (Q,)."""
        return {} if self._cluster is None else {"cluster": self._cluster}

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Put back what `state_dict` gave."""
        cluster = state.get("cluster")
        if cluster is not None and len(cluster) != len(self.dataset.queries):
            raise SamplerError("of another dataset", field="cluster", found=len(cluster))
        self._cluster = cluster


def _merged(descriptors: NDArray[np.float32], cluster: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Clusters renumbered from 0, those of fewer than `least` members given to the nearest other centres."""
    _, cluster = np.unique(cluster, return_inverse=True)
    centres = np.stack([descriptors[cluster == number].mean(0) for number in range(cluster.max() + 1)])
    kept = list(range(len(centres)))
    while len(kept) > 1:
        sizes = np.bincount(cluster, minlength=len(centres))
        smallest = min(kept, key=lambda number: sizes[number])
        if sizes[smallest] >= least:
            break
        kept.remove(smallest)
        for i in np.flatnonzero(cluster == smallest):
            cluster[i] = kept[int(np.linalg.norm(centres[kept] - descriptors[i], axis=1).argmin())]
    return np.unique(cluster, return_inverse=True)[1].astype(np.int64)
