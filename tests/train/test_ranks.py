"""Ranks against counting by hand, and what descriptors that are all alike come to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.errors import ModelError
from cvgl_train.data.base import DatasetError
from cvgl_train.evaluation.metrics import (
    chance_at,
    recall_at,
    recall_at_percent,
)
from cvgl_train.evaluation.ranks import Ranks, rank_descriptors, rank_scores

PARTS = ("counts", "scores", "above", "tied", "semi_above", "semi_tied", "covered", "top")


def lists(*rows: list[int]) -> list[NDArray[np.int64]]:
    return [np.array(row, np.int64) for row in rows]


def unit(rng: np.random.Generator, size: int, length: int) -> NDArray[np.float32]:
    x = rng.normal(size=(size, length))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def naive_recall(query: NDArray[Any], reference: NDArray[Any], true: NDArray[np.int64], k: int) -> float:
    """What published codes do: found if the true one is no farther than the k-th closest."""
    distance = 2 - 2 * query @ reference.T
    kth = np.sort(distance, axis=1)[:, k - 1]
    return float((distance[np.arange(len(query)), true] <= kth).mean())


def same(one: Ranks, other: Ranks) -> bool:
    return one.gallery == other.gallery and all(np.array_equal(getattr(one, p), getattr(other, p)) for p in PARTS)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_descriptors_that_are_all_alike_win_nothing(metric: Any) -> None:
    """The naive formula says 100 %, this one what chance gives: k of 1003."""
    rng = np.random.default_rng(0)
    one = unit(rng, 1, 97)
    query, reference, true = np.repeat(one, 60, 0), np.repeat(one, 1003, 0), np.arange(60)
    ranks = rank_descriptors(query, reference, lists(*[[i] for i in true]), metric=metric)

    assert naive_recall(np.ones((60, 1)), np.ones((1003, 1)), true, 1) == 1.0
    assert naive_recall(np.ones((60, 1)), np.ones((1003, 1)), true, 11) == 1.0

    assert ranks.tied.tolist() == [1002] * 60
    for k in (1, 5, 10):
        assert recall_at(ranks, k) == pytest.approx(k / 1003, rel=1e-12)
        assert recall_at(ranks, k) == pytest.approx(chance_at(ranks, k), rel=1e-12)
        assert recall_at(ranks, k, "against") == 0.0
    assert recall_at_percent(ranks, "university-1652") == pytest.approx(11 / 1003)
    assert recall_at_percent(ranks, "cvusa") == pytest.approx(10 / 1003)
    assert ranks.worst().tolist() == [1003] * 60


def test_a_network_of_constant_output_ties_exactly_whatever_the_gallery_size() -> None:
    """Sums taken in another order in other columns must not decide; a library's kernels have odd edges."""
    rng = np.random.default_rng(1)
    for size, length in ((7, 3), (33, 512), (130, 1000), (517, 2048)):
        one = unit(rng, 1, length)
        ranks = rank_descriptors(np.repeat(one, 5, 0), np.repeat(one, size, 0), lists(*[[i] for i in range(5)]))
        assert ranks.tied.tolist() == [size - 1] * 5


def test_ties_with_several_true_ones_by_enumeration() -> None:
    """Every order of 2 true and 3 false ones, after one false one that is closer."""
    from itertools import permutations

    ranks = rank_scores(np.array([[9.0, 5, 5, 5, 5, 5, 1]]), lists([1, 3]))
    assert (ranks.above[0], ranks.tied[0]) == (1, 3)
    orders = list(permutations("ttfff"))
    for k in range(1, 8):
        among = sum("t" in order[: max(k - 1, 0)] for order in orders) / len(orders)
        assert ranks.within(k)[0] == pytest.approx(among)
    assert [ranks.within(k, "against")[0] for k in range(3, 7)] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("scores", "true", "above", "tied", "worst"),
    [
        ([3, 2, 1, 0], [0], [0], [0], 1),
        ([3, 2, 1, 0], [2], [2], [0], 3),
        ([1, 1, 1, 0], [1], [0], [2], 3),
        # Two true ones do not compete with each other: the second has one false one before it.
        ([4, 3, 2, 1], [0, 2], [0, 1], [0, 0], 1),
        ([4, 3, 2, 1], [2, 0], [0, 1], [0, 0], 1),
        ([2, 2, 2, 1], [0, 1], [0, 0], [1, 1], 2),
        ([-1, -0.0, 0.0, -2], [1], [0], [1], 2),
    ],
)
def test_counts(scores: list[float], true: list[int], above: list[int], tied: list[int], worst: int) -> None:
    ranks = rank_scores(np.array([scores]), lists(true))
    assert (ranks.above.tolist(), ranks.tied.tolist(), ranks.worst().tolist()) == (above, tied, [worst])


def test_semi_positives_are_left_out_and_can_be_counted() -> None:
    scores = np.array([[9.0, 8, 7, 7, 6], [9.0, 8, 7, 7, 6]])
    ranks = rank_scores(scores, lists([2], [2]), lists([0, 3], []))
    assert ranks.above.tolist() == [1, 2]
    assert ranks.tied.tolist() == [0, 1]
    assert (ranks.semi_above.tolist(), ranks.semi_tied.tolist()) == ([1, 0], [1, 0])
    counted = ranks.counting_semi()
    assert (counted.above.tolist(), counted.tied.tolist()) == ([2, 2], [1, 1])
    assert ranks.covered.tolist() == [1.0, 0.0]


def test_the_true_one_stays_true_where_it_is_listed_as_semi_positive_too() -> None:
    ranks = rank_scores(np.array([[1.0, 2, 3]]), lists([0]), lists([0, 2]))
    assert (ranks.above.tolist(), ranks.semi_above.tolist()) == ([1], [1])


def brute(scores: NDArray[np.float32], true: list[int], semi: list[int]) -> tuple[list[int], ...]:
    false = [j for j in range(len(scores)) if j not in true and j not in semi]
    order = sorted(true, key=lambda j: -scores[j])
    return (
        [sum(scores[j] > scores[t] for j in false) for t in order],
        [sum(scores[j] == scores[t] for j in false) for t in order],
        [sum(scores[j] > scores[t] for j in semi) for t in order],
        [sum(scores[j] == scores[t] for j in semi) for t in order],
    )


@st.composite
def problems(draw: st.DrawFn) -> tuple[NDArray[np.float32], list[list[int]], list[list[int]]]:
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(2, 25))
    # Few different values, so that there are ties.
    value = st.integers(-3, 3)
    scores = draw(st.lists(st.lists(value, min_size=gallery, max_size=gallery), min_size=queries, max_size=queries))
    index = st.integers(0, gallery - 1)
    true = [draw(st.lists(index, min_size=1, max_size=20, unique=True)) for _ in range(queries)]
    semi = [[j for j in draw(st.lists(index, max_size=4, unique=True)) if j not in t] for t in true]
    return np.array(scores, np.float32), true, semi


@settings(max_examples=60, deadline=None)
@given(problems())
def test_ranks_are_what_counting_gives(problem: tuple[NDArray[np.float32], list[list[int]], list[list[int]]]) -> None:
    scores, true, semi = problem
    ranks = rank_scores(scores, lists(*true), lists(*semi))
    expected = [brute(row, t, s) for row, t, s in zip(scores, true, semi, strict=True)]
    for place, name in enumerate(("above", "tied", "semi_above", "semi_tied")):
        assert getattr(ranks, name).tolist() == [x for row in expected for x in row[place]]
    for row, t, s, covered in zip(scores, true, semi, ranks.covered, strict=True):
        first = np.flatnonzero(row == row.max())
        assert covered == pytest.approx(np.isin(first, t + s).mean())


@settings(max_examples=40, deadline=None)
@given(problems(), st.randoms(use_true_random=False))
def test_only_the_order_of_scores_matters_and_not_that_of_the_gallery(problem: Any, random: Any) -> None:
    scores, true, semi = problem
    ranks = rank_scores(scores, lists(*true), lists(*semi))
    moved = list(range(scores.shape[1]))
    random.shuffle(moved)
    place = np.argsort(moved)
    other = rank_scores(
        np.exp(scores / 2)[:, moved] * 5 - 3, lists(*[place[t] for t in true]), lists(*[place[s] for s in semi])
    )
    for name in ("counts", "above", "tied", "semi_above", "semi_tied", "covered"):
        assert np.array_equal(getattr(ranks, name), getattr(other, name))
    for k in (1, 2, 5):
        assert np.array_equal(ranks.within(k), other.within(k))


@settings(max_examples=40, deadline=None)
@given(problems())
def test_recall_grows_with_k_and_chance_lies_above_against(problem: Any) -> None:
    scores, true, _ = problem
    ranks = rank_scores(scores, lists(*true))
    by_chance = [recall_at(ranks, k) for k in range(1, ranks.gallery + 1)]
    against = [recall_at(ranks, k, "against") for k in range(1, ranks.gallery + 1)]
    assert all(0 <= low <= high + 1e-12 <= 1 + 2e-12 for low, high in zip(against, by_chance, strict=True))
    assert by_chance == sorted(by_chance)
    assert by_chance[-1] == against[-1] == 1.0


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_some_queries_at_a_time_give_the_same_as_all_at_once(metric: Any) -> None:
    rng = np.random.default_rng(2)
    query, reference = unit(rng, 37, 16), unit(rng, 211, 16)
    reference[50:60] = reference[40]
    true = [rng.choice(211, rng.integers(1, 30), replace=False) for _ in range(37)]
    semi = [rng.choice(211, 3, replace=False) for _ in range(37)]
    whole = rank_descriptors(query, reference, true, semi, metric=metric, top=10)
    seen: list[int] = []
    parts = rank_descriptors(query, reference, true, semi, metric=metric, top=10, memory=20_000, progress=seen.append)
    assert same(whole, parts)
    assert len(seen) > 10
    assert seen[-1] == 37


def test_euclidean_is_the_order_of_distances_far_from_the_origin_too() -> None:
    rng = np.random.default_rng(3)
    reference = (100 + rng.normal(size=(80, 12))).astype(np.float32)
    query = (reference[:30] + 0.5 * rng.normal(size=(30, 12))).astype(np.float32)
    distance = np.linalg.norm(query[:, None].astype(float) - reference[None], axis=2)
    ranks = rank_descriptors(query, reference, lists(*[[i] for i in range(30)]), metric="euclidean", top=80)
    assert ranks.above.tolist() == [int((row < row[i]).sum()) for i, row in enumerate(distance)]
    assert np.array_equal(ranks.top, distance.argsort(1))


def test_a_models_own_score_is_used_in_double_precision() -> None:
    rng = np.random.default_rng(4)
    query, reference = unit(rng, 9, 6), unit(rng, 40, 6)
    true = lists(*[[i] for i in range(9)])
    seen = set()

    def score(q: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
        seen.add(q.dtype)
        return -(q[:, None] - r[None]).abs().sum(2)

    ranks = rank_descriptors(query, reference, true, score=score, memory=5_000)
    away = np.abs(query[:, None] - reference[None]).sum(2)
    assert ranks.above.tolist() == [int((row < row[i]).sum()) for i, row in enumerate(away)]
    assert seen == {torch.float64}


def test_the_first_of_many_equal_ones_is_anyone_but_always_the_same() -> None:
    scores = np.zeros((200, 50), np.float32)
    scores[:, 7] = -1
    one = rank_scores(scores, lists(*[[7]] * 200), top=3)
    assert np.array_equal(one.top, rank_scores(scores, lists(*[[7]] * 200), top=3).top)
    assert 7 not in one.top
    assert len(set(one.top[:, 0].tolist())) > 40


def test_top_is_in_the_order_of_scores_of_either_sign() -> None:
    scores = np.array([[-3.0, 2, -0.5, 0.25, 7, -8]])
    assert rank_scores(scores, lists([0]), top=9).top.tolist() == [[4, 1, 3, 2, 0, 5]]


def test_a_selection_is_what_the_queries_alone_give() -> None:
    rng = np.random.default_rng(5)
    scores = rng.integers(0, 9, (20, 30)).astype(np.float32)
    true = [rng.choice(30, rng.integers(1, 5), replace=False) for _ in range(20)]
    ranks = rank_scores(scores, true)
    chosen = np.array([3, 17, 4])
    alone = rank_scores(scores[chosen], [true[i] for i in chosen])
    assert same(ranks.select(chosen), alone)
    assert same(
        ranks.select(np.isin(np.arange(20), chosen)),
        rank_scores(scores[np.sort(chosen)], [true[i] for i in sorted(chosen)]),
    )
    assert len(ranks.select(np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"matches": lists([0], [])}, DatasetError, "a query without a true reference"),
        ({"matches": lists([0], [4])}, DatasetError, "matches: no such reference (found 4, expected 0 to 3)"),
        ({"matches": lists([0])}, DatasetError, "matches: does not fit the queries (found 1, expected 2)"),
        ({"semi": lists([0])}, DatasetError, "semi: does not fit the queries"),
        ({"semi": lists([-1], [])}, DatasetError, "semi: no such reference (found -1"),
        (
            {"scores": np.array([[0.0, 1, 2, 3], [0, np.nan, 1, 1]])},
            ModelError,
            "query 1: a score that is not a finite",
        ),
        ({"scores": np.zeros(4)}, ModelError, "scores: not a table"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], words: str) -> None:
    given = {"scores": np.zeros((2, 4)), "matches": lists([0], [1]), "semi": None, **change}
    with pytest.raises(error) as caught:
        rank_scores(given["scores"], given["matches"], given["semi"])
    assert words in str(caught.value)


def test_descriptors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ModelError, match="cannot be compared"):
        rank_descriptors(np.zeros((2, 4), np.float32), np.zeros((2, 5), np.float32), lists([0], [1]))
