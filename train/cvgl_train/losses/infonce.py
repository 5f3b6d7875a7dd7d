"""Softmax losses over a batch: pair i has to be found among all pairs of its row and of its column."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["info_nce", "same_place", "symmetric_cross_entropy"]


def same_place(queries: Tensor, references: Tensor, groups: Tensor, radius: float) -> Tensor:
    """(B, B) True where query i shows reference j's place too, so that j is no negative of i. The diagonal is False.

    Args:
        queries, references: (B, 2) positions; only those of one group (one map) can be compared.
        groups: (B,) the map each pair is from.
        radius: distance below which two positions are the same place.
    """
    near = torch.cdist(queries.double(), references.double()) < radius
    own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    return near & (groups[:, None] == groups[None, :]) & ~own


def info_nce(
    queries: Tensor, references: Tensor, ignored: Tensor, temperature: float = 0.05, smoothing: float = 0.0
) -> Tensor:
    """Symmetric InfoNCE (van den Oord 2018; symmetric as in CLIP, Radford 2021): pair i is the positive of i.

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        temperature: of the softmax.
        smoothing: share of the target that is spread evenly over all pairs that are not ignored (Sample4Geo: 0.1).

    Returns:
        The mean loss, a scalar.
    """
    return symmetric_cross_entropy(queries @ references.T / temperature, ignored, smoothing)


def symmetric_cross_entropy(logits: Tensor, ignored: Tensor, smoothing: float = 0.0) -> Tensor:
    """Mean of the cross-entropies of the rows and of the columns, whose target is the diagonal.

    Args:
        logits: (B, B), greater is closer.
        ignored: (B, B) pairs that take no part; not on the diagonal.
        smoothing: share of the target that is spread evenly over the pairs that take part.
    """
    return (_rows(logits, ignored, smoothing) + _rows(logits.T, ignored.T, smoothing)) / 2


def _rows(logits: Tensor, ignored: Tensor, smoothing: float) -> Tensor:
    log_shares = logits.masked_fill(ignored, -torch.inf).log_softmax(1)
    loss = -log_shares.diagonal()
    if smoothing > 0:
        even = -log_shares.masked_fill(ignored, 0).sum(1) / (~ignored).sum(1)
        loss = (1 - smoothing) * loss + smoothing * even
    return loss.mean()
