"""Metrics against the published values, against scikit-learn and against small cases done by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from cvgl_train.data.base import DatasetError
from cvgl_train.evaluation.metrics import (
    ap_standard,
    ap_trapezoidal,
    chance_at,
    distances_m,
    first_percent,
    hit_rate,
    hit_rate_first,
    percentiles,
    pssr,
    recall_at,
    recall_at_percent,
)
from cvgl_train.evaluation.ranks import Ranks, rank_descriptors, rank_scores
from cvgl_train.evaluation.sdm import sdm_degrees, sdm_metres


def ranked(scores: Any, *true: list[int], semi: list[list[int]] | None = None) -> Ranks:
    return rank_scores(
        np.asarray(scores, np.float32),
        [np.array(t) for t in true],
        None if semi is None else [np.array(s, np.int64) for s in semi],
    )


@pytest.mark.data
def test_the_authors_values(cvgl_data: Path) -> None:
    gold = np.load(cvgl_data / "golden" / "losses_metrics.npz")
    labels = gold["metric_gl"]
    ranks = rank_descriptors(
        gold["metric_qf"], gold["metric_gf"], [np.flatnonzero(labels == x) for x in gold["metric_ql"]]
    )
    for name, value in (
        *((f"univ1652_R{k}", 100 * recall_at(ranks, k)) for k in (1, 5, 10)),
        ("univ1652_R1pct", 100 * recall_at_percent(ranks, "university-1652")),
        ("univ1652_AP", 100 * ap_trapezoidal(ranks)),
        *(
            (f"denseuav_sdm_{k}", sdm_degrees(gold["sdm_query_lonlat"][None], gold["sdm_gallery_lonlat"][None], k)[0])
            for k in (1, 3, 5, 10)
        ),
    ):
        assert value == pytest.approx(float(gold[name]), abs=1e-5), name


@pytest.mark.parametrize(
    ("gallery", "university", "cvusa", "cvm_net"),
    [(951, 11, 9, 10), (230, 3, 2, 3), (8884, 90, 88, 89), (51355, 515, 513, 514), (40, 1, 1, 1), (160, 3, 1, 2)],
)
def test_one_percent_is_three_numbers(gallery: int, university: int, cvusa: int, cvm_net: int) -> None:
    assert first_percent(gallery, "university-1652") == university
    assert first_percent(gallery, "cvusa") == cvusa
    assert first_percent(gallery, "cvm-net") == cvm_net


def test_the_rules_of_one_percent_give_other_recalls() -> None:
    scores = np.arange(230, 0, -1)[None]
    assert [recall_at_percent(ranked(scores, [2]), rule) for rule in ("university-1652", "cvusa", "cvm-net")] == [
        1,
        0,
        1,
    ]


def test_average_precision_by_hand() -> None:
    """True ones first, third and fourth of five."""
    ranks = ranked([[5, 4, 3, 2, 1]], [0, 2, 3])
    assert ap_standard(ranks) == pytest.approx((1 + 2 / 3 + 3 / 4) / 3)
    assert ap_trapezoidal(ranks) == pytest.approx(((1 + 1) + (2 / 3 + 1 / 2) + (3 / 4 + 2 / 3)) / 2 / 3)


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(2, 30))
    value = st.integers(-5, 5)
    scores = [draw(st.lists(value, min_size=gallery, max_size=gallery)) for _ in range(queries)]
    index = st.integers(0, gallery - 1)
    return np.array(scores), [draw(st.lists(index, min_size=1, max_size=9, unique=True)) for _ in range(queries)]


@settings(max_examples=40, deadline=None)
@given(searches())
def test_standard_ap_is_scikit_learns_ties_and_all(case: tuple[np.ndarray, list[list[int]]]) -> None:
    scores, true = case
    expected = [
        average_precision_score(np.isin(np.arange(len(row)), t), row) for row, t in zip(scores, true, strict=True)
    ]
    assert ap_standard(ranked(scores, *true)) == pytest.approx(np.mean(expected), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(searches())
def test_bounds(case: tuple[np.ndarray, list[list[int]]]) -> None:
    scores, true = case
    ranks = ranked(scores, *true)
    for value in (
        ap_standard(ranks),
        ap_trapezoidal(ranks),
        recall_at(ranks, 1),
        hit_rate(ranks),
        hit_rate_first(ranks),
    ):
        assert 0 <= value <= 1 + 1e-12
    for itself in (True, False):
        values = pssr(ranks, counting_itself=itself)
        assert values.shape == (len(scores),)
        assert ((values >= 0) & (values <= 1)).all()
    assert recall_at(ranks, 1, "against") <= recall_at(ranks, 1)
    assert ap_trapezoidal(ranks) <= ap_standard(ranks) + 1e-12


@settings(max_examples=25, deadline=None)
@given(searches())
def test_better_scores_of_the_true_ones_never_hurt(case: tuple[np.ndarray, list[list[int]]]) -> None:
    scores, true = case
    better = scores.copy()
    for row, t in zip(better, true, strict=True):
        row[t] += 2
    before, after = ranked(scores, *true), ranked(better, *true)
    assert ap_standard(after) >= ap_standard(before) - 1e-12
    assert ap_trapezoidal(after) >= ap_trapezoidal(before) - 1e-12
    assert recall_at(after, 1) >= recall_at(before, 1) - 1e-12
    assert (pssr(after) >= pssr(before)).all()


def test_a_perfect_model_and_one_that_is_all_alike() -> None:
    perfect, alike = (
        ranked(np.eye(10), *[[i] for i in range(10)]),
        ranked(np.zeros((10, 10)), *[[i] for i in range(10)]),
    )
    for measure in (ap_standard, ap_trapezoidal, hit_rate, hit_rate_first):
        assert measure(perfect) == 1.0
    assert pssr(perfect).mean() == pytest.approx(0.9)
    assert pssr(perfect, counting_itself=False).mean() == 1.0
    assert pssr(alike).mean() == 0.0
    assert pssr(alike, counting_itself=False).mean() == pytest.approx(0.1)
    assert ap_standard(alike) == pytest.approx(0.1)
    assert ap_trapezoidal(alike) == pytest.approx(0.05)
    assert hit_rate(alike) == pytest.approx(0.1)
    assert hit_rate_first(alike) == pytest.approx(0.1)


def test_pssr_counts_what_is_as_close_or_closer() -> None:
    """Of five, one is closer and one as close."""
    ranks = ranked([[9, 7, 7, 1, 0]], [1])
    assert pssr(ranks).tolist() == [pytest.approx(2 / 5)]
    assert pssr(ranks, counting_itself=False).tolist() == [pytest.approx(3 / 5)]


def test_both_hit_rates_and_published_recall_on_vigor() -> None:
    """A semi-positive one first, a false one second, the true one third; and the false one away in the second query."""
    ranks = ranked([[9, 8, 7, 0], [9, 6, 7, 0]], [2], [2], semi=[[0], [0]])
    assert hit_rate(ranks) == 0.5
    assert hit_rate_first(ranks) == 1.0
    assert recall_at(ranks.counting_semi(), 1) == 0.0


def test_chance_is_what_a_random_order_gives() -> None:
    ranks = ranked(np.zeros((2, 6)), [0], [1, 2, 3])
    assert chance_at(ranks, 2) == pytest.approx((2 / 6 + 1 - (3 * 2) / (6 * 5)) / 2)
    assert chance_at(ranks, 2) == pytest.approx(recall_at(ranks, 2))
    assert chance_at(ranks, 6) == 1.0


def test_sdm_in_metres_by_hand() -> None:
    """GTA-UAV: weights 3, 2, 1 at 0, 1000 and 2000 m."""
    expected = (3 + 2 / math.e + 1 / math.e**2) / 6
    assert sdm_metres(np.array([[0.0, 1000.0, 2000.0, 5.0]]), 3)[0] == pytest.approx(expected)
    assert sdm_metres(np.array([[500.0]]), 1)[0] == pytest.approx(math.exp(-0.5))


def test_sdm_in_degrees_by_hand() -> None:
    """Near the equator and meridian, where single precision loses nothing: 0.0002 degrees are 1/e."""
    found = np.array([[[0.0, 0.0002], [0.0, 0.0]]])
    assert sdm_degrees(np.zeros((1, 2)), found, 1)[0] == pytest.approx(1 / math.e, rel=1e-6)
    assert sdm_degrees(np.zeros((1, 2)), found, 2)[0] == pytest.approx((2 / math.e + 1) / 3, rel=1e-6)


def test_the_two_sdm_are_not_comparable() -> None:
    """200 m to the north: nearly nothing by degrees, most of it by metres."""
    north = 200 / 111_195
    assert sdm_degrees(np.zeros((1, 2)), np.array([[[north, 0.0]]]), 1)[0] < 0.001
    assert sdm_metres(np.array([[200.0]]), 1)[0] > 0.8


def test_distances_in_metres_and_on_the_ellipsoid() -> None:
    query, reference = np.array([[0.0, 0.0], [3.0, 4.0]]), np.array([[3.0, 4.0], [0.0, 0.0]])
    assert distances_m(query, reference, np.array([[0, 1], [1, 0]]), "metres").tolist() == [[5, 0], [5, 0]]
    # By the ellipsoid's radii at 47.5 degrees north a minute of latitude is 1853.0 m, one of longitude 1255.7 m.
    places = np.array([[47.5 + 1 / 60, 9.5], [47.5, 9.5 + 1 / 60]])
    found = distances_m(np.array([[47.5, 9.5]]), places, np.array([[0, 1]]))
    assert found[0] == pytest.approx([1853.0, 1255.7], abs=0.1)


def test_positions_of_another_shape_are_refused() -> None:
    with pytest.raises(DatasetError, match="reference positions: not positions"):
        distances_m(np.zeros((2, 2)), np.zeros((3, 3)), np.zeros((2, 1), np.int64))


def test_percentiles() -> None:
    assert percentiles(np.arange(101), (50, 90)) == {50: 50.0, 90: 90.0}
