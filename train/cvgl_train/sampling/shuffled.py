"""Every query once an epoch, in random order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.base import CrossViewSet
from .base import Pairs, Unlearning, batches_of, deal, draw_references

__all__ = ["Shuffled"]


@dataclass
class Shuffled(Unlearning):
    """Every query once with one of its true references, no label twice in a batch where that can be avoided."""

    dataset: CrossViewSet
    batch: int

    def epoch(self, number: int, rng: np.random.Generator) -> list[Pairs]:
        """See `Sampler`."""
        pairs = draw_references(self.dataset, np.arange(len(self.dataset.queries)), rng)
        return list(pairs[deal(self.dataset.query_labels, *batches_of(len(pairs), self.batch), rng)])
