"""What every sampler is, and what all of them need: pairs dealt into batches, and what is no negative in a batch."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import CvglError

from ..data.base import CrossViewSet

__all__ = ["Sampler", "SamplerError", "Unlearning", "batches_of", "deal", "draw_references", "ignored_pairs", "share"]

Pairs = NDArray[np.int64]


class SamplerError(CvglError, ValueError):
    """A sampler that a recipe asks for and that cannot be made, or not for this dataset."""


class Sampler(Protocol):
    """Chooses an epoch's batches by index; the same number, generator state and descriptors give the same batches.

    Every epoch has the same number of batches, all of one size: what does not fill a batch waits for another epoch.
    """

    @property
    def needs_descriptors(self) -> bool:
        """Whether `update` makes a difference."""

    def epoch(self, number: int, rng: np.random.Generator) -> list[Pairs]:
        """Batches of an epoch, counted from 0: each (B, 2) of query index and reference index, all true pairs."""

    def update(self, query_descriptors: NDArray[np.float32], reference_descriptors: NDArray[np.float32]) -> None:
        """Take (Q, D) and (R, D) descriptors of the whole dataset, as the model compares them."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """What `update` learnt, as arrays."""

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """Put back what `state_dict` gave."""


class Unlearning:
    """The part of a sampler that never looks at descriptors."""

    needs_descriptors = False

    def update(self, query_descriptors: NDArray[np.float32], reference_descriptors: NDArray[np.float32]) -> None:
        """There is nothing to learn."""

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, NDArray[Any]]) -> None:
        """There is nothing to put back."""


def batches_of(count: int, batch: int) -> tuple[int, int]:
    """Number and size of the full batches that `count` pairs make; one smaller batch where they are fewer than one."""
    return max(1, count // batch), min(batch, count)


def draw_references(dataset: CrossViewSet, queries: NDArray[np.int64], rng: np.random.Generator) -> Pairs:
    """(N, 2) pairs: each query with one of its true references, drawn at random."""
    references = [
        found[0] if len(found) == 1 else found[rng.integers(len(found))]
        for found in (dataset.matches[query] for query in queries)
    ]
    return np.stack([queries, np.array(references, np.int64)], 1)


def deal(labels: NDArray[np.int64], batches: int, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Deal things into batches at random so that no label comes twice in one, where that can be avoided.

    It can wherever no label has more things than there are batches: the things of one label go to different batches,
    those with most room first, which keeps the rooms equal to within one.

    Args:
        labels: (N,) of each thing, N at least batches x size; those too many are left out at random.

    Returns:
        (batches, size) indices of things.
    """
    order = rng.permutation(len(labels))[: batches * size]
    room = np.full(batches, size)
    batch_of = np.empty(len(order), np.int64)
    _, group = np.unique(labels[order], return_inverse=True)
    by_group = np.argsort(group, kind="stable")
    ends = np.cumsum(np.bincount(group))
    groups = [by_group[start:end] for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]
    several = [members for members in groups if len(members) > 1]
    for number in rng.permutation(len(several)):
        members = several[number]
        for start in range(0, len(members), batches):
            part = members[start : start + batches]
            chosen = np.lexsort((rng.random(batches), -room))[: len(part)]
            batch_of[part] = chosen
            room[chosen] -= 1
    alone = np.array([members[0] for members in groups if len(members) == 1], np.int64)
    batch_of[alone] = rng.permutation(np.repeat(np.arange(batches), room))
    return order[np.argsort(batch_of, kind="stable")].reshape(batches, size)


def ignored_pairs(dataset: CrossViewSet, pairs: Pairs) -> NDArray[np.bool_]:
    """(B, B) query i and reference j that are neither positive nor negative in this batch (`Batch.ignored`).

    These are another pair's reference of the same label, another true reference of the query, and semi-positives; never
    the diagonal.

    Args:
        pairs: (B, 2) query index and reference index.
    """
    queries, references = pairs[:, 0], pairs[:, 1]
    labels = dataset.query_labels[queries]
    ignored = (labels[:, None] == dataset.reference_labels[references][None, :]) & (labels[:, None] >= 0)
    for row, query in enumerate(queries):
        ignored[row] |= np.isin(references, dataset.matches[query])
        if dataset.semi is not None:
            ignored[row] |= np.isin(references, dataset.semi[query])
    np.fill_diagonal(ignored, False)
    return ignored


def share(batch: Pairs, rank: int, world: int) -> Pairs:
    """The part of a batch that process `rank` of `world` takes: equal parts in order, without what is left over.

    Raises:
        SamplerError: fewer pairs than processes.
    """
    size = len(batch) // world
    if size == 0:
        raise SamplerError("fewer pairs than processes", field="batch", found=len(batch), expected=f"{world} or more")
    return batch[rank * size : (rank + 1) * size]
