"""The three losses of SAIG (Zhu et al. 2023) as released; the squared distance 2 - 2 cos in the first two."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .distances import negatives, squared_distances
from .triplet import soft_margin_triplet

__all__ = ["saig_infonce", "saig_semisoft_trihard", "saig_triplet"]


def saig_triplet(queries: Tensor, references: Tensor, ignored: Tensor, alpha: float = 10.0) -> Tensor:
    """The weighted soft-margin triplet over all negatives, plus the ln 2 that each positive has against itself.

    The authors sum over the whole matrix and divide by the number of negatives: a constant, without a gradient, more
    than `soft_margin_triplet`.

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        alpha: weight of a difference.

    Returns:
        A scalar.
    """
    own = math.log(2) * len(queries) / negatives(ignored).sum().clamp(min=1).to(queries.dtype)
    return soft_margin_triplet(queries, references, ignored, alpha) + own


def saig_semisoft_trihard(queries: Tensor, references: Tensor, ignored: Tensor, alpha: float = 10.0) -> Tensor:
    """The weighted soft-margin triplet over the floor(sqrt(B)) hardest negatives of each anchor, both directions.

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        alpha: weight of a difference.

    Returns:
        A scalar; 0 without any negative.
    """
    apart = squared_distances(queries, references)
    false = negatives(ignored)
    count = max(1, min(math.isqrt(len(queries)), len(queries) - 1))
    return (_hard(apart, false, count, alpha) + _hard(apart.T, false.T, count, alpha)) / 2


def _hard(apart: Tensor, false: Tensor, count: int, alpha: float) -> Tensor:
    hardest, _ = apart.masked_fill(~false, torch.inf).topk(count, dim=1, largest=False)
    # Where an anchor has fewer negatives, infinity stands in, and its softplus is 0.
    losses = F.softplus(alpha * (apart.diagonal()[:, None] - hardest))
    return losses.sum() / hardest.isfinite().sum().clamp(min=1)


def saig_infonce(queries: Tensor, references: Tensor, ignored: Tensor, temperature: float = 0.02) -> Tensor:
    """InfoNCE with the negatives of both directions in one softmax: 1 positive against 2 (B - 1).

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        temperature: of the softmax.

    Returns:
        A scalar.
    """
    logits = references @ queries.T / temperature
    false = negatives(ignored)
    others = logits.T.masked_fill(~false, -torch.inf)
    both = torch.cat([logits.masked_fill(ignored.T, -torch.inf), others], 1)
    return F.cross_entropy(both, torch.arange(len(logits), device=logits.device))
