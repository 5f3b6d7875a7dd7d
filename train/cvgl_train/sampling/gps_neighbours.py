"""Batches of places that lie near each other: hard negatives before the network knows any."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..data.base import CrossViewSet
from .base import Pairs, SamplerError, Unlearning, batches_of, draw_references

__all__ = ["GpsNeighbours"]


@dataclass
class GpsNeighbours(Unlearning):
    """Every query once: a batch is one drawn at random and pairs drawn among the nearest that are left (Sample4Geo's
    warm start, Deuser et al. 2023).

    Labels come once in a batch, while there are enough others left. The last batches of an epoch are of places left
    over, farther apart.

    Args:
        spread: a batch is drawn among this many times its own size.
    """

    dataset: CrossViewSet
    batch: int
    spread: float = 2.0

    def __post_init__(self) -> None:
        if not self.spread >= 1:
            raise SamplerError(
                "out of range", field="sampler gps_neighbours: spread", found=self.spread, expected="1 or more"
            )
        self._places = _places(self.dataset)

    def epoch(self, number: int, rng: np.random.Generator) -> list[Pairs]:
        """See `Sampler`."""
        pairs = draw_references(self.dataset, np.arange(len(self.dataset.queries)), rng)
        count, size = batches_of(len(pairs), self.batch)
        left = rng.permutation(len(pairs))
        batches = []
        for _ in range(count):
            chosen = left[self._around(left, size, rng)]
            left = left[~np.isin(left, chosen)]
            batches.append(pairs[chosen])
        return batches

    def _around(self, left: NDArray[np.int64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Positions in `left`: the first and `size` - 1 near it."""
        apart = np.linalg.norm(self._places[left] - self._places[left[0]], axis=1)
        apart[0] = -1.0
        near = np.arange(len(left))
        # Enough for 16 pairs of one label; sorting all that is left would take longer than the batch is worth.
        most = 16 * round(self.spread * size)
        if len(left) > most:
            near = np.argpartition(apart, most)[:most]
        by_distance = near[np.argsort(apart[near], kind="stable")]
        labels = self.dataset.query_labels[left[by_distance]]
        _, first = np.unique(labels, return_index=True)
        distinct = by_distance[np.sort(first)][1 : max(size, round(self.spread * size))]
        chosen = rng.permutation(distinct)[: size - 1]
        others = by_distance[1:][~np.isin(by_distance[1:], chosen)]
        return np.concatenate([by_distance[:1], chosen, others[: size - 1 - len(chosen)]])


def _places(dataset: CrossViewSet) -> NDArray[np.float64]:
    """(Q, 2) or (Q, 3) points whose straight distances are in the order of the distances on the ground."""
    if dataset.query_positions is not None:
        positions = dataset.query_positions
    elif dataset.reference_positions is not None:
        positions = dataset.reference_positions[[int(found[0]) for found in dataset.matches]]
    else:
        raise SamplerError("a dataset without positions", field="sampler gps_neighbours", found=dataset.name)
    if dataset.frame == "metres":
        return positions
    latitude, longitude = np.deg2rad(positions.T)
    # Chords of the unit sphere grow with the haversine distance, also across the date line.
    return np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
