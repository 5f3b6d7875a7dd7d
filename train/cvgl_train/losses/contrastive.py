"""Losses that judge each pair by itself, as true or false; true and false pairs weigh the same together."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .distances import distances, negatives

__all__ = ["contrastive", "pair_cross_entropy"]


def contrastive(queries: Tensor, references: Tensor, ignored: Tensor, margin: float = 10.0) -> Tensor:
    """d² of true pairs and max(0, margin - d)² of false ones (Hadsell et al. 2006), d the Euclidean distance.

    All false pairs of the batch are taken, and each kind counts one half: what as many true as false pairs drawn at
    random give on average.

    Args:
        queries, references: (B, D), not normalised: unit vectors are never `margin` = 10 apart.
        ignored: (B, B) pairs that are neither positive nor negative.
        margin: distance from which a false pair is far enough.

    Returns:
        A scalar.
    """
    true = (queries - references).square().sum(1)
    return _balanced(true, F.relu(margin - distances(queries, references)).square(), negatives(ignored))


def pair_cross_entropy(logits: Tensor, ignored: Tensor) -> Tensor:
    """Binary cross-entropy of a classifier of pairs, over all pairs of the batch, balanced as in `contrastive`.

    Args:
        logits: (B, B) log-odds that query i and reference j are a true pair.
        ignored: (B, B) pairs that are neither positive nor negative.

    Returns:
        A scalar.
    """
    return _balanced(F.softplus(-logits.diagonal()), F.softplus(logits), negatives(ignored))


def _balanced(true: Tensor, every: Tensor, false: Tensor) -> Tensor:
    """Half the mean over the (B,) losses of true pairs and half that over those of (B, B) which are false pairs."""
    return (true.mean() + every.masked_fill(~false, 0).sum() / false.sum().clamp(min=1)) / 2
