"""Mutual learning: one view's classifier learns from what the other one answers."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mutual_kl"]


def mutual_kl(learner: Tensor, teacher: Tensor) -> Tensor:
    """Kullback-Leibler divergence of the learner's class shares from the teacher's (FSRA's term, Dai et al. 2021).

    A mean over the images and the parts, as the authors have it; nothing flows back to the teacher.

    Args:
        learner, teacher: (B, P, K) or (B, K) scores of the K classes.

    Returns:
        A scalar, 0 where both answer the same.
    """
    wanted = teacher.detach().log_softmax(-1)
    return (wanted.exp() * (wanted - learner.log_softmax(-1))).sum(-1).mean()
