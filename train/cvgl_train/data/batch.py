"""What one step of training sees."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Batch"]


@dataclass(frozen=True)
class Batch:
    """B pairs; query i and reference i show the same place.

    Where several processes train, each has its own share of the images, b = B / processes, and everything else whole:
    the features are gathered before the loss.

    Args:
        query, reference: (b, 3, H, W) normalised images.
        labels: (B,) class of each pair; pairs of one class show the same place.
        ignored: (B, B) bool, query i and reference j that are neither positive nor negative, such as another pair of
            the same class or a neighbouring tile; False on the diagonal.
        query_index, reference_index: (B,) where the images are in their dataset; empty where they are in none.
    """

    query: Tensor
    reference: Tensor
    labels: Tensor
    ignored: Tensor
    query_index: Tensor
    reference_index: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("query", "reference", "labels", "ignored", "query_index", "reference_index")
        }
        return replace(self, **moved)
