"""LPN: a convolutional network whose feature map is cut into square rings around its centre."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError

from ..weights import fill_exactly
from .base import CrossViewModel, Features, ModelInfo, View, ViewInput
from .heads import PartClassifier, check_shared, part_features, rename_class_block

__all__ = ["Lpn", "LpnSettings", "from_authors", "ring_numbers"]

# Channels of the last feature map, and pixels per cell of it.
_BACKBONES = {"resnet18": (512, 16), "resnet50": (2048, 16), "vgg16": (512, 32)}


@dataclass(frozen=True)
class LpnSettings:
    """The shape of an LPN; the defaults are those of Wang et al. 2021 on University-1652.

    Args:
        blocks: square rings.
        classes: places in training.
        image_size: side of the square images, pixels; a multiple of 32.
        backbone: "resnet50" as on University-1652, "vgg16" (with BatchNorm) as on CVUSA and CVACT, or "resnet18",
            which is not the paper's but quick. The last stage of a ResNet keeps its resolution.
        bottleneck: features of a ring.
        dropout: of a ring's features in training. The authors' script for University-1652 sets 0.75.
        mirror: embed the sum of an image and its mirror image, as the authors test; twice the work.
    """

    blocks: int = 4
    classes: int = 701
    image_size: int = 256
    backbone: Literal["resnet18", "resnet50", "vgg16"] = "resnet50"
    bottleneck: int = 512
    dropout: float = 0.5
    mirror: bool = False


class Lpn(CrossViewModel):
    """Local pattern network (Wang et al. 2021); both views share the weights.

    `Features.parts` are the rings, the innermost first: (B, blocks, bottleneck). `Features.descriptor` is already
    normalised ring by ring, see `cvgl_train.models.heads.part_descriptor`.

    Raises:
        ModelError: settings that cannot be.
    """

    weights: Tensor

    def __init__(self, settings: LpnSettings, name: str = "lpn") -> None:
        super().__init__()
        if settings.backbone not in _BACKBONES:
            known = " or ".join(_BACKBONES)
            raise ModelError("no such backbone", field="backbone", found=settings.backbone, expected=known)
        if settings.image_size < 32 or settings.image_size % 32:
            found = settings.image_size
            raise ModelError("not a size", field="image_size", found=found, expected="a multiple of 32")
        if settings.blocks < 1:
            raise ModelError("not a number of rings", field="blocks", found=settings.blocks, expected="1 or more")
        self.settings = settings
        channels, stride = _BACKBONES[settings.backbone]
        side = settings.image_size // stride
        # A map with fewer cells than rings across is enlarged first, as the authors do.
        self.side = max(side, side + 2 * (settings.blocks - side // 2))
        self.enlarged = self.side != side
        self.register_buffer("weights", _ring_weights(self.side, settings.blocks), persistent=False)
        self.backbone = _backbone(settings.backbone)
        self.classifier = PartClassifier(
            settings.blocks, channels, settings.bottleneck, settings.classes, settings.dropout, scale_spread=0.02
        )
        self.timm_name = {"vgg16": "vgg16_bn"}.get(settings.backbone, settings.backbone) + ".tv_in1k"
        view = ViewInput(settings.image_size, settings.image_size, interpolation="bicubic")
        self.info = ModelInfo(name, settings.blocks * settings.bottleneck, view, view, shared=True)

    def forward(self, images: Tensor, view: View) -> Features:
        return part_features(self._pool, self.classifier, images, self.settings.mirror)

    def _pool(self, images: Tensor) -> Tensor:
        return torch.einsum("bchw,phw->bpc", self._map(images), self.weights)

    def _map(self, images: Tensor) -> Tensor:
        cells = self.backbone(images)
        if not self.enlarged:
            return cells
        return F.interpolate(cells, (self.side, self.side), mode="bilinear", align_corners=True)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The convolutional network, and the classifiers, which the authors train faster."""
        return {
            group: [p for p in module.parameters() if p.requires_grad]
            for group, module in (("backbone", self.backbone), ("head", self.classifier))
        }

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet weights of the ResNet or of the VGG with BatchNorm, as timm and torchvision name them."""
        prefix = "features." if self.settings.backbone == "vgg16" else ""
        own = self.backbone.state_dict()
        used = {name: state[prefix + name] for name in own if prefix + name in state}
        fill_exactly(self.backbone, used, self.settings.backbone)
        return sorted(state.keys() - {prefix + name for name in used})

    def regions(self, images: Tensor, view: View) -> tuple[Tensor, Tensor] | None:
        """(B, h, w) mean of the channels and (B, h, w) ring of every cell, 0 the innermost."""
        with torch.no_grad():
            heat = self._map(images).float().mean(1)
        return heat, ring_numbers(self.side, self.settings.blocks).to(heat.device).expand(heat.shape)


def ring_numbers(side: int, blocks: int) -> Tensor:
    """(side, side) int64: the square ring of every cell, 0 the innermost (Wang et al. 2021, section III-B).

    A ring is side // (2 * blocks) cells wide; the outermost takes what remains. Squares around the centre of a map
    with an odd side lean to its upper left, since cells are not cut.

    Raises:
        ModelError: fewer cells than rings across.
    """
    wide = side // (2 * blocks)
    if wide < 1:
        raise ModelError("too few cells for the rings", field="side", found=side, expected=f"{2 * blocks} or more")
    offset = torch.arange(side) - side // 2
    # Distance from the centre line: 0 for the cells on both sides of it.
    away = torch.where(offset < 0, -1 - offset, offset) // wide
    return torch.maximum(away[:, None], away[None, :]).clamp(max=blocks - 1)


def _ring_weights(side: int, blocks: int) -> Tensor:
    """(blocks, side, side) weights of the cells in each ring's average.

    The authors average over the whole square that the ring encloses, whose inside they set to 0: a ring's sum is
    divided by the area of its square, not by its own. Checkpoints are trained with that.
    """
    numbers = ring_numbers(side, blocks)
    masks = torch.stack([numbers == ring for ring in range(blocks)]).float()
    return masks / masks.cumsum(0).sum((1, 2), keepdim=True)


def _backbone(name: str) -> nn.Module:
    if name == "vgg16":
        # Only its convolutions are kept; the ratio makes the dense layers behind them, of 100 M parameters, tiny.
        return timm.create_model("vgg16_bn", num_classes=0, mlp_ratio=1 / 4096).get_submodule("features")
    net = timm.create_model(name, num_classes=0, global_pool="")
    for module in net.get_submodule("layer4").modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    return net


# torchvision's ImageNet classifier, which the authors' network keeps but never calls.
_UNUSED = {"model_1.model.fc.weight", "model_1.model.fc.bias"}
_RING = re.compile(r"classifier(\d+)\.(.+)")


def from_authors(state: dict[str, Tensor], name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and renamed tensors from a `state_dict` of the authors' code: ResNet-50, average pooling.

    Rings, classes and features of a ring are read from names and shapes; the image size is not in them. In a
    checkpoint of three views ``model_1`` is the satellite's, ``model_3`` the drone's and ``model_2`` the street's,
    which is left out: it takes no part in drone to satellite. So is the unused ImageNet classifier.

    Raises:
        ModelError: no such checkpoint, or drone and satellite do not share their weights.
    """
    if not any(key.startswith("model_1.model.") for key in state):
        found = ", ".join(list(state)[:3])
        raise ModelError("not LPN's", field="state_dict", found=found, expected="names from model_1.model. on")
    if any(key.startswith("model_3.") for key in state):
        state = {key: value for key, value in state.items() if not key.startswith("model_2.")}
    for other in ("model_2.", "model_3."):
        state = check_shared(state, "model_1.", other)
    renamed = {}
    for key, value in state.items():
        ring = _RING.fullmatch(key)
        if key in _UNUSED:
            continue
        if ring:
            renamed[f"classifier.blocks.{ring[1]}.{rename_class_block(ring[2])}"] = value
        elif key.startswith("model_1.model."):
            renamed[f"backbone.{key.removeprefix('model_1.model.')}"] = value
        else:
            renamed[key] = value
    rings = [int(match[1]) for match in map(_RING.fullmatch, state) if match]
    found_settings: dict[str, Any] = {"blocks": max(rings) + 1} if rings else {}
    classifier = renamed.get("classifier.blocks.0.classifier.weight")
    if classifier is not None and classifier.ndim == 2:
        found_settings["classes"], found_settings["bottleneck"] = classifier.shape
    return found_settings, renamed
