"""How far apart two sets of descriptors are, with gradients that stay finite where they coincide."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["distances", "negatives", "squared_distances", "unit"]


def unit(descriptors: Tensor) -> Tensor:
    """(..., D) to the same of unit length; a descriptor of zeros stays one."""
    return F.normalize(descriptors, dim=-1, eps=1e-6)


def distances(queries: Tensor, references: Tensor) -> Tensor:
    """(Q, D) and (R, D) to their (Q, R) Euclidean distances; the gradient of a distance of 0 is 0."""
    # By differences: the shortcut through the products loses half the digits of descriptors that are close together.
    return torch.cdist(queries, references, compute_mode="donot_use_mm_for_euclid_dist")


def squared_distances(queries: Tensor, references: Tensor) -> Tensor:
    """(Q, D) and (R, D) of unit length to their (Q, R) squared Euclidean distances, 2 - 2 cos."""
    return 2 - 2 * queries @ references.T


def negatives(ignored: Tensor) -> Tensor:
    """(B, B) True where query i and reference j show different places.

    Args:
        ignored: (B, B) pairs that are neither positive nor negative.
    """
    return ~ignored & ~torch.eye(len(ignored), dtype=torch.bool, device=ignored.device)
