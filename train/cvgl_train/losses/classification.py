"""Instance classification: every place of the training set is a class."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

__all__ = ["instance_cross_entropy"]


def instance_cross_entropy(
    logits: Tensor, labels: Tensor, parts: Literal["mean", "sum"] = "mean", smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of one view's classifiers, a mean over the images (instance loss, Zheng et al. 2020).

    Args:
        logits: (B, P, K) scores of the K classes by each of the P parts' classifiers.
        labels: (B,) class of each image.
        parts: the authors of FSRA take the mean over the parts, those of LPN the sum.
        smoothing: of the labels.

    Returns:
        A scalar.
    """
    count = logits.shape[1]
    flat = F.cross_entropy(logits.flatten(0, 1), labels.repeat_interleave(count), label_smoothing=smoothing)
    return flat if parts == "mean" else flat * count
