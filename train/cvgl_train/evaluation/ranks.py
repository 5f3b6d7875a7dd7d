"""How many references stand before the true one, counted so that descriptors that are all alike win nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cvgl.errors import ModelError
from cvgl_train.data.base import DatasetError

__all__ = ["Ranks", "Score", "Ties", "rank_descriptors", "rank_scores"]

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

Score = Callable[[Tensor, Tensor], Tensor]
"""(Q, D) and (R, D) descriptors in double precision to their (Q, R) similarity, greater is closer."""

Ties = Literal["chance", "against"]
"""What a false reference exactly as close as the true one does: stand before it by chance, or always."""

# Bytes of working memory for each score: twice its value, comparisons, and the keys of the best.
_PER_SCORE = 32
# Up to so many true references, counting for each of them is faster than sorting everything once.
_FEW = 16


@dataclass(frozen=True)
class Ranks:
    """Where the true references of Q queries stand in a search.

    The arrays of M = sum of `counts` have one entry per pair of a query and a true reference, query after query, the
    closest true reference of each query first. True references never compete with each other.

    Args:
        gallery: number R of references searched.
        counts: (Q,) number of true references of each query, at least 1.
        scores: (M,) similarity of the true reference, greater is closer.
        above: (M,) number of false references that are closer.
        tied: (M,) number of false references exactly as close.
        semi_above, semi_tied: (M,) the same for those that are neither true nor false, which are in no other count.
        covered: (Q,) chance that the first of the list, ties being broken at random, is true or neither true nor false.
        top: (Q, T) the T closest references of all kinds, ties broken at random but the same each time; T may be 0.
    """

    gallery: int
    counts: Ints
    scores: Floats
    above: Ints
    tied: Ints
    semi_above: Ints
    semi_tied: Ints
    covered: NDArray[np.float64]
    top: Ints

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def starts(self) -> Ints:
        """(Q,) where each query's entries begin: there stands its closest true reference."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    @cached_property
    def query(self) -> Ints:
        """(M,) the query of each entry."""
        return np.repeat(np.arange(len(self)), self.counts)

    def counting_semi(self) -> Ranks:
        """The same with every reference that is neither true nor false taken as false."""
        zeros = np.zeros_like(self.above)
        above, tied = self.above + self.semi_above, self.tied + self.semi_tied
        return replace(self, above=above, tied=tied, semi_above=zeros, semi_tied=zeros)

    def select(self, queries: NDArray[Any]) -> Ranks:
        """Only those queries, by index or as a mask."""
        chosen = np.arange(len(self))[queries]
        entries = (
            np.concatenate([np.arange(self.starts[i], self.starts[i] + self.counts[i]) for i in chosen])
            if len(chosen)
            else np.zeros(0, np.int64)
        )
        names = ("scores", "above", "tied", "semi_above", "semi_tied")
        parts: dict[str, Any] = {name: getattr(self, name)[entries] for name in names}
        return replace(self, counts=self.counts[chosen], covered=self.covered[chosen], top=self.top[chosen], **parts)

    def worst(self) -> Ints:
        """(Q,) rank, from 1, of the closest true reference with every tie counted against it."""
        return 1 + self.above[self.starts] + self.tied[self.starts]

    def within(self, k: int, ties: Ties = "chance") -> NDArray[np.float64]:
        """(Q,) that a true reference is among the first k: 0 or 1, or with ties by chance what chance gives.

        Of m false and t true references exactly as close, in a random order and after `above` others, the first j =
        k - above hold no true one with the chance of drawing j false ones, C(m + t - j, t) / C(m + t, t). On
        descriptors that are all alike this is k / R for one true reference.
        """
        if ties == "against":
            return (self.worst() <= k).astype(np.float64)
        false, above = self.tied[self.starts], self.above[self.starts]
        level = self.scores == self.scores[self.starts][self.query]
        true = np.add.reduceat(level, self.starts, dtype=np.int64) if len(self) else np.zeros(0, np.int64)
        drawn = np.clip(k - above, 0, false + true)
        none = np.ones(len(self))
        for i in range(int(true.max(initial=0))):
            left = np.maximum(false + true - drawn - i, 0) / np.maximum(false + true - i, 1)
            none *= np.where(i < true, left, 1.0)
        return 1.0 - none


def rank_scores(
    scores: NDArray[Any],
    matches: Sequence[Ints],
    semi: Sequence[Ints] | None = None,
    *,
    top: int = 0,
    memory: int = 1 << 29,
) -> Ranks:
    """Ranks from scores that are there already.

    Args:
        scores: (Q, R) similarity, greater is closer; compared in single precision.
        matches: per query, the indices of its true references, at least one.
        semi: per query, indices that are neither true nor false.
        top: how many of the closest references to keep.
        memory: bytes to work in, about.

    Raises:
        DatasetError: a query without a true reference, or an index outside the gallery.
        ModelError: a score that is not finite.
    """
    whole = np.asarray(scores)
    if whole.ndim != 2:
        raise ModelError("not a table", field="scores", found=whole.shape, expected="(Q, R)")

    def block(rows: slice) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(whole[rows], dtype=np.float32))

    return _rank(block, whole.shape[0], whole.shape[1], matches, semi, top, memory, None)


def rank_descriptors(
    query: Floats,
    reference: Floats,
    matches: Sequence[Ints],
    semi: Sequence[Ints] | None = None,
    *,
    metric: Literal["cosine", "euclidean"] = "cosine",
    score: Score | None = None,
    top: int = 0,
    device: torch.device | str = "cpu",
    memory: int = 1 << 29,
    progress: Callable[[int], None] | None = None,
) -> Ranks:
    """Ranks from descriptors, some queries at a time: a gallery of 100 000 takes no more memory than a small one.

    Scores are summed in double precision and compared in single precision, so that equal descriptors give equal scores
    in whatever order the sums were taken: a library may take it differently in every column.

    Args:
        query, reference: (Q, D), (R, D) descriptors as `CrossViewModel.embed` gives them.
        matches: per query, the indices of its true references, at least one.
        semi: per query, indices that are neither true nor false.
        metric: "cosine" of unit vectors, or "euclidean" distance.
        score: a model's own score instead of the metric, see `own_score`.
        top: how many of the closest references to keep.
        device: to compute on; "cpu" or "cuda".
        memory: bytes to work in, about, beside the descriptors.
        progress: called with the number of queries done so far.

    Raises:
        DatasetError: a query without a true reference, or an index outside the gallery.
        ModelError: descriptors of different lengths, or a score that is not finite.
    """
    if query.ndim != 2 or reference.ndim != 2 or query.shape[1] != reference.shape[1]:
        raise ModelError(
            "descriptors that cannot be compared",
            field="reference",
            found=reference.shape,
            expected=f"(R, {query.shape[-1]})",
        )
    queries, references = (torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device) for x in (query, reference))
    # Distances are taken from the gallery's centre: far from the origin they would drown in the lengths.
    centre = references.double().mean(0) if metric == "euclidean" and score is None else None
    columns = max(1, memory // (2 * 8 * query.shape[1]))

    def part(mine: Tensor, theirs: Tensor) -> Tensor:
        left, right = mine.double(), theirs.double()
        if score is not None:
            with torch.inference_mode():
                return score(left, right).float()
        if centre is None:
            return (left @ right.T).float()
        left, right = left - centre, right - centre
        # The order of -|q - r|^2, without the part that is the same for all references of a query.
        return (left @ right.T - right.square().sum(1) / 2).float()

    def block(rows: slice) -> Tensor:
        mine = queries[rows]
        # A model's own score may make a vector of every pair.
        step = max(1, columns // len(mine)) if score is not None else columns
        return torch.cat([part(mine, theirs) for theirs in references.split(step)], 1)

    return _rank(block, len(query), len(reference), matches, semi, top, memory, progress)


def _rank(
    block: Callable[[slice], Tensor],
    size: int,
    gallery: int,
    matches: Sequence[Ints],
    semi: Sequence[Ints] | None,
    top: int,
    memory: int,
    progress: Callable[[int], None] | None,
) -> Ranks:
    true = [_indices(found, gallery, "matches") for found in matches]
    if len(true) != size:
        raise DatasetError("does not fit the queries", field="matches", found=len(true), expected=str(size))
    if not all(len(found) for found in true):
        raise DatasetError("a query without a true reference", field="matches")
    neither = [np.zeros(0, np.int64)] * size
    if semi is not None:
        if len(semi) != size:
            raise DatasetError("does not fit the queries", field="semi", found=len(semi), expected=str(size))
        neither = [np.setdiff1d(_indices(found, gallery, "semi"), true[i]) for i, found in enumerate(semi)]
    top = min(top, gallery)
    # One number per reference, moved on by another for every query: the order among equals, without favourites.
    random = np.random.default_rng(0)
    priority = torch.from_numpy(random.permutation(gallery))
    shift = torch.from_numpy(random.integers(0, max(gallery, 1), size))
    rows = max(1, memory // (_PER_SCORE * max(gallery, 1)))
    found: list[tuple[NDArray[Any], ...]] = []
    for start in range(0, size, rows):
        chosen = slice(start, min(start + rows, size))
        scores = block(chosen)
        if not bool(torch.isfinite(scores).all()):
            row = start + int((~torch.isfinite(scores)).any(1).nonzero()[0])
            raise ModelError("a score that is not a finite number", field=f"query {row}")
        found.append(_count(scores, true[chosen], neither[chosen], priority, shift[chosen], top))
        if progress is not None:
            progress(chosen.stop)
    names = ("scores", "above", "tied", "semi_above", "semi_tied", "covered", "top")
    empty: tuple[NDArray[Any], ...] = (
        np.zeros(0, np.float32),
        *(np.zeros(0, np.int64) for _ in range(4)),
        np.zeros(0, np.float64),
        np.zeros((0, top), np.int64),
    )
    columns = list(zip(*found, strict=True)) if found else [(part,) for part in empty]
    parts: dict[str, Any] = {name: np.concatenate(column) for name, column in zip(names, columns, strict=True)}
    return Ranks(gallery=gallery, counts=np.array([len(x) for x in true], np.int64), **parts)


def _indices(found: Ints, gallery: int, field: str) -> Ints:
    indices = np.unique(np.asarray(found, np.int64))
    if len(indices) and (indices[0] < 0 or indices[-1] >= gallery):
        wrong = int(indices[0] if indices[0] < 0 else indices[-1])
        raise DatasetError("no such reference", field=field, found=wrong, expected=f"0 to {gallery - 1}")
    return indices


def _count(
    scores: Tensor, true: Sequence[Ints], neither: Sequence[Ints], priority: Tensor, shift: Tensor, top: int
) -> tuple[NDArray[Any], ...]:
    """The parts of `Ranks` for (B, R) scores."""
    scores = scores + 0.0  # -0.0 becomes 0.0, which it equals but whose bits it has not
    own = _pick(scores, true).sort(1, descending=True).values
    semi = _pick(scores, neither)
    above, reached = _over(scores, own)
    true_above, true_reached = _over(own, own)
    semi_above, semi_reached = _over(semi, own)
    false_above = above - true_above - semi_above
    false_tied = reached - true_reached - semi_reached - false_above
    best = scores.max(1, keepdim=True).values
    good = (own == best).sum(1) + (semi == best).sum(1)
    covered = good.double() / (scores == best).sum(1)
    present = torch.isfinite(own)
    flat = (own, false_above, false_tied, semi_above, semi_reached - semi_above)
    best_first = _best(scores, priority, shift, top)
    return (*(part[present].cpu().numpy() for part in flat), covered.cpu().numpy(), best_first.cpu().numpy())


def _pick(scores: Tensor, indices: Sequence[Ints]) -> Tensor:
    """(B, T) scores of the references listed per row, -inf where a row lists fewer than the longest."""
    width = max((len(found) for found in indices), default=0)
    padded = np.full((len(indices), width), -1, np.int64)
    for row, found in enumerate(indices):
        padded[row, : len(found)] = found
    where = torch.from_numpy(padded).to(scores.device)
    return scores.gather(1, where.clamp(min=0)).masked_fill(where < 0, -torch.inf)


def _over(values: Tensor, limits: Tensor) -> tuple[Tensor, Tensor]:
    """(B, T) numbers of (B, N) values above, and not below, each of (B, T) limits."""
    if limits.shape[1] <= _FEW:
        each = [limits[:, i : i + 1] for i in range(limits.shape[1])]
        return (
            torch.stack([(values > limit).sum(1) for limit in each], 1),
            torch.stack([(values >= limit).sum(1) for limit in each], 1),
        )
    ordered, limits = values.sort(1).values.contiguous(), limits.contiguous()
    size = values.shape[1]
    return (
        size - torch.searchsorted(ordered, limits, right=True),
        size - torch.searchsorted(ordered, limits, right=False),
    )


def _best(scores: Tensor, priority: Tensor, shift: Tensor, top: int) -> Tensor:
    """(B, top) closest references; those exactly as close in the order of their numbers moved on by `shift`."""
    if top == 0:
        return torch.zeros(len(scores), 0, dtype=torch.int64)
    bits = scores.view(torch.int32)
    # The bits of floating-point numbers are in their order, but for the negative ones, which go backwards.
    order = torch.where(bits >= 0, bits, bits ^ 0x7FFFFFFF).long()
    moved = (priority.to(scores.device) + shift.to(scores.device)[:, None]) % max(len(priority), 1)
    return ((order << 32) + moved).topk(top, dim=1).indices
