"""The plain siamese networks of the PSSR paper: VGG-16 or ResNet-50, averaged over the image, and a small head.

Of the head only the widths are public (512, 256, 256). Averaging before it, ReLU between its layers, and that both
views go through the same weights, as "siamese" says, are this project's reading; `shared` turns the last one off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import timm
from torch import Tensor, nn
from torchvision.models.vgg import cfgs, make_layers

from cvgl.errors import ModelError

from ..weights import fill_exactly
from .base import CrossViewModel, Features, ModelInfo, View, ViewInput

__all__ = ["BACKBONES", "Siamese", "SiameseSettings", "fill_vgg16", "vgg16_convolutions"]

BACKBONES = ("vgg16", "resnet50", "resnet18", "resnet34", "resnet101")
"""What `SiameseSettings.backbone` takes; the paper has the first two."""


@dataclass(frozen=True)
class SiameseSettings:
    """The shape of a siamese network.

    Args:
        backbone: one of `BACKBONES`.
        image_size: side of both views' input, pixels; any from 32.
        head: widths of the fully connected layers; the last is the descriptor's length.
        shared: whether both views go through the same weights.
        vgg_width: channels of VGG's first stage; smaller ones are for quick trials.
    """

    backbone: str = "vgg16"
    image_size: int = 224
    head: tuple[int, ...] = (512, 256, 256)
    shared: bool = True
    vgg_width: int = 64


class Siamese(CrossViewModel):
    """A convolutional network for both views, or one a view."""

    def __init__(self, settings: SiameseSettings, name: str = "vgg16") -> None:
        super().__init__()
        if settings.backbone not in BACKBONES:
            expected = " or ".join(BACKBONES)
            raise ModelError("no such backbone", field="backbone", found=settings.backbone, expected=expected)
        if settings.image_size < 32:
            raise ModelError("too small", field="image_size", found=settings.image_size, expected="at least 32")
        if not settings.head or min(settings.head) < 1:
            raise ModelError("not widths of layers", field="head", found=settings.head, expected="positive numbers")
        self.settings = settings
        # torchvision's weights, which any siamese network of that time starts from; timm's own choice is of 2021.
        self.timm_name = f"{settings.backbone}.tv_in1k"
        view = ViewInput(settings.image_size, settings.image_size)
        self.info = ModelInfo(name, settings.head[-1], view, view, settings.shared)
        views = ("both",) if settings.shared else ("query", "reference")
        self.backbones = nn.ModuleDict({view: _backbone(settings) for view in views})
        vgg = settings.backbone == "vgg16"
        width = 8 * settings.vgg_width if vgg else int(cast(Any, self.backbones[views[0]]).num_features)
        self.heads = nn.ModuleDict({view: _head(width, settings.head) for view in views})

    def forward(self, images: Tensor, view: View) -> Features:
        which = "both" if self.settings.shared else view
        features = self.backbones[which](images)
        if features.ndim == 4:
            features = features.mean((2, 3))
        return Features(self.heads[which](features))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Backbones, and heads that start from nothing."""
        return {"backbone": list(self.backbones.parameters()), "head": list(self.heads.parameters())}

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet weights as torchvision or timm name them, into every backbone; the classifier is left out.

        Raises:
            ModelError: tensors that are missing, left over or of another shape.
        """
        unused: list[str] = []
        for backbone in self.backbones.values():
            if self.settings.backbone == "vgg16":
                unused = fill_vgg16(backbone, state)
            else:
                unused = [name for name in state if name.startswith("fc.")]
                used = {name: value for name, value in state.items() if name not in unused}
                fill_exactly(backbone, used, self.settings.backbone)
        return unused


def vgg16_convolutions(width: int = 64) -> nn.Sequential:
    """VGG-16's convolutions and poolings, (B, 3, H, W) to (B, 8 width, H / 32, W / 32), named as in torchvision.

    Args:
        width: channels of the first stage.

    Raises:
        ModelError: a width below 1.
    """
    if width < 1:
        raise ModelError("not a number of channels", field="vgg_width", found=width, expected="at least 1")
    layers: nn.Sequential = make_layers([size if isinstance(size, str) else size * width // 64 for size in cfgs["D"]])
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            # As torchvision starts VGG; torch's default for convolutions would let the signal die in 13 layers.
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return layers


def fill_vgg16(convolutions: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """Put the tensors of a whole VGG-16, as torchvision or timm name them, into its convolutions.

    Returns:
        Names that were not used: the classifier's.

    Raises:
        ModelError: tensors that are missing, left over or of another shape.
    """
    used = {name: value for name, value in state.items() if name.startswith("features.")}
    fill_exactly(nn.ModuleDict({"features": convolutions}), used, "VGG-16")
    return [name for name in state if name not in used]


def _backbone(settings: SiameseSettings) -> nn.Module:
    if settings.backbone == "vgg16":
        return vgg16_convolutions(settings.vgg_width)
    return timm.create_model(settings.backbone, pretrained=False, num_classes=0)


def _head(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for place, width in enumerate(widths):
        if place:
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Linear(inputs, width))
        inputs = width
    return nn.Sequential(*layers)
