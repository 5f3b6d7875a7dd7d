"""What a model gives while it trains: R@K on held-back pairs, and descriptors of the training set for samplers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..data.base import CrossViewSet, ImageSource
from ..data.images import to_input
from ..evaluation.embed import ModelEmbedder, embed_all
from ..evaluation.metrics import chance_at, recall_at
from ..evaluation.ranks import rank_descriptors
from ..feature_cache import from_cache
from ..models.base import CrossViewModel, View

__all__ = ["describe", "retrieval_scores"]

_KS = (1, 5, 10)


class _Judge(ModelEmbedder):
    """The evaluation's embedder in the training's arithmetic; tokens of a frozen backbone are taken as they are."""

    def __init__(self, model: CrossViewModel, device: torch.device, half: bool) -> None:
        super().__init__(model, device)
        self._half = half

    def prepare(self, image: NDArray[Any], view: View) -> torch.Tensor:
        if image.dtype == np.uint8:
            return to_input(image, self.inputs[view])
        return from_cache(image)

    def embed(self, prepared: Sequence[torch.Tensor], view: View) -> NDArray[np.float32]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            return super().embed(prepared, view)


def describe(
    model: CrossViewModel, dataset: CrossViewSet, device: torch.device, half: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(Q, D) and (R, D) descriptors of a set by a model as it is, which is left in evaluation mode.

    Args:
        model: on the device.
        dataset: of images, or of a frozen backbone's tokens in their place.
        device: of the training.
        half: compute in bfloat16 where that is how the model trains.
    """
    judge = _Judge(model, device, half)

    def all_of(sources: Sequence[ImageSource], view: View) -> NDArray[np.float32]:
        return embed_all(judge, sources, view, workers=1).descriptors

    return all_of(dataset.queries, "query"), all_of(dataset.references, "reference")


def retrieval_scores(
    dataset: CrossViewSet, device: torch.device, half: bool
) -> Callable[[CrossViewModel], dict[str, float]]:
    """A function that gives R@1, R@5 and R@10 of a model on a set, queries against references, each 0 to 1.

    References exactly as close as the true one count as chance would order them. "chance" is the R@1 of guessing.
    """

    def scores(model: CrossViewModel) -> dict[str, float]:
        query, reference = describe(model, dataset, device, half)
        ranks = rank_descriptors(
            query, reference, dataset.matches, dataset.semi, metric=model.info.metric
        ).counting_semi()
        return {f"R@{k}": recall_at(ranks, k) for k in _KS} | {"chance": chance_at(ranks, 1)}

    return scores
