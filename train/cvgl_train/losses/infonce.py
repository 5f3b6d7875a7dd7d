"""What training minimises."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["info_nce", "same_place"]


def same_place(queries: Tensor, references: Tensor, groups: Tensor, radius: float) -> Tensor:
    """(B, B) True where query i shows reference j's place too, so that j is no negative of i. The diagonal
    is False.

    Args:
        queries, references: (B, 2) positions; only those of one group (one map) can be compared.
        groups: (B,) the map each pair is from.
        radius: distance below which two positions are the same place.
    """
    near = torch.cdist(queries.double(), references.double()) < radius
    own = torch.eye(len(queries), dtype=torch.bool, device=queries.device)
    return near & (groups[:, None] == groups[None, :]) & ~own


def info_nce(queries: Tensor, references: Tensor, ignored: Tensor, temperature: float = 0.05) -> Tensor:
    """Symmetric InfoNCE (van den Oord 2018; symmetric as in CLIP, Radford 2021): pair i is the positive of i.

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        temperature: of the softmax.

    Returns:
        The mean loss, a scalar.
    """
    logits = (queries @ references.T / temperature).masked_fill(ignored, -1e4)
    target = torch.arange(len(queries), device=queries.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
