"""FSRA's multiple sampling: k images of every class in an epoch, side by side."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.base import CrossViewSet
from .base import Pairs, SamplerError, Unlearning, batches_of, draw_references

__all__ = ["KFold"]


@dataclass
class KFold(Unlearning):
    """The classes in random order, each with k pairs in a row; the row is cut into batches (FSRA, Dai et al. 2021).

    As the authors pair them, each of the k samples draws an image of either view by itself; a class of a single
    satellite image shows it k times. Queries of a class differ from each other while it has enough of them.

    Args:
        k: pairs of a class in an epoch.
    """

    dataset: CrossViewSet
    batch: int
    k: int = 1

    def __post_init__(self) -> None:
        if self.k < 1:
            raise SamplerError("out of range", field="sampler k_fold: k", found=self.k, expected="1 or more")
        if not (self.dataset.query_labels >= 0).any():
            raise SamplerError("a dataset without classes", field="sampler k_fold", found=self.dataset.name)

    def epoch(self, number: int, rng: np.random.Generator) -> list[Pairs]:
        """See `Sampler`."""
        labels = self.dataset.query_labels
        order = np.argsort(labels, kind="stable")
        order = order[labels[order] >= 0]
        members = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)
        drawn = [_draw(members[i], self.k, rng) for i in rng.permutation(len(members))]
        pairs = draw_references(self.dataset, np.concatenate(drawn), rng)
        count, size = batches_of(len(pairs), self.batch)
        return list(pairs[: count * size].reshape(count, size, 2))


def _draw(members: Pairs, k: int, rng: np.random.Generator) -> Pairs:
    rounds = [rng.permutation(members) for _ in range(-(-k // len(members)))]
    return np.concatenate(rounds)[:k]
