"""What a recipe's `loss` becomes: each term with the paper's settings, their sum, and what a wrong recipe is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from cvgl.errors import CvglError
from cvgl_train.data.batch import Batch
from cvgl_train.losses.classification import instance_cross_entropy
from cvgl_train.losses.contrastive import contrastive, pair_cross_entropy
from cvgl_train.losses.distances import unit
from cvgl_train.losses.infonce import info_nce
from cvgl_train.losses.mutual import mutual_kl
from cvgl_train.losses.saig import saig_infonce, saig_semisoft_trihard, saig_triplet
from cvgl_train.losses.terms import TERMS, ObjectiveError, build_objective
from cvgl_train.losses.triplet import hardest_triplet, max_margin_triplet, soft_margin_triplet
from cvgl_train.losses.wbl import weighted_tuple_loss
from cvgl_train.models.base import CrossViewModel, Features
from cvgl_train.models.nano import NanoConfig, NanoModel

B = 6


class Judge(NanoModel):
    """A model that classifies pairs."""

    def pair_logits(self, query: Tensor, reference: Tensor) -> Tensor:
        return query @ reference.T - 1


@pytest.fixture(scope="module")
def judge() -> CrossViewModel:
    return Judge(NanoConfig(widths=(8, 8, 8), blocks=(1, 1, 1), reduced=4, descriptor_size=8, input_px=32))


def features(seed: int, dtype: torch.dtype = torch.float32) -> Features:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((B, 8), (B, 3, 5), (B, 3, 4))
    return Features(*(torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes))


@pytest.fixture
def batch() -> Batch:
    labels = torch.tensor([0, 0, 1, 2, 3, 3])
    ignored = (labels[:, None] == labels[None, :]) & ~torch.eye(B, dtype=torch.bool)
    ignored[3, 4] = True
    none = torch.empty(B, 3, 2, 2)
    return Batch(none, none, labels, ignored, torch.arange(B), torch.arange(B))


def parts_triplet(q: Features, r: Features, b: Batch, margin: float) -> Tensor:
    assert q.parts is not None and r.parts is not None
    losses = [hardest_triplet(unit(q.parts[:, i]), unit(r.parts[:, i]), b.labels, b.ignored, margin) for i in range(3)]
    return sum(losses) / 3  # type: ignore[return-value]


# A recipe's term and what it has to be: of descriptors q and r as they are, u and v of unit length, mask m.
TABLE: list[tuple[dict[str, Any], Any]] = [
    ({"term": "triplet"}, lambda q, r, b: parts_triplet(q, r, b, 0.3)),
    ({"term": "triplet", "margin": 0.9, "parts": "sum"}, lambda q, r, b: 3 * parts_triplet(q, r, b, 0.9)),
    (
        {"term": "cross_entropy"},
        lambda q, r, b: instance_cross_entropy(q.logits, b.labels) + instance_cross_entropy(r.logits, b.labels),
    ),
    (
        {"term": "cross_entropy", "parts": "sum", "smoothing": 0.1},
        lambda q, r, b: sum(instance_cross_entropy(each.logits, b.labels, "sum", 0.1) for each in (q, r)),
    ),
    ({"term": "kl"}, lambda q, r, b: mutual_kl(r.logits, q.logits)),
    ({"term": "kl", "learner": "query"}, lambda q, r, b: mutual_kl(q.logits, r.logits)),
    (
        {"term": "kl", "learner": "both"},
        lambda q, r, b: mutual_kl(q.logits, r.logits) + mutual_kl(r.logits, q.logits),
    ),
    ({"term": "soft_margin_triplet"}, lambda q, r, b: soft_margin_triplet(*units(q, r), b.ignored, 1.0)),
    ({"term": "weighted_soft_margin_triplet"}, lambda q, r, b: soft_margin_triplet(*units(q, r), b.ignored, 10.0)),
    ({"term": "max_margin_triplet"}, lambda q, r, b: max_margin_triplet(*units(q, r), b.ignored, 0.5)),
    (
        {"term": "max_margin_triplet", "margin": 2, "mining": "hardest", "normalise": False},
        lambda q, r, b: max_margin_triplet(q.descriptor, r.descriptor, b.ignored, 2.0, "hardest"),
    ),
    ({"term": "wbl"}, lambda q, r, b: weighted_tuple_loss(*units(q, r), b.ignored, 10.0)),
    (
        {"term": "wbl", "form": "paper", "alpha": 5},
        lambda q, r, b: weighted_tuple_loss(*units(q, r), b.ignored, 5.0, "paper"),
    ),
    ({"term": "infonce"}, lambda q, r, b: info_nce(*units(q, r), b.ignored)),
    (
        {"term": "infonce", "temperature": 0.1, "smoothing": 0.2},
        lambda q, r, b: info_nce(*units(q, r), b.ignored, 0.1, 0.2),
    ),
    ({"term": "saig_triplet"}, lambda q, r, b: saig_triplet(*units(q, r), b.ignored, 10.0)),
    ({"term": "saig_semisoft_trihard"}, lambda q, r, b: saig_semisoft_trihard(*units(q, r), b.ignored, 10.0)),
    ({"term": "saig_infonce"}, lambda q, r, b: saig_infonce(*units(q, r), b.ignored, 0.02)),
    ({"term": "contrastive"}, lambda q, r, b: contrastive(q.descriptor, r.descriptor, b.ignored, 10.0)),
    ({"term": "pair_bce"}, lambda q, r, b: pair_cross_entropy(q.descriptor @ r.descriptor.T - 1, b.ignored)),
]


def units(q: Features, r: Features) -> tuple[Tensor, Tensor]:
    return unit(q.descriptor), unit(r.descriptor)


@pytest.mark.parametrize(("spec", "wanted"), TABLE, ids=lambda value: str(value) if isinstance(value, dict) else "")
def test_a_term_is_its_loss_with_the_papers_settings(
    spec: dict[str, Any], wanted: Any, batch: Batch, judge: CrossViewModel
) -> None:
    q, r = features(1), features(2)
    total, parts = build_objective([spec], judge)(q, r, batch)
    assert float(total.detach()) == pytest.approx(float(wanted(q, r, batch).detach()), rel=1e-6)
    assert list(parts) == [spec["term"]]
    total.backward()
    grads = [each.grad for f in (q, r) for each in (f.descriptor, f.parts, f.logits) if each is not None]
    assert any(grad is not None and grad.abs().sum() > 0 for grad in grads)


def test_every_term_is_tried_here() -> None:
    assert {spec["term"] for spec, _ in TABLE} == set(TERMS)


def test_terms_are_weighted_added_and_named_apart(batch: Batch) -> None:
    q, r = features(3), features(4)
    whole = build_objective(
        [{"term": "infonce", "weight": 0.5}, {"term": "triplet"}, {"term": "infonce", "temperature": 1, "weight": 2}]
    )
    total, parts = whole(q, r, batch)
    assert list(parts) == ["infonce", "triplet", "infonce_2"]
    assert float(total.detach()) == pytest.approx(sum(float(part) for part in parts.values()))
    one = info_nce(*units(q, r), batch.ignored, 1.0)
    assert float(parts["infonce_2"]) == pytest.approx(2 * float(one.detach()))
    assert total.requires_grad and not any(part.requires_grad for part in parts.values())


def test_without_parts_the_triplet_is_of_descriptors(batch: Batch) -> None:
    q, r = Features(features(5).descriptor), Features(features(6).descriptor)
    total, _ = build_objective([{"term": "triplet"}])(q, r, batch)
    wanted = hardest_triplet(*units(q, r), batch.labels, batch.ignored)
    assert float(total.detach()) == pytest.approx(float(wanted.detach()))


def test_half_precision_features_are_judged_in_full_precision(batch: Batch) -> None:
    specs = [{"term": name} for name in TERMS if name != "pair_bce"]
    q, r = features(7, torch.bfloat16), features(8, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = build_objective(specs)(q, r, batch)
    low.backward()
    exact, _ = build_objective(specs)(
        *(Features(*(each.detach().float() for each in (f.descriptor, f.parts, f.logits))) for f in (q, r)), batch
    )
    assert low.dtype == torch.float32 and float(low.detach()) == pytest.approx(float(exact), rel=1e-6)
    assert q.descriptor.grad is not None and torch.isfinite(q.descriptor.grad).all()


@pytest.mark.parametrize(
    ("terms", "says"),
    [
        ([], ["loss", "a list of terms"]),
        (["triplet"], ["loss", "triplet", "term: NAME"]),
        ([{"margin": 0.3}], ["no such term", "infonce", "saig_triplet"]),
        ([{"term": "tripple"}], ["tripple", "triplet or kl"]),
        ([{"term": ["triplet"]}], ["no such term", "triplet"]),
        ([{"term": "triplet", "alpha": 1}], ["term triplet", "alpha", "margin, parts"]),
        ([{"term": "pair_bce", "model": 1}], ["term pair_bce", "model", "no setting"]),
        ([{"term": "infonce", "temperature": "1e-2"}], ["term infonce: temperature", "'1e-2'", "1.0e-4"]),
        ([{"term": "infonce", "temperature": 0}], ["term infonce: temperature", "more than 0"]),
        ([{"term": "infonce", "smoothing": 1.0}], ["term infonce: smoothing", "below 1"]),
        ([{"term": "wbl", "form": "printed"}], ["term wbl: form", "printed", "released or paper"]),
        ([{"term": "contrastive", "normalise": 1}], ["term contrastive: normalise", "true or false"]),
        ([{"term": "triplet", "weight": -1}], ["term triplet: weight", "-1", "0 or more"]),
        ([{"term": "triplet", "weight": "big"}], ["term triplet: weight", "big"]),
        ([{"term": "pair_bce"}], ["term pair_bce", "classifies pairs"]),
    ],
)
def test_a_wrong_recipe_is_told_what_is_wrong(terms: Any, says: list[str]) -> None:
    with pytest.raises(ObjectiveError) as raised:
        build_objective(terms)
    assert isinstance(raised.value, CvglError)
    assert all(words in str(raised.value) for words in says), raised.value


@pytest.mark.parametrize("name", ["cross_entropy", "kl"])
def test_a_model_without_classes_is_named(name: str, batch: Batch) -> None:
    objective = build_objective([{"term": name}])
    with pytest.raises(ObjectiveError, match=f"term {name}.*class scores"):
        objective(Features(torch.ones(B, 4)), Features(torch.ones(B, 4)), batch)
