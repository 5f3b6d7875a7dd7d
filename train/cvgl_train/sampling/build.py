"""What a recipe's `sampler` may ask for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..data.base import CrossViewSet
from ..factories import make
from .base import Sampler, SamplerError
from .clusters import Clusters
from .gps_neighbours import GpsNeighbours
from .hard_neighbours import HardNeighbours
from .k_fold import KFold
from .shuffled import Shuffled

__all__ = ["SAMPLERS", "build_sampler"]

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "shuffled": Shuffled,
    "k_fold": KFold,
    "hard_neighbours": HardNeighbours,
    "clusters": Clusters,
    "gps_neighbours": GpsNeighbours,
}
"""The settings are the classes' fields, but for `dataset` and `batch`."""


def build_sampler(settings: dict[str, Any], dataset: CrossViewSet, batch: int) -> Sampler:
    """The sampler of a recipe.

    Args:
        settings: such as ``{name: hard_neighbours, neighbours: 100}``.
        dataset: the training split.
        batch: pairs of a batch, over all processes together.

    Raises:
        SamplerError: no such sampler or setting, a setting that cannot be, or a dataset that it cannot be used on.
    """
    if batch < 1:
        raise SamplerError("out of range", field="batch", found=batch, expected="1 or more")
    if not len(dataset.queries):
        raise SamplerError("a dataset without queries", field="sampler", found=dataset.name)
    own = dict(settings)
    return make(SAMPLERS, own.pop("name", None), own, SamplerError, "sampler", dataset=dataset, batch=batch)
