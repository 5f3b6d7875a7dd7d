"""The weighted (B + 1)-tuple loss of FRGeo."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from .distances import distances
from .infonce import symmetric_cross_entropy

__all__ = ["weighted_tuple_loss"]


def weighted_tuple_loss(
    queries: Tensor,
    references: Tensor,
    ignored: Tensor,
    alpha: float = 10.0,
    form: Literal["released", "paper"] = "released",
) -> Tensor:
    """log(1 + sum over the negatives of exp(alpha (s_negative - s_positive))), a mean over the batch and both
    directions (FRGeo, Zhang et al. 2024).

    As the positive's own exponent is 0, this is a cross-entropy over the row, which is how it is computed: no exponent
    can overflow. The released form is InfoNCE of temperature 1 / alpha.

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        alpha: weight of a difference.
        form: s is the cosine in the authors' code ("released") and minus the Euclidean distance in eq. 12 ("paper").

    Returns:
        A scalar.
    """
    closeness = queries @ references.T if form == "released" else -distances(queries, references)
    return symmetric_cross_entropy(alpha * closeness, ignored)
