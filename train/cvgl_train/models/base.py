"""What every method is: a network for two views, and what it says of itself."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError

from ..factories import checked_fields

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "CrossViewModel",
    "Features",
    "ModelInfo",
    "View",
    "ViewInput",
    "settings_of",
]

View = Literal["query", "reference"]
"""The query is what the drone (or the panorama camera) sees, the reference is the satellite tile."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ViewInput:
    """What the images of one view must be like.

    Args:
        height, width: pixels.
        mean, std: of the red, green and blue values scaled to 0..1; the network takes (value - mean) / std.
        interpolation: with which the authors resize, always antialiased.
    """

    height: int
    width: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"


@dataclass(frozen=True)
class ModelInfo:
    """What a model says of itself.

    Args:
        name: in the registry.
        descriptor_size: length of the deployed descriptor.
        query, reference: input of each view.
        shared: whether both views go through the same weights.
        metric: how two descriptors are compared: "cosine" of unit vectors, or "euclidean" distance of the vectors as
            they are (then `CrossViewModel.embed` does not normalise).
    """

    name: str
    descriptor_size: int
    query: ViewInput
    reference: ViewInput
    shared: bool
    metric: Literal["cosine", "euclidean"] = "cosine"

    def view(self, view: View) -> ViewInput:
        """The input of a view."""
        return self.query if view == "query" else self.reference


@dataclass
class Features:
    """What a network gives for a batch of one view; losses take what they need.

    Args:
        descriptor: (B, D) as the authors' network gives it in evaluation, before the final L2 normalisation.
        parts: (B, P, C) of methods that compare parts (regions of FSRA, rings of LPN), as their losses per part take
            them; None for methods without.
        logits: (B, P, K) scores of the K classes per part; None for methods without classifiers, and in evaluation.
    """

    descriptor: Tensor
    parts: Tensor | None = None
    logits: Tensor | None = None


class CrossViewModel(nn.Module):
    """A network that maps images of two views into one space of descriptors.

    A subclass takes one dataclass of settings (plain values only, all with the paper's defaults), sets `self.settings`
    and `self.info`, and implements `forward`. Its module names are its own; `cvgl_train.importer` maps the authors'.
    """

    settings: Any
    info: ModelInfo
    timm_name: str | None = None
    """Of the pretrained backbone in timm, where there is one."""

    @abstractmethod
    def forward(self, images: Tensor, view: View) -> Features:
        """(B, 3, H, W) normalised images of one view to features. Raises nothing: sizes are checked by `embed`."""

    def forward_pair(self, query: Tensor, reference: Tensor) -> tuple[Features, Features]:
        """Features of both views of a training batch; one call a view, as the authors train."""
        return self(query, "query"), self(reference, "reference")

    def embed(self, images: Tensor, view: View) -> Tensor:
        """(B, D) descriptors as they are compared and deployed: of unit length where `info.metric` is "cosine".

        Raises:
            ModelError: images of another size than `info` says.
        """
        self.check(images, view)
        descriptor = self(images, view).descriptor
        return F.normalize(descriptor.float(), dim=1) if self.info.metric == "cosine" else descriptor.float()

    def check(self, images: Tensor, view: View) -> None:
        """Raise ModelError for images of another shape than the view's."""
        wanted = self.info.view(view)
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, wanted.height, wanted.width):
            raise ModelError(
                "wrong images",
                field=view,
                found=tuple(images.shape),
                expected=f"(B, 3, {wanted.height}, {wanted.width})",
            )

    def score(self, query: Tensor, reference: Tensor) -> Tensor:
        """(Q, R) similarity of every query descriptor with every reference descriptor, greater is closer.

        Args:
            query: (Q, D), reference: (R, D), as `embed` gives them.
        """
        if self.info.metric == "cosine":
            return query @ reference.T
        return -torch.cdist(query, reference)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by group, for recipes whose groups learn at different rates: "backbone", "head"."""
        return {"backbone": [p for p in self.parameters() if p.requires_grad], "head": []}

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """Put public pretrained weights into the backbone, or into both where the views do not share one.

        Args:
            state: as timm, torchvision or the authors name it; a classifier of another task is left out.

        Returns:
            Names in `state` that were not used.

        Raises:
            ModelError: a tensor that the backbone needs is missing or of another shape.
        """
        raise ModelError("this method takes no backbone weights", field="weights", found=self.info.name)

    def initialise(self, batches: Callable[[View], Iterable[Tensor]], seed: int) -> None:
        """Prepare from training images before the first step (NetVLAD's clusters); most methods need nothing.

        Args:
            batches: gives normalised image batches of a view.
            seed: of everything random in it.
        """

    def regions(self, images: Tensor, view: View) -> tuple[Tensor, Tensor] | None:
        """For pictures: (B, h, w) heat of each token or cell and (B, h, w) int region of each; None without regions."""
        return None


def settings_of(kind: type[Any], values: dict[str, Any], model: str) -> Any:
    """A settings dataclass from plain values; lists become tuples.

    Raises:
        ModelError: a setting the model does not have, or one of another kind.
    """
    return kind(**checked_fields(kind, values, ModelError, model))
