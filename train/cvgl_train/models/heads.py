"""What methods that compare parts of an image share: a classifier per part, and one descriptor of all parts."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError

from .base import Features

__all__ = ["ClassBlock", "PartClassifier", "check_shared", "part_descriptor", "part_features", "rename_class_block"]


class ClassBlock(nn.Module):
    """(B, I) pooled features to (B, F) features of a part and, in training, their (B, K) scores.

    Linear, BatchNorm, Dropout, and a linear classifier behind them.

    Args:
        inputs: I.
        features: F.
        classes: K.
        dropout: chance that a feature is left out in training.
        scale_spread: standard deviation of BatchNorm's initial scales around 1.
    """

    def __init__(
        self, inputs: int, features: int, classes: int, dropout: float = 0.5, scale_spread: float = 0.0
    ) -> None:
        super().__init__()
        self.reduce = nn.Linear(inputs, features)
        self.norm = nn.BatchNorm1d(features)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features, classes)
        nn.init.kaiming_normal_(self.reduce.weight, mode="fan_out")
        nn.init.zeros_(self.reduce.bias)
        nn.init.normal_(self.norm.weight, 1.0, scale_spread)
        nn.init.normal_(self.classifier.weight, std=0.001)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        features = self.dropout(self.norm(self.reduce(pooled)))
        return features, self.classifier(features) if self.training else None


class PartClassifier(nn.Module):
    """(B, P, I) pooled features of P parts to (B, P, F) features and, in training, (B, P, K) scores.

    Every part has a `ClassBlock` of its own. The features are those after BatchNorm and Dropout, which are what the
    authors of FSRA put into the triplet loss and, in evaluation, into the descriptor.

    Raises:
        ModelError: settings that cannot be.
    """

    def __init__(
        self, parts: int, inputs: int, features: int, classes: int, dropout: float, scale_spread: float = 0.0
    ) -> None:
        super().__init__()
        if features < 1:
            raise ModelError("no features", field="bottleneck", found=features, expected="1 or more")
        if classes < 1:
            raise ModelError("no classes", field="classes", found=classes, expected="1 or more")
        if not 0 <= dropout < 1:
            raise ModelError("not a chance", field="dropout", found=dropout, expected="0 <= dropout < 1")
        self.blocks = nn.ModuleList(ClassBlock(inputs, features, classes, dropout, scale_spread) for _ in range(parts))

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor | None]:
        pairs = [block(pooled[:, number]) for number, block in enumerate(self.blocks)]
        scores = torch.stack([scores for _, scores in pairs], 1) if self.training else None
        return torch.stack([features for features, _ in pairs], 1), scores


def part_descriptor(parts: Tensor) -> Tensor:
    """(B, P, F) features of parts to (B, F * P) descriptors of unit length, as the authors of LPN and FSRA test.

    Every part is divided by its L2 norm and by the root of P, so that all parts count alike; the layout is (F, P)
    flattened, the values of one feature in all parts beside each other.
    """
    return F.normalize(parts, dim=2).transpose(1, 2).flatten(1) * parts.shape[1] ** -0.5


def part_features(
    pool: Callable[[Tensor], Tensor], classifier: PartClassifier, images: Tensor, mirror: bool
) -> Features:
    """The features of a method that compares parts.

    Args:
        pool: (B, 3, H, W) images to (B, P, I).
        classifier: of the P parts.
        images: (B, 3, H, W).
        mirror: in evaluation, add the features of the images mirrored left to right, as the authors test.
    """
    parts, logits = classifier(pool(images))
    if mirror and not classifier.training:
        parts = parts + classifier(pool(images.flip(3)))[0]
    return Features(part_descriptor(parts), parts, logits)


_AUTHORS = {"add_block.0": "reduce", "add_block.1": "norm", "classifier.0": "classifier"}


def rename_class_block(name: str) -> str:
    """The name in `ClassBlock` of a tensor of the authors' (both FSRA's and LPN's); unknown names stay as they are."""
    layer, _, leaf = name.rpartition(".")
    return f"{_AUTHORS[layer]}.{leaf}" if layer in _AUTHORS else name


def check_shared(state: dict[str, Tensor], first: str, other: str) -> dict[str, Tensor]:
    """A `state_dict` without its second view, once that is seen to be the first again.

    Args:
        state: with the authors' names.
        first, other: prefixes of the two views' tensors.

    Returns:
        The tensors whose names do not begin with `other`.

    Raises:
        ModelError: the views differ; a network with shared weights cannot hold both.
    """
    for name, value in state.items():
        if name.startswith(other):
            same = state.get(first + name[len(other) :])
            if same is None or not torch.equal(same, value):
                raise ModelError(
                    "the views do not share their weights",
                    field=name,
                    found="other values" if same is not None else "no counterpart",
                    expected=f"the same as {first}{name[len(other) :]}",
                )
    return {name: value for name, value in state.items() if not name.startswith(other)}
