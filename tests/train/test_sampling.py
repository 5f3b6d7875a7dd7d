"""Which pairs a batch is made of: true ones, of distinct places, near each other where that is asked for."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cvgl.errors import CvglError
from cvgl_train.data.base import CrossViewSet
from cvgl_train.sampling import SAMPLERS, Sampler, SamplerError, build_sampler, ignored_pairs, share
from cvgl_train.sampling.base import deal


class Nothing:
    """An image that is never read."""

    name = "nothing"

    def read(self) -> NDArray[np.uint8]:
        raise AssertionError("samplers look at no image")


def places(
    views: list[int],
    distractors: int = 0,
    references_each: int = 1,
    positions: Literal["none", "queries", "references"] = "queries",
    frame: Literal["wgs84", "metres"] = "metres",
    semi: list[list[int]] | None = None,
) -> CrossViewSet:
    """Place i lies at (100 i, 0), has `views[i]` queries and `references_each` references; distractors come last."""
    labels = np.repeat(np.arange(len(views)), views)
    references = np.repeat(np.arange(len(views)), references_each)
    reference_labels = np.r_[references, np.full(distractors, -1)]
    easting = np.r_[references * 100.0, -1000.0 * np.ones(distractors)]
    return CrossViewSet(
        "places",
        "train",
        [Nothing()] * len(labels),
        [Nothing()] * len(reference_labels),
        [np.flatnonzero(references == label) for label in labels],
        labels,
        reference_labels,
        None if semi is None else [np.array(found, np.int64) for found in semi],
        np.stack([labels * 100.0, np.zeros(len(labels))], 1) if positions == "queries" else None,
        np.stack([easting, np.zeros(len(easting))], 1) if positions == "references" else None,
        frame,
    )


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(list(seed))


def descriptors(dataset: CrossViewSet, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Places in a row, so that the nearest in descriptors are the neighbours in the row; distractors are everywhere."""
    noise = rng(seed)
    query = np.stack([dataset.query_labels, noise.normal(0, 0.01, len(dataset.queries))], 1)
    reference = np.stack([dataset.reference_labels, noise.normal(0, 0.01, len(dataset.references))], 1)
    distractors = dataset.reference_labels < 0
    reference[distractors, 0] = noise.uniform(0, dataset.classes, int(distractors.sum()))
    return query.astype(np.float32), reference.astype(np.float32)


def taught(name: str, dataset: CrossViewSet, batch: int, **own: Any) -> Sampler:
    sampler = build_sampler({"name": name, **own}, dataset, batch)
    sampler.update(*descriptors(dataset))
    return sampler


sets = st.builds(
    places,
    st.lists(st.integers(1, 4), min_size=1, max_size=12),
    distractors=st.integers(0, 3),
    references_each=st.integers(1, 2),
    positions=st.sampled_from(["queries", "references"]),
    frame=st.sampled_from(["wgs84", "metres"]),
)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("learnt", [False, True])
@settings(max_examples=25, deadline=None)
@given(dataset=sets, batch=st.integers(1, 9), number=st.integers(0, 3), seed=st.integers(0, 99))
def test_batches_are_of_true_pairs_and_of_one_size(
    name: str, learnt: bool, dataset: CrossViewSet, batch: int, number: int, seed: int
) -> None:
    make = taught if learnt else lambda name, dataset, batch: build_sampler({"name": name}, dataset, batch)
    batches = make(name, dataset, batch).epoch(number, rng(seed))
    pairs = dataset.classes if name == "k_fold" else len(dataset.queries)
    assert len(batches) == max(1, pairs // batch)
    assert {each.shape for each in batches} == {(min(batch, pairs), 2)}
    assert all(each.dtype == np.int64 for each in batches)
    assert all(reference in dataset.matches[query] for each in batches for query, reference in each)
    again = make(name, dataset, batch).epoch(number, rng(seed))
    assert all(np.array_equal(one, other) for one, other in zip(batches, again, strict=True))


@pytest.mark.parametrize("name", ["shuffled", "gps_neighbours"])
def test_every_query_comes_once(name: str) -> None:
    dataset = places([2] * 20)
    drawn = np.concatenate(build_sampler({"name": name}, dataset, 8).epoch(0, rng(1)))[:, 0]
    assert sorted(drawn) == list(range(40))
    other = np.concatenate(build_sampler({"name": name}, dataset, 8).epoch(1, rng(2)))[:, 0]
    assert not np.array_equal(drawn, other)


def test_what_fills_no_batch_differs_from_epoch_to_epoch() -> None:
    sampler = build_sampler({"name": "shuffled"}, places([1] * 11), 4)
    drawn = [frozenset(np.concatenate(sampler.epoch(i, rng(i)))[:, 0]) for i in range(5)]
    assert {len(each) for each in drawn} == {8} and len(set(drawn)) > 1


def test_true_references_take_turns() -> None:
    sampler = build_sampler({"name": "shuffled"}, places([1] * 4, references_each=3), 4)
    drawn = np.concatenate([sampler.epoch(i, rng(i))[0] for i in range(30)])
    assert len({tuple(pair) for pair in drawn}) == 12


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_labels_collide_only_where_they_must(data: st.DataObject) -> None:
    batches, size = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 6))
    counts = data.draw(st.lists(st.integers(1, batches), min_size=size, max_size=20))
    labels = np.repeat(np.arange(len(counts)), counts)
    extra = max(0, batches * size - len(labels))
    labels = rng(data.draw(st.integers(0, 99))).permutation(np.r_[labels, np.arange(100, 100 + extra)])
    dealt = deal(labels, batches, size, rng(5))
    assert len(set(dealt.ravel())) == batches * size
    assert all(len(set(labels[each])) == size for each in dealt)


def test_labels_that_must_collide_are_spread_evenly() -> None:
    labels = np.r_[np.zeros(10, np.int64), np.arange(1, 7)]
    dealt = deal(labels, 4, 4, rng(3))
    assert sorted((labels[each] == 0).sum() for each in dealt) == [2, 2, 3, 3]


def test_dealing_favours_no_place() -> None:
    """Each thing meets each other one about as often."""
    labels = np.r_[np.zeros(3, np.int64), np.arange(1, 10)]
    met = np.zeros((12, 12))
    for seed in range(3000):
        for each in deal(labels, 4, 3, rng(seed)):
            met[np.ix_(each, each)] += 1
    assert not met[:3, :3][~np.eye(3, dtype=bool)].any()
    others = met[3:, 3:][~np.eye(9, dtype=bool)] / 3000
    assert others.std() < 0.02 and np.ptp(met[:3, 3:] / 3000) < 0.06


def test_k_fold_draws_k_of_every_class_side_by_side() -> None:
    dataset = places([54, 54, 54, 54])
    batches = build_sampler({"name": "k_fold", "k": 3}, dataset, 4).epoch(0, rng(1))
    drawn = np.concatenate(batches)
    labels = dataset.query_labels[drawn[:, 0]]
    assert [len(each) for each in batches] == [4, 4, 4]
    assert sorted(labels[::3]) == [0, 1, 2, 3] and np.array_equal(labels, np.repeat(labels[::3], 3))
    assert len(set(drawn[:, 0])) == 12


def test_k_fold_repeats_what_a_class_has_too_few_of() -> None:
    dataset = places([2, 5])
    drawn = build_sampler({"name": "k_fold", "k": 4}, dataset, 8).epoch(0, rng(1))[0]
    labels = dataset.query_labels[drawn[:, 0]]
    assert sorted(drawn[labels == 0, 0]) == [0, 0, 1, 1]
    assert len(set(drawn[labels == 1, 0])) == 4


def test_hard_neighbours_are_near_and_not_the_same_place() -> None:
    dataset = places([2] * 200, distractors=50)
    batches = taught("hard_neighbours", dataset, 10, neighbours=6).epoch(1, rng(1))
    assert len(batches) == 40
    for each in batches:
        labels = dataset.query_labels[each[:, 0]]
        assert len(set(labels)) == 10
        # The second half are neighbours of the first, one for one; the six nearest are at most three places away.
        assert np.abs(labels[5:] - labels[:5]).max() <= 6
        assert np.median(np.abs(labels[5:] - labels[:5])) <= 3


def test_hard_neighbours_are_no_semi_positives() -> None:
    """Every neighbour of a place is a semi-positive of it, so that mining has to go farther."""
    count = 30
    near = [[j for j in (i - 1, i + 1) if 0 <= j < count] for i in range(count)]
    dataset = places([1] * count, semi=near)
    for each in taught("hard_neighbours", dataset, 4, neighbours=4).epoch(3, rng(2)):
        # What is mined is held against the batch so far.
        for later in range(2, 4):
            reference = each[later, 1]
            assert all(reference not in near[earlier] and reference != earlier for earlier in each[:later, 0])


def test_hard_neighbours_by_distance_of_unit_vectors() -> None:
    dataset = places([1] * 8)
    angle = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1).astype(np.float32)
    sampler = build_sampler({"name": "hard_neighbours", "neighbours": 2}, dataset, 4)
    sampler.update(circle, circle)
    nearest = sampler.state_dict()["nearest"]
    assert [set(each) for each in nearest] == [{(i - 1) % 8, (i + 1) % 8} for i in range(8)]


@pytest.mark.parametrize("name", ["hard_neighbours", "clusters"])
def test_the_first_epochs_are_not_mined(name: str) -> None:
    dataset = places([1] * 40)
    plain = build_sampler({"name": "shuffled"}, dataset, 8)
    mined = taught(name, dataset, 8, first=2)
    for number in range(3):
        same = all(
            np.array_equal(one, other)
            for one, other in zip(mined.epoch(number, rng(number)), plain.epoch(number, rng(number)), strict=True)
        )
        assert same == (number < 2)


def test_hard_neighbours_may_start_by_position() -> None:
    dataset = places([1] * 40)
    start = build_sampler({"name": "gps_neighbours"}, dataset, 8).epoch(0, rng(4))
    mined = build_sampler({"name": "hard_neighbours", "start": "gps_neighbours"}, dataset, 8).epoch(0, rng(4))
    assert all(np.array_equal(one, other) for one, other in zip(mined, start, strict=True))


def three_heaps(sizes: list[int]) -> tuple[CrossViewSet, NDArray[np.float32], NDArray[np.int64]]:
    dataset = places([1] * sum(sizes))
    heap = np.repeat(np.arange(len(sizes)), sizes)
    points = np.stack([heap * 10.0, heap % 2 * 10.0], 1) + rng(0).normal(0, 0.1, (len(heap), 2))
    return dataset, points.astype(np.float32), heap


@pytest.mark.parametrize("sizes", [[40, 30, 30], [41, 33, 26], [47, 27, 19]])
@pytest.mark.parametrize("sample", [50_000, 45])
def test_clusters_stay_inside_one_cluster(sizes: list[int], sample: int) -> None:
    dataset, points, heap = three_heaps(sizes)
    sampler = build_sampler({"name": "clusters", "sample": sample}, dataset, 8)
    sampler.update(points, points)
    batches = sampler.epoch(1, rng(1))
    assert len(batches) == sum(sizes) // 8
    for each in batches:
        assert len(set(heap[each[:, 0]])) == 1 and len(set(each[:, 0])) == 8
    # No more pairs come twice than it takes to fill the last batches of the clusters.
    assert len(set(np.concatenate(batches)[:, 0])) >= sum(size // 8 * 8 for size in sizes)


def test_clusters_smaller_than_a_batch_join_the_nearest() -> None:
    dataset, points, heap = three_heaps([30, 3, 30])
    sampler = build_sampler({"name": "clusters"}, dataset, 8)
    # The small heap, moved beside the last one.
    points[heap == 1] = [17, 0]
    sampler.update(points, points)
    cluster = sampler.state_dict()["cluster"]
    assert len(set(cluster)) == 2 and set(cluster[heap == 1]) == set(cluster[heap == 2])


def test_clusters_within_clusters() -> None:
    dataset, points, heap = three_heaps([20, 20, 20, 20])
    sampler = build_sampler({"name": "clusters", "clusters": 2, "depth": 2}, dataset, 4)
    sampler.update(points, points)
    cluster = sampler.state_dict()["cluster"]
    assert len(set(cluster)) == 4 and len(set(zip(cluster, heap, strict=True))) == 4


def test_clusters_of_descriptors_that_are_all_the_same() -> None:
    dataset = places([1] * 20)
    sampler = build_sampler({"name": "clusters"}, dataset, 4)
    with pytest.warns(match="distinct clusters"):
        sampler.update(np.ones((20, 3), np.float32), np.ones((20, 3), np.float32))
    assert len(np.concatenate(sampler.epoch(1, rng(1)))) == 20


@pytest.mark.parametrize("name", ["hard_neighbours", "clusters"])
def test_what_was_learnt_goes_into_a_checkpoint(name: str) -> None:
    dataset = places([2] * 30)
    first = taught(name, dataset, 8)
    second = build_sampler({"name": name}, dataset, 8)
    assert first.needs_descriptors and second.state_dict() == {}
    second.load_state_dict(first.state_dict())
    one, other = first.epoch(4, rng(9)), second.epoch(4, rng(9))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    with pytest.raises(SamplerError, match="another dataset"):
        build_sampler({"name": name}, places([1] * 7), 4).load_state_dict(first.state_dict())
    second.load_state_dict({})
    assert second.state_dict() == {}


@pytest.mark.parametrize("name", ["shuffled", "k_fold", "gps_neighbours"])
def test_others_learn_nothing(name: str) -> None:
    sampler = taught(name, places([1] * 10), 4)
    assert not sampler.needs_descriptors and sampler.state_dict() == {}
    sampler.load_state_dict({})


@pytest.mark.parametrize("positions", ["queries", "references"])
def test_gps_neighbours_lie_near_each_other(positions: Literal["queries", "references"]) -> None:
    dataset = places([1] * 400, positions=positions)
    batches = build_sampler({"name": "gps_neighbours"}, dataset, 8).epoch(0, rng(1))
    spans = [np.ptp(dataset.query_labels[each[:, 0]]) for each in batches]
    # Drawn among the 16 nearest, which lie in a row of 17 while nothing is taken yet.
    assert spans[0] <= 16 and np.median(spans) < 60
    plain = build_sampler({"name": "shuffled"}, dataset, 8).epoch(0, rng(1))
    assert np.median([np.ptp(dataset.query_labels[each[:, 0]]) for each in plain]) > 200


def test_gps_neighbours_across_the_date_line() -> None:
    dataset = places([1] * 40, frame="wgs84")
    longitude = (np.arange(40) * 0.01 + 179.8 + 180) % 360 - 180
    dataset.query_positions[:] = np.stack([np.full(40, -17.0), longitude], 1)  # type: ignore[index]
    batches = build_sampler({"name": "gps_neighbours", "spread": 1}, dataset, 4).epoch(0, rng(3))
    first = dataset.query_labels[batches[0][:, 0]]
    assert np.ptp(first) <= 6


def test_gps_neighbours_take_a_place_once() -> None:
    dataset = places([3] * 60)
    batches = build_sampler({"name": "gps_neighbours"}, dataset, 6).epoch(0, rng(1))
    distinct = [len(set(dataset.query_labels[each[:, 0]])) for each in batches]
    assert distinct[: len(distinct) // 2] == [6] * (len(distinct) // 2) and min(distinct) >= 2


def test_ignored_pairs() -> None:
    # Pairs: two views of place 0, place 1, place 2; reference 2 is a semi-positive of the first view of place 0, and
    # query 3 (place 2) has reference 1 as another true one.
    dataset = places([2, 1, 1], semi=[[2], [], [], []])
    dataset.matches[3] = np.array([2, 1])  # type: ignore[index]
    pairs = np.array([[0, 0], [1, 0], [2, 1], [3, 2]])
    wanted = np.zeros((4, 4), bool)
    wanted[0, 1] = wanted[1, 0] = True
    wanted[0, 3] = True
    wanted[3, 2] = True
    assert np.array_equal(ignored_pairs(dataset, pairs), wanted)


def test_pairs_without_a_class_are_not_of_one_class() -> None:
    dataset = places([1, 1])
    dataset.query_labels[:] = -1
    dataset.reference_labels[:] = -1
    assert not ignored_pairs(dataset, np.array([[0, 0], [1, 1]])).any()


@given(st.integers(1, 40), st.integers(1, 6))
def test_shares_are_equal_and_in_order(count: int, world: int) -> None:
    batch = np.stack([np.arange(count)] * 2, 1)
    if count < world:
        with pytest.raises(SamplerError, match="fewer pairs than processes"):
            share(batch, 0, world)
        return
    parts = [share(batch, rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {count // world}
    assert np.array_equal(np.concatenate(parts), batch[: count // world * world])


@pytest.mark.parametrize(
    ("settings", "dataset", "batch", "says"),
    [
        ({}, places([1]), 4, ["sampler", "shuffled or k_fold or hard_neighbours"]),
        ({"name": "balanced"}, places([1]), 4, ["balanced", "clusters"]),
        ({"name": "shuffled", "k": 1}, places([1]), 4, ["sampler shuffled", "'k'", "no setting"]),
        ({"name": "shuffled", "batch": 1}, places([1]), 4, ["sampler shuffled", "'batch'"]),
        ({"name": "k_fold", "k": 0}, places([1]), 4, ["sampler k_fold: k", "1 or more"]),
        ({"name": "k_fold", "k": 1.5}, places([1]), 4, ["sampler k_fold: k", "a whole number"]),
        ({"name": "hard_neighbours", "neighbours": 0}, places([1]), 4, ["neighbours", "1 or more"]),
        ({"name": "hard_neighbours", "start": "k_fold"}, places([1]), 4, ["start", "shuffled or gps_neighbours"]),
        ({"name": "clusters", "clusters": 0}, places([1]), 4, ["sampler clusters: clusters", "1 or more"]),
        ({"name": "gps_neighbours", "spread": 0.5}, places([1]), 4, ["spread", "0.5"]),
        ({"name": "gps_neighbours"}, places([1], positions="none"), 4, ["without positions", "places"]),
        ({"name": "shuffled"}, places([1]), 0, ["batch", "1 or more"]),
        ({"name": "shuffled"}, places([]), 4, ["without queries", "places"]),
    ],
)
def test_a_wrong_sampler_is_told_what_is_wrong(
    settings: dict[str, Any], dataset: CrossViewSet, batch: int, says: list[str]
) -> None:
    with pytest.raises(SamplerError) as raised:
        build_sampler(settings, dataset, batch)
    assert isinstance(raised.value, CvglError)
    assert all(words in str(raised.value) for words in says), raised.value


def test_k_fold_needs_classes() -> None:
    dataset = places([1, 1])
    dataset.query_labels[:] = -1
    with pytest.raises(SamplerError, match="without classes"):
        build_sampler({"name": "k_fold"}, dataset, 2)
