"""Where batches come from: a dataset and its sampler, or an endless stream of pairs drawn on the fly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from cvgl.errors import CvglError
from cvgl_train.data.base import CrossViewSet
from cvgl_train.data.batch import Batch
from cvgl_train.data.images import Augmentation
from cvgl_train.losses.infonce import same_place
from cvgl_train.pairs import PairSource
from cvgl_train.sampling import Sampler, ignored_pairs, share

__all__ = ["DatasetSource", "Descriptors", "Embed", "Source", "StreamSource"]

Descriptors = tuple[NDArray[np.float32], NDArray[np.float32]]
"""(Q, D) and (R, D) of the training set, by the network as it is now."""

Embed = Callable[[], Descriptors]


class Source(Protocol):
    """Batches by epoch and step; the same seed gives the same batches, wherever a run was interrupted."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""

    def begin(self, epoch: int, embed: Embed | None) -> None:
        """Before an epoch. `embed` is there when the sampler may look at the network's descriptors."""

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        """The epoch's batches from the `first` on."""

    def state_dict(self) -> dict[str, Any]:
        """What `begin` learnt, for a checkpoint."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


@dataclass(frozen=True)
class _Epoch(Dataset[Batch | CvglError]):
    """One epoch's batches, each made when it is asked for."""

    dataset: CrossViewSet
    pairs: list[NDArray[np.int64]]
    query: Augmentation
    reference: Augmentation
    seeds: list[tuple[int, ...]]
    rank: int
    world: int

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Batch | CvglError:
        try:
            return self._batch(index)
        except CvglError as error:
            # Raised in a worker, it would arrive with PyTorch's traceback for a message.
            return error

    def _batch(self, index: int) -> Batch:
        pairs = self.pairs[index]
        seed = int(np.random.SeedSequence(self.seeds[index]).generate_state(1)[0])
        with torch.random.fork_rng(devices=[]):
            # The augmentations draw from the global generator; a batch must depend on nothing but its number.
            torch.manual_seed(seed)
            own = share(pairs, self.rank, self.world)
            query = torch.stack([self.query(self.dataset.queries[int(i)].read()) for i in own[:, 0]])
            reference = torch.stack([self.reference(self.dataset.references[int(i)].read()) for i in own[:, 1]])
        return Batch(
            query,
            reference,
            torch.from_numpy(self.dataset.query_labels[pairs[:, 0]]),
            torch.from_numpy(ignored_pairs(self.dataset, pairs)),
            torch.from_numpy(pairs[:, 0].copy()),
            torch.from_numpy(pairs[:, 1].copy()),
        )


class DatasetSource:
    """Batches of a dataset, as its sampler chooses them.

    Args:
        dataset: the training split.
        sampler: see `cvgl_train.sampling`.
        query, reference: what happens to the images of each view.
        seed: of sampling and augmentation.
        workers: processes that read and augment ahead; 0: the training process itself.
        rank, world: which share of every batch this process takes, of how many.
    """

    def __init__(
        self,
        dataset: CrossViewSet,
        sampler: Sampler,
        query: Augmentation,
        reference: Augmentation,
        *,
        seed: int,
        workers: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.dataset, self.sampler, self.workers = dataset, sampler, workers
        self._augment = query, reference
        self._seed, self._rank, self._world = seed, rank, world
        self._drawn: tuple[int, list[NDArray[np.int64]]] = (-1, [])
        self.steps_per_epoch = max(1, len(self._pairs(0)))

    def begin(self, epoch: int, embed: Embed | None) -> None:
        if self.sampler.needs_descriptors and embed is not None:
            self.sampler.update(*embed())
            self._drawn = (-1, [])

    def _pairs(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._drawn[0] != epoch:
            self._drawn = epoch, self.sampler.epoch(epoch, np.random.default_rng([self._seed, 3, epoch]))
        return self._drawn[1]

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        pairs = self._pairs(epoch)
        numbers = range(first, self.steps_per_epoch)
        ahead = _Epoch(
            self.dataset,
            # A sampler may draw a batch less than in the first epoch; every epoch is as long as that one.
            [_whole(pairs[n % len(pairs)], self._world) for n in numbers],
            *self._augment,
            [(self._seed, 4, epoch, n, self._rank) for n in numbers],
            self._rank,
            self._world,
        )
        # Batches travel whole; the workers end with the epoch, since the next one's pairs are not known yet.
        loader = DataLoader(
            ahead, batch_size=None, num_workers=self.workers, prefetch_factor=2 if self.workers else None
        )
        for batch in loader:
            if isinstance(batch, CvglError):
                raise batch
            yield batch

    def state_dict(self) -> dict[str, Any]:
        return {name: torch.from_numpy(np.asarray(value)) for name, value in self.sampler.state_dict().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict({name: value.numpy() for name, value in state.items()})
        self._drawn = (-1, [])


def _whole(pairs: NDArray[np.int64], world: int) -> NDArray[np.int64]:
    """Without the few that cannot be divided evenly."""
    return pairs[: max(len(pairs) // world, 1) * world]


class StreamSource:
    """Batches drawn from maps on the fly, never the same twice: one endless epoch.

    Args:
        source: draws them.
        batch: pairs a batch.
        radius: distance, in tiles, under which two positions are the same place.
        seed: step n's batch follows from it and n alone.
        ahead: batches drawn in advance, by as many threads.
        rank, world: which share of every batch this process takes, of how many.
    """

    steps_per_epoch = 1 << 40

    def __init__(
        self,
        source: PairSource,
        batch: int,
        radius: float,
        *,
        seed: int,
        ahead: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.source = source
        self._rank, self._world = rank, world
        self._batch, self._radius, self._seed, self._ahead = batch, radius, seed, ahead

    def draw(self, step: int) -> Batch:
        """The batch of a step, counted from the run's first."""
        whole = self._make(np.random.default_rng([self._seed, 1, step]), self._batch // self._world * self._world)
        if self._world == 1:
            return whole
        query, reference = (part.chunk(self._world)[self._rank] for part in (whole.query, whole.reference))
        return replace(whole, query=query, reference=reference)

    def held_back(self, count: int) -> Batch:
        """Pairs that no step draws."""
        return self._make(np.random.default_rng([self._seed, 2]), count)

    def _make(self, rng: np.random.Generator, count: int) -> Batch:
        drawn = self.source.draw(rng, count)
        references, queries = drawn.images.chunk(2)
        near = same_place(drawn.queries, drawn.references, drawn.groups, self._radius)
        numbers = torch.arange(len(queries))
        return Batch(queries, references, numbers, near, numbers, numbers)

    def begin(self, epoch: int, embed: Embed | None) -> None:
        """Nothing is learnt between epochs."""

    def batches(self, epoch: int, first: int) -> Iterator[Batch]:
        step = first
        pool = ThreadPoolExecutor(self._ahead)
        waiting: list[Future[Batch]] = []
        try:
            waiting = [pool.submit(self.draw, step + i) for i in range(self._ahead + 1)]
            while True:
                waiting.append(pool.submit(self.draw, step + self._ahead + 1))
                yield waiting.pop(0).result()
                step += 1
        finally:
            for future in waiting:
                future.cancel()
            pool.shutdown(wait=True)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """There is nothing to put back."""
