"""Losses: against the authors' values, against their definitions written out as loops, and where they could break."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cvgl_train.losses.classification import instance_cross_entropy
from cvgl_train.losses.contrastive import contrastive, pair_cross_entropy
from cvgl_train.losses.distances import distances, squared_distances, unit
from cvgl_train.losses.infonce import info_nce, same_place
from cvgl_train.losses.mutual import mutual_kl
from cvgl_train.losses.saig import saig_infonce, saig_semisoft_trihard, saig_triplet
from cvgl_train.losses.triplet import hardest_triplet, max_margin_triplet, soft_margin_triplet
from cvgl_train.losses.wbl import weighted_tuple_loss

PairLoss = Callable[[Tensor, Tensor, Tensor], Tensor]

# Of unit vectors and a mask of ignored pairs.
PAIR_LOSSES: dict[str, PairLoss] = {
    "triplet": lambda q, r, ignored: hardest_triplet(q, r, torch.arange(len(q)), ignored),
    "soft": lambda q, r, ignored: soft_margin_triplet(q, r, ignored, 1.0),
    "weighted": soft_margin_triplet,
    "semi-hard": max_margin_triplet,
    "hardest": lambda q, r, ignored: max_margin_triplet(q, r, ignored, 0.5, "hardest"),
    "all": lambda q, r, ignored: max_margin_triplet(q, r, ignored, 0.5, "all"),
    "wbl": weighted_tuple_loss,
    "wbl paper": lambda q, r, ignored: weighted_tuple_loss(q, r, ignored, form="paper"),
    "infonce": info_nce,
    "smoothed": lambda q, r, ignored: info_nce(q, r, ignored, 0.05, 0.1),
    "saig_triplet": saig_triplet,
    "saig_semisoft_trihard": saig_semisoft_trihard,
    "saig_infonce": saig_infonce,
    "contrastive": contrastive,
    "pair_bce": lambda q, r, ignored: pair_cross_entropy(10 * q @ r.T, ignored),
}


def nothing(count: int) -> Tensor:
    return torch.zeros(count, count, dtype=torch.bool)


def batch(seed: int, count: int, ignore: float = 0.0, size: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Unit queries, references near them, and a mask that leaves out a share of the other pairs."""
    rng = np.random.default_rng(seed)
    q = torch.from_numpy(rng.normal(size=(count, size)))
    r = q + torch.from_numpy(rng.normal(size=(count, size)))
    ignored = torch.from_numpy(rng.random((count, count)) < ignore) & ~torch.eye(count, dtype=torch.bool)
    return unit(q), unit(r), ignored


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("fsra_triplet_m0.3", lambda q, r, labels: hardest_triplet(unit(q), unit(r), labels, nothing(16))),
        (
            "fsra_triplet_m0.3_unique_labels",
            lambda q, r, labels: hardest_triplet(unit(q), unit(r), torch.arange(16), nothing(16)),
        ),
        ("fsra_kl_q_to_r", lambda q, r, labels: mutual_kl(q, r)),
        ("frgeo_wbl_cosine_a10", lambda q, r, labels: weighted_tuple_loss(unit(q), unit(r), nothing(16))),
        (
            "frgeo_wbl_paper_l2_a10",
            lambda q, r, labels: weighted_tuple_loss(unit(q), unit(r), nothing(16), 10, "paper"),
        ),
        ("saig_triplet_w10", lambda q, r, labels: saig_triplet(unit(q), unit(r), nothing(16))),
        ("saig_semisoft_trihard_w10", lambda q, r, labels: saig_semisoft_trihard(unit(q), unit(r), nothing(16))),
        ("saig_infonce_t0.02", lambda q, r, labels: saig_infonce(unit(q), unit(r), nothing(16))),
    ],
)
def test_gives_the_authors_values(name: str, loss: PairLoss, cvgl_data: Path) -> None:
    with np.load(cvgl_data / "golden" / "losses_metrics.npz") as golden:
        q, r, labels = (torch.from_numpy(golden[key]) for key in ("q", "r", "labels"))
        wanted = float(golden[name])
    assert float(loss(q, r, labels)) == pytest.approx(wanted, abs=1e-5, rel=1e-5)


def by_hand(name: str, q: Tensor, r: Tensor, ignored: Tensor) -> float:
    """Each loss over pairs as its definition reads, with loops; of the queries' direction and the references'."""
    total = 0.0
    cosine, skip = (q @ r.T).numpy(), ignored.numpy()
    for sim, left_out in ((cosine, skip), (cosine.T, skip.T)):
        count = len(sim)
        square = 2 - 2 * sim
        apart = np.sqrt(np.maximum(square, 0))
        false = [[j for j in range(count) if j != i and not left_out[i, j]] for i in range(count)]
        triplets = [(i, j) for i in range(count) for j in false[i]]
        hinge = lambda i, d: max(0.0, apart[i, i] - d + 0.5)  # noqa: B023, E731
        some = max(1, sum(1 for js in false if js))
        if name == "triplet":
            value = sum(max(0.0, apart[i, i] - min(apart[i, j] for j in js) + 0.3) for i, js in enumerate(false) if js)
            value /= count
        elif name in ("soft", "weighted", "saig_triplet"):
            alpha = 1.0 if name == "soft" else 10.0
            value = sum(math.log1p(math.exp(alpha * (square[i, i] - square[i, j]))) for i, j in triplets)
            value += count * math.log(2) if name == "saig_triplet" else 0
            value /= max(1, len(triplets))
        elif name == "all":
            value = sum(hinge(i, apart[i, j]) for i, j in triplets) / max(1, len(triplets))
        elif name == "hardest":
            value = sum(hinge(i, min(apart[i, j] for j in js)) for i, js in enumerate(false) if js) / some
        elif name == "semi-hard":
            value = 0.0
            for i, js in enumerate(false):
                farther = [apart[i, j] for j in js if apart[i, j] > apart[i, i]]
                if js:
                    value += hinge(i, min(farther) if farther else max(apart[i, j] for j in js))
            value /= some
        elif name in ("wbl", "wbl paper"):
            near = sim if name == "wbl" else -apart
            sums = [sum(math.exp(10 * (near[i, j] - near[i, i])) for j in js) for i, js in enumerate(false)]
            value = sum(math.log1p(each) for each in sums) / count
        elif name in ("infonce", "smoothed"):
            value = 0.0
            for i, js in enumerate(false):
                logs = [20 * sim[i, j] - math.log(sum(math.exp(20 * sim[i, k]) for k in [i, *js])) for j in [i, *js]]
                value -= logs[0] if name == "infonce" else 0.9 * logs[0] + 0.1 * sum(logs) / len(logs)
            value /= count
        elif name == "saig_semisoft_trihard":
            hard = [(i, j) for i, js in enumerate(false) for j in sorted(js, key=lambda j: square[i, j])]
            kept = [pair for i in range(count) for pair in [p for p in hard if p[0] == i][: math.isqrt(count)]]
            value = sum(math.log1p(math.exp(10 * (square[i, i] - square[i, j]))) for i, j in kept) / max(1, len(kept))
        elif name == "saig_infonce":
            value = 0.0
            for i, js in enumerate(false):
                others = [sim[i, j] for j in js] + [sim[j, i] for j in range(count) if j != i and not left_out[j, i]]
                value += math.log(1 + sum(math.exp(50 * (other - sim[i, i])) for other in others))
            value /= count
        elif name == "contrastive":
            value = sum(square[i, i] for i in range(count)) / count
            value = (value + sum((10 - apart[i, j]) ** 2 for i, j in triplets) / max(1, len(triplets))) / 2
        else:
            value = sum(math.log1p(math.exp(-10 * sim[i, i])) for i in range(count)) / count
            false_ones = sum(math.log1p(math.exp(10 * sim[i, j])) for i, j in triplets)
            value = (value + false_ones / max(1, len(triplets))) / 2
        total += value / 2
    return total


@pytest.mark.parametrize("name", PAIR_LOSSES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 9), ignore=st.sampled_from([0.0, 0.3, 0.8, 1.0]))
def test_is_what_its_definition_says(name: str, seed: int, count: int, ignore: float) -> None:
    q, r, ignored = batch(seed, count, ignore)
    # Both are of one direction and its opposite, so that swapping the views changes nothing either.
    wanted = by_hand(name, q, r, ignored)
    assert float(PAIR_LOSSES[name](q, r, ignored)) == pytest.approx(wanted, abs=1e-9, rel=1e-9)
    assert float(PAIR_LOSSES[name](r, q, ignored.T)) == pytest.approx(wanted, abs=1e-9, rel=1e-9)


def with_cosines(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Unit queries and references of exactly these (B, B) cosines; the squares of a column add up to less than 1."""
    count = len(cosines)
    rest = (1 - cosines.square().sum(0)).sqrt()[:, None]
    eye = torch.eye(count, dtype=cosines.dtype)
    return torch.cat([eye, torch.zeros(count, 1, dtype=cosines.dtype)], 1), torch.cat([cosines.T, rest], 1)


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_an_ignored_pair_has_no_influence(name: str) -> None:
    before = torch.rand(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(6)) * 0.3
    after = before.clone()
    after[0, 3], after[4, 1] = 0.6, -0.6
    ignored = after != before
    values = [float(PAIR_LOSSES[name](*with_cosines(cosines), ignored)) for cosines in (before, after)]
    assert values[0] == pytest.approx(values[1], rel=1e-9)
    shown = [float(PAIR_LOSSES[name](*with_cosines(cosines), nothing(5))) for cosines in (before, after)]
    assert shown[0] != pytest.approx(shown[1], rel=1e-3)


@pytest.mark.parametrize("name", PAIR_LOSSES)
@pytest.mark.parametrize("count", [1, 2, 30])
@pytest.mark.parametrize("kind", ["collapsed", "opposite", "zeros", "ordinary"])
@pytest.mark.parametrize("ignore", [0.0, 1.0])
def test_is_finite_with_finite_gradients(name: str, count: int, kind: str, ignore: float) -> None:
    values = torch.ones(count, 4) if kind in ("collapsed", "opposite") else torch.zeros(count, 4)
    if kind == "ordinary":
        values = torch.randn(count, 4, generator=torch.Generator().manual_seed(1))
    q = values.clone().requires_grad_()
    r = (-values if kind == "opposite" else values).clone().requires_grad_()
    ignored = batch(0, count, ignore)[2]
    loss = PAIR_LOSSES[name](unit(q), unit(r), ignored)
    loss.backward()
    for value in (loss, q.grad, r.grad):
        assert value is not None and torch.isfinite(value).all()


@pytest.mark.parametrize("alpha", [100.0, 1e4])
@pytest.mark.parametrize(
    "loss",
    [
        soft_margin_triplet,
        saig_triplet,
        saig_semisoft_trihard,
        weighted_tuple_loss,
        lambda q, r, ignored, alpha: weighted_tuple_loss(q, r, ignored, alpha, "paper"),
        lambda q, r, ignored, alpha: info_nce(q, r, ignored, 1 / alpha, 0.1),
        lambda q, r, ignored, alpha: saig_infonce(q, r, ignored, 1 / alpha),
    ],
)
def test_a_large_weight_overflows_nothing(loss: Callable[..., Tensor], alpha: float) -> None:
    q = unit(torch.randn(12, 8, generator=torch.Generator().manual_seed(2))).requires_grad_()
    # Every positive is as far as can be, so that every exponent is large.
    value = loss(q, -q.detach(), nothing(12), alpha)
    value.backward()
    assert torch.isfinite(value) and q.grad is not None and torch.isfinite(q.grad).all()
    assert float(value.detach()) > 0.1 * alpha


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_gradients_are_those_of_the_values(name: str) -> None:
    q, r, ignored = batch(8, 5, 0.3)
    assert torch.autograd.gradcheck(
        lambda a, b: PAIR_LOSSES[name](a, b, ignored), (q.requires_grad_(), r.requires_grad_())
    )


# Smoothing punishes certainty, so that the smoothed loss may rise.
@pytest.mark.parametrize("name", [name for name in PAIR_LOSSES if name != "smoothed"])
def test_falls_when_pairs_are_pulled_together(name: str) -> None:
    q, r, ignored = batch(11, 8, size=64)
    if name == "contrastive":
        q, r = 5 * q, 5 * r
    before = float(PAIR_LOSSES[name](q, r, ignored))
    after = float(PAIR_LOSSES[name](q, 0.5 * q + 0.5 * r if name == "contrastive" else unit(q + r), ignored))
    assert after < before


def test_released_tuple_loss_is_infonce() -> None:
    q, r, ignored = batch(4, 10, 0.2)
    assert float(weighted_tuple_loss(q, r, ignored, 8.0)) == pytest.approx(float(info_nce(q, r, ignored, 1 / 8)))


def test_smoothing_is_that_of_torch() -> None:
    q, r, ignored = batch(5, 7)
    logits, target = q @ r.T / 0.1, torch.arange(7)
    wanted = (
        F.cross_entropy(logits, target, label_smoothing=0.2) + F.cross_entropy(logits.T, target, label_smoothing=0.2)
    ) / 2
    assert float(info_nce(q, r, ignored, 0.1, 0.2)) == pytest.approx(float(wanted))


def test_hardest_triplet_takes_every_image_of_a_label_as_positive() -> None:
    q = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    labels = torch.tensor([0, 0, 1])
    # Anchor 0: its farthest positive is reference 1, sqrt(2) away; the nearest negative is 2 away. Anchor 2: 0 and
    # sqrt(2). References are the same images, so both directions give this.
    hinge = [2**0.5 - 2 + 0.7, 2**0.5 - 2**0.5 + 0.7, 0.0]
    ignored = nothing(3)
    ignored[0, 1] = ignored[1, 0] = True
    assert float(hardest_triplet(q, q, labels, ignored, 0.7)) == pytest.approx(sum(hinge) / 3, abs=1e-6)


def test_hardest_triplet_leaves_out_the_own_view() -> None:
    # The two queries are the same, but negatives come from the references, which are far apart.
    q = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    r = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    # Queries: 0 - 2 + 0.3 and 2 - 0 + 0.3; references: 0 - 0 + 0.3 and 2 - 2 + 0.3.
    assert float(hardest_triplet(q, r, torch.arange(2), nothing(2))) == pytest.approx((0 + 2.3 + 0.3 + 0.3) / 4)


def test_contrastive_pulls_true_pairs_and_leaves_far_false_ones_alone() -> None:
    q = torch.tensor([[0.0, 0.0], [20.0, 0.0]])
    r = torch.tensor([[3.0, 0.0], [20.0, 4.0]])
    assert float(contrastive(q, r, nothing(2))) == pytest.approx((9 + 16) / 2 / 2)
    near = torch.tensor([[3.0, 0.0], [9.0, 0.0]])
    # Query 0 is 9 from reference 1, query 1 is 17 from reference 0: only the first is too near.
    assert float(contrastive(q, near, nothing(2))) == pytest.approx(((9 + 121) / 2 + 1 / 2) / 2)


@pytest.mark.parametrize(("parts", "factor"), [("mean", 1), ("sum", 3)])
def test_instance_loss_joins_parts(parts: str, factor: int) -> None:
    logits = torch.randn(5, 3, 7, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([0, 6, 2, 2, 5])
    wanted = sum(float(F.cross_entropy(logits[:, i], labels)) for i in range(3)) / 3 * factor
    assert float(instance_cross_entropy(logits, labels, parts)) == pytest.approx(wanted, rel=1e-6)  # type: ignore[arg-type]


def test_mutual_learning_teaches_only_the_learner() -> None:
    learner = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(4)).requires_grad_()
    teacher = torch.randn(4, 2, 9, generator=torch.Generator().manual_seed(5)).requires_grad_()
    loss = mutual_kl(learner, teacher)
    loss.backward()
    wanted = F.kl_div(learner.log_softmax(-1).flatten(0, 1), teacher.softmax(-1).flatten(0, 1), reduction="batchmean")
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert teacher.grad is None and learner.grad is not None
    assert float(mutual_kl(teacher, teacher).detach()) == pytest.approx(0, abs=1e-7)


def test_same_place_compares_only_within_a_map() -> None:
    positions = torch.tensor([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [0.1, 0.0]])
    near = same_place(positions, positions, torch.tensor([0, 0, 0, 1]), 0.2)
    wanted = torch.zeros(4, 4, dtype=torch.bool)
    wanted[0, 1] = wanted[1, 0] = True
    assert torch.equal(near, wanted)


def test_distances() -> None:
    q, r, _ = batch(6, 30)
    apart = (q[:, None] - r[None]).norm(dim=-1)
    assert torch.allclose(distances(q, r), apart)
    assert torch.allclose(squared_distances(q, r), apart**2)
    assert torch.equal(unit(torch.zeros(2, 3)), torch.zeros(2, 3))


class TestAgainstMetricLearning:
    """An independent library where it computes the same: one direction at a time, its anchors being the first view.

    The labels of the two views are copies, since the library takes one and the same tensor for one and the same view.
    """

    def test_infonce(self) -> None:
        library = pytest.importorskip("pytorch_metric_learning.losses")
        q, r, ignored = batch(21, 12)
        ours = info_nce(q, r, ignored, 0.07)
        theirs = library.NTXentLoss(temperature=0.07)
        labels = torch.arange(12)
        both = [theirs(a, labels, ref_emb=b, ref_labels=labels.clone()) for a, b in ((q, r), (r, q))]
        assert float(ours) == pytest.approx(float(sum(both)) / 2, rel=1e-6)

    @pytest.mark.parametrize("mining", ["all", "hardest"])
    def test_max_margin(self, mining: str) -> None:
        library = pytest.importorskip("pytorch_metric_learning.losses")
        from pytorch_metric_learning.distances import LpDistance
        from pytorch_metric_learning.miners import BatchHardMiner
        from pytorch_metric_learning.reducers import MeanReducer

        q, r, ignored = batch(22, 12)
        labels, apart = torch.arange(12), LpDistance(normalize_embeddings=False)
        theirs = library.TripletMarginLoss(margin=0.5, distance=apart, reducer=MeanReducer())
        miner = BatchHardMiner(distance=apart)
        total = 0.0
        for a, b in ((q, r), (r, q)):
            taken = None if mining == "all" else miner(a, labels, b, labels.clone())
            total += float(theirs(a, labels, taken, ref_emb=b, ref_labels=labels.clone())) / 2
        assert float(max_margin_triplet(q, r, ignored, 0.5, mining)) == pytest.approx(total, rel=1e-6)  # type: ignore[arg-type]

    def test_soft_margin(self) -> None:
        library = pytest.importorskip("pytorch_metric_learning.losses")
        from pytorch_metric_learning.distances import LpDistance
        from pytorch_metric_learning.reducers import MeanReducer

        q, r, ignored = batch(23, 12)
        labels = torch.arange(12)
        apart = LpDistance(power=2, normalize_embeddings=False)
        theirs = library.TripletMarginLoss(margin=0, smooth_loss=True, distance=apart, reducer=MeanReducer())
        both = [theirs(a, labels, ref_emb=b, ref_labels=labels.clone()) for a, b in ((q, r), (r, q))]
        assert float(soft_margin_triplet(q, r, ignored, 1.0)) == pytest.approx(float(sum(both)) / 2, rel=1e-6)
