"""What a recipe's `loss` may ask for: terms by name, joined to one objective."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from cvgl.errors import CvglError

from ..data.batch import Batch
from ..factories import make
from ..models.base import CrossViewModel, Features
from .classification import instance_cross_entropy
from .contrastive import contrastive, pair_cross_entropy
from .distances import unit
from .infonce import info_nce
from .mutual import mutual_kl
from .saig import saig_infonce, saig_semisoft_trihard, saig_triplet
from .triplet import hardest_triplet, max_margin_triplet, soft_margin_triplet
from .wbl import weighted_tuple_loss

__all__ = ["TERMS", "Objective", "ObjectiveError", "Term", "build_objective"]

Term = Callable[[Features, Features, Batch], Tensor]
"""Features of the queries, features of the references, and their batch, to a scalar."""

Parts = Literal["mean", "sum"]


class ObjectiveError(CvglError, ValueError):
    """A loss that a recipe asks for and that cannot be made, or not of this model's features."""


@dataclass(frozen=True)
class Objective:
    """A weighted sum of terms.

    Args:
        terms: name, weight and function of each; the names differ.
    """

    terms: tuple[tuple[str, float, Term], ...]

    def __call__(self, query: Features, reference: Features, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The objective, a scalar, and what each term adds to it, detached. Computed in full precision.

        Raises:
            ObjectiveError: the model does not give what a term needs.
        """
        query, reference = _full(query), _full(reference)
        with torch.autocast(query.descriptor.device.type, enabled=False):
            parts = {name: weight * term(query, reference, batch) for name, weight, term in self.terms}
        return torch.stack(list(parts.values())).sum(), {name: part.detach() for name, part in parts.items()}


def build_objective(terms: Sequence[dict[str, Any]], model: CrossViewModel | None = None) -> Objective:
    """The objective of a recipe.

    Args:
        terms: each a mapping such as ``{term: triplet, margin: 0.3, weight: 1.0}``; what is left out is the paper's.
        model: for terms that use more of it than its features ("pair_bce").

    Raises:
        ObjectiveError: no term, no such term or setting, a setting that cannot be, or a model that a term cannot use.
    """
    if not terms:
        raise ObjectiveError("no terms", field="loss", expected="a list of terms")
    built: list[tuple[str, float, Term]] = []
    times: Counter[str] = Counter()
    for spec in terms:
        if not isinstance(spec, dict):
            raise ObjectiveError("not a term", field="loss", found=spec, expected="{term: NAME, ...}")
        settings = dict(spec)
        name, weight = settings.pop("term", None), settings.pop("weight", 1.0)
        term = make(TERMS, name, settings, ObjectiveError, "term", model=model)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight >= 0:
            raise ObjectiveError("not a weight", field=f"term {name}: weight", found=weight, expected="0 or more")
        times[name] += 1
        built.append((name if times[name] == 1 else f"{name}_{times[name]}", float(weight), term))
    return Objective(tuple(built))


def _cross_entropy(parts: Parts = "mean", smoothing: float = 0.0) -> Term:
    """Both views' instance losses, added. Parts: their mean (FSRA) or sum (LPN)."""
    _below_one("cross_entropy", smoothing=smoothing)

    def term(query: Features, reference: Features, batch: Batch) -> Tensor:
        first, second = _logits("cross_entropy", query, reference)
        return instance_cross_entropy(first, batch.labels, parts, smoothing) + instance_cross_entropy(
            second, batch.labels, parts, smoothing
        )

    return term


def _kl(learner: Literal["reference", "query", "both"] = "reference") -> Term:
    """FSRA's mutual learning. The authors' satellite branch learns from the drone's; "both" adds the other way."""

    def term(query: Features, reference: Features, batch: Batch) -> Tensor:
        first, second = _logits("kl", query, reference)
        if learner == "both":
            return mutual_kl(first, second) + mutual_kl(second, first)
        return mutual_kl(first, second) if learner == "query" else mutual_kl(second, first)

    return term


def _triplet(margin: float = 0.3, parts: Parts = "mean") -> Term:
    """FSRA's cross-view hardest triplet, per part where the method has parts; their mean (FSRA) or sum."""
    _positive("triplet", margin=margin)

    def term(query: Features, reference: Features, batch: Batch) -> Tensor:
        first = query.descriptor[:, None] if query.parts is None else query.parts
        second = reference.descriptor[:, None] if reference.parts is None else reference.parts
        losses = [
            hardest_triplet(unit(one), unit(other), batch.labels, batch.ignored, margin)
            for one, other in zip(first.unbind(1), second.unbind(1), strict=True)
        ]
        whole = torch.stack(losses)
        return whole.mean() if parts == "mean" else whole.sum()

    return term


def _soft_margin_triplet(alpha: float = 1.0) -> Term:
    """Soft-margin triplet over all negatives of the batch."""
    _positive("soft_margin_triplet", alpha=alpha)
    return _of_units(lambda first, second, batch: soft_margin_triplet(first, second, batch.ignored, alpha))


def _weighted_soft_margin_triplet(alpha: float = 10.0) -> Term:
    """The same, weighted as in CVM-Net and PSSR."""
    _positive("weighted_soft_margin_triplet", alpha=alpha)
    return _of_units(lambda first, second, batch: soft_margin_triplet(first, second, batch.ignored, alpha))


def _max_margin_triplet(
    margin: float = 0.5, mining: Literal["semi-hard", "hardest", "all"] = "semi-hard", normalise: bool = True
) -> Term:
    """Max-margin triplet; `normalise: false` for methods that compare by Euclidean distance."""
    _positive("max_margin_triplet", margin=margin)
    form = _of_units if normalise else _of_descriptors
    return form(lambda first, second, batch: max_margin_triplet(first, second, batch.ignored, margin, mining))


def _wbl(alpha: float = 10.0, form: Literal["released", "paper"] = "released") -> Term:
    """FRGeo's weighted (B + 1)-tuple loss."""
    _positive("wbl", alpha=alpha)
    return _of_units(lambda first, second, batch: weighted_tuple_loss(first, second, batch.ignored, alpha, form))


def _infonce(temperature: float = 0.05, smoothing: float = 0.0) -> Term:
    """Symmetric InfoNCE."""
    _positive("infonce", temperature=temperature)
    _below_one("infonce", smoothing=smoothing)
    return _of_units(lambda first, second, batch: info_nce(first, second, batch.ignored, temperature, smoothing))


def _saig_triplet(alpha: float = 10.0) -> Term:
    """SAIG's triplet."""
    _positive("saig_triplet", alpha=alpha)
    return _of_units(lambda first, second, batch: saig_triplet(first, second, batch.ignored, alpha))


def _saig_semisoft_trihard(alpha: float = 10.0) -> Term:
    """SAIG's triplet over the hardest negatives."""
    _positive("saig_semisoft_trihard", alpha=alpha)
    return _of_units(lambda first, second, batch: saig_semisoft_trihard(first, second, batch.ignored, alpha))


def _saig_infonce(temperature: float = 0.02) -> Term:
    """SAIG's InfoNCE."""
    _positive("saig_infonce", temperature=temperature)
    return _of_units(lambda first, second, batch: saig_infonce(first, second, batch.ignored, temperature))


def _contrastive(margin: float = 10.0, normalise: bool = False) -> Term:
    """The contrastive loss of DINOv2 + CVV."""
    _positive("contrastive", margin=margin)
    form = _of_units if normalise else _of_descriptors
    return form(lambda first, second, batch: contrastive(first, second, batch.ignored, margin))


def _pair_bce(model: CrossViewModel | None = None) -> Term:
    """The classifier of pairs of DINOv2 + CVV."""
    judge = getattr(model, "pair_logits", None)
    if judge is None:
        name = None if model is None else model.info.name
        raise ObjectiveError("needs a model that classifies pairs", field="term pair_bce", found=name)
    return _of_descriptors(lambda first, second, batch: pair_cross_entropy(judge(first, second), batch.ignored))


TERMS: dict[str, Callable[..., Term]] = {
    "cross_entropy": _cross_entropy,
    "triplet": _triplet,
    "kl": _kl,
    "soft_margin_triplet": _soft_margin_triplet,
    "weighted_soft_margin_triplet": _weighted_soft_margin_triplet,
    "max_margin_triplet": _max_margin_triplet,
    "wbl": _wbl,
    "infonce": _infonce,
    "saig_triplet": _saig_triplet,
    "saig_semisoft_trihard": _saig_semisoft_trihard,
    "saig_infonce": _saig_infonce,
    "contrastive": _contrastive,
    "pair_bce": _pair_bce,
}
"""The settings are the functions' arguments, but for `model`; `weight` in a recipe is what the term counts."""


def _of_units(loss: Callable[[Tensor, Tensor, Batch], Tensor]) -> Term:
    return lambda query, reference, batch: loss(unit(query.descriptor), unit(reference.descriptor), batch)


def _of_descriptors(loss: Callable[[Tensor, Tensor, Batch], Tensor]) -> Term:
    return lambda query, reference, batch: loss(query.descriptor, reference.descriptor, batch)


def _logits(term: str, query: Features, reference: Features) -> tuple[Tensor, Tensor]:
    if query.logits is None or reference.logits is None:
        raise ObjectiveError("this model gives no class scores", field=f"term {term}", expected="a method of classes")
    return query.logits, reference.logits


def _full(features: Features) -> Features:
    def full(value: Tensor) -> Tensor:
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    return Features(
        full(features.descriptor),
        None if features.parts is None else full(features.parts),
        None if features.logits is None else full(features.logits),
    )


def _positive(term: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ObjectiveError("out of range", field=f"term {term}: {name}", found=value, expected="more than 0")


def _below_one(term: str, **values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ObjectiveError(
                "out of range", field=f"term {term}: {name}", found=value, expected="from 0 to below 1"
            )
