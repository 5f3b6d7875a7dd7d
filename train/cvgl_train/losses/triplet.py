"""Triplets across the views: the true pair has to be closer than any false one."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from .distances import distances, negatives, squared_distances

__all__ = ["hardest_triplet", "max_margin_triplet", "soft_margin_triplet"]


def hardest_triplet(
    queries: Tensor, references: Tensor, labels: Tensor, ignored: Tensor, margin: float = 0.3
) -> Tensor:
    """FSRA's triplet (Dai et al. 2021): the farthest positive and the nearest negative from the other view only.

    Positives are all images of the same label, whatever `ignored` says of them; a mean over the 2 B anchors, of which
    one without a negative counts 0.

    Args:
        queries, references: (B, D) of unit length.
        labels: (B,) class of each pair.
        ignored: (B, B) pairs that are no negatives though their labels differ.
        margin: by which a negative has to be farther.

    Returns:
        A scalar.
    """
    apart = distances(queries, references)
    same = labels[:, None] == labels[None, :]
    false = ~same & ~ignored
    return (_hardest(apart, same, false, margin) + _hardest(apart.T, same, false.T, margin)) / 2


def _hardest(apart: Tensor, true: Tensor, false: Tensor, margin: float) -> Tensor:
    positive = apart.masked_fill(~true, -torch.inf).amax(1)
    # An infinite distance has no gradient, and its hinge is 0: exactly what an anchor without a negative should have.
    negative = apart.masked_fill(~false, torch.inf).amin(1)
    return F.relu(positive - negative + margin).mean()


def soft_margin_triplet(queries: Tensor, references: Tensor, ignored: Tensor, alpha: float = 10.0) -> Tensor:
    """ln(1 + exp(alpha (d_positive - d_negative))) over all negatives of the batch, both directions.

    With alpha 1 the soft-margin triplet of Vo and Hays (2016), with alpha 10 the weighted one of CVM-Net (Hu et al.
    2018); d is the squared distance, as in the latter's code.

    Args:
        queries, references: (B, D) of unit length.
        ignored: (B, B) pairs that are neither positive nor negative.
        alpha: weight of a difference.

    Returns:
        The mean over all triplets, a scalar; ln 2 where all descriptors are the same, 0 without any negative.
    """
    apart = squared_distances(queries, references)
    positive = apart.diagonal()
    false = negatives(ignored)
    both = F.softplus(alpha * (positive[:, None] - apart)) + F.softplus(alpha * (positive[None, :] - apart))
    return both.masked_fill(~false, 0).sum() / (2 * false.sum()).clamp(min=1)


def max_margin_triplet(
    queries: Tensor,
    references: Tensor,
    ignored: Tensor,
    margin: float = 0.5,
    mining: Literal["semi-hard", "hardest", "all"] = "semi-hard",
) -> Tensor:
    """max(0, d_positive - d_negative + margin) in both directions, d the Euclidean distance.

    Semi-hard mining (FaceNet, Schroff et al. 2015) takes per anchor the nearest of the negatives that are farther than
    the positive, and the farthest negative where none is. Always taking the hardest one collapses networks that start
    from bad descriptors.

    Args:
        queries, references: (B, D), of unit length or not.
        ignored: (B, B) pairs that are neither positive nor negative.
        margin: by which a negative has to be farther.
        mining: "semi-hard"; "hardest", the nearest negative; or "all" negatives.

    Returns:
        The mean over the triplets taken, a scalar; 0 without any negative.
    """
    apart = distances(queries, references)
    false = negatives(ignored)
    return (_hinge(apart, false, margin, mining) + _hinge(apart.T, false.T, margin, mining)) / 2


def _hinge(apart: Tensor, false: Tensor, margin: float, mining: str) -> Tensor:
    positive = apart.diagonal()
    if mining == "all":
        hinge = F.relu(positive[:, None] - apart + margin)
        return hinge.masked_fill(~false, 0).sum() / false.sum().clamp(min=1)
    nearest = apart.masked_fill(~false, torch.inf)
    if mining == "semi-hard":
        farthest = apart.masked_fill(~false, -torch.inf).amax(1)
        nearest = nearest.masked_fill(apart <= positive[:, None], torch.inf)
        negative = torch.where(nearest.isinf().all(1), farthest, nearest.amin(1))
    else:
        negative = nearest.amin(1)
    some = false.any(1)
    hinge = F.relu(positive - torch.where(some, negative, torch.inf) + margin)
    return hinge.sum() / some.sum().clamp(min=1)
