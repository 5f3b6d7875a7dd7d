"""FRGeo: one ConvNeXt a view, its final features recombined by direction (Zhang et al., AAAI 2024).

What the released code does, and where this differs on purpose:

- It cuts by shape: a square feature map in quadrants, every other one in strips. A drone's view is square, and so is a
  panorama of 90 degrees (128 x 128), so here the layout of each view is a setting.
- It normalises each region's mean by the network's final LayerNorm before concatenating. Unit length comes later, in
  the loss and in the evaluation.
- Its weighted loss compares cosines, while the paper prints L2 distances; both are in `cvgl_train.losses`.
- The two views never share weights, though both start from the same ImageNet ones.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cvgl.errors import ModelError

from ..weights import fill_exactly
from .base import CrossViewModel, Features, ModelInfo, View, ViewInput
from .positions import regrid
from .recombination import Layout, check_layout, part_count, recombine, region_index, token_map

__all__ = ["FrGeo", "FrGeoSettings", "from_authors"]

_OFFICIAL_TAGS = {"convnext_tiny": "convnext_tiny.fb_in1k"}
"""timm's tag of the weights the authors start from; other backbones take timm's own choice."""


@dataclass(frozen=True)
class FrGeoSettings:
    """The shape of an FRGeo. The defaults are the paper's for CVUSA and CVACT.

    For drone and satellite views set both layouts to "map" and both sizes to the same square: both images must be
    north-up. VIGOR takes (320, 640) and (320, 320).

    Args:
        backbone: a ConvNeXt or a plain vision transformer of timm, by its name there.
        query_layout, reference_layout: "map" (quadrants), "panorama" (strips), or "none" (one mean over everything,
            the ablation's baseline).
        query_size, reference_size: height and width of the images, pixels; multiples of the backbone's stride.
        drop_path: rate of stochastic depth in the last block; 0 as released.
    """

    backbone: str = "convnext_tiny"
    query_layout: Layout = "panorama"
    reference_layout: Layout = "map"
    query_size: tuple[int, int] = (128, 512)
    reference_size: tuple[int, int] = (256, 256)
    drop_path: float = 0.0


class ViewNet(nn.Module):
    """The network of one view: a backbone without head, and its final norm, which here comes after the pooling."""

    def __init__(self, backbone: str, size: tuple[int, int], layout: Layout, drop_path: float, view: View) -> None:
        super().__init__()
        self.layout: Layout = layout
        self.trunk, self.norm, stride = _trunk(backbone, size, drop_path)
        if any(side % step or side < step for side, step in zip(size, stride, strict=True)):
            raise ModelError(
                "not a size for this backbone",
                field=f"{view}_size",
                found=size,
                expected=f"multiples of {stride[0]} x {stride[1]} pixels",
            )
        self.grid = (size[0] // stride[0], size[1] // stride[1])
        check_layout(layout, self.grid, f"{view}_layout")

    def features(self, images: Tensor) -> Tensor:
        """(B, C, h, w) before the final norm."""
        features: Tensor = self.trunk.forward_features(images)
        if isinstance(self.trunk, VisionTransformer):
            return token_map(features[:, self.trunk.num_prefix_tokens :], self.grid)
        return features

    def forward(self, images: Tensor) -> Tensor:
        return recombine(self.features(images), self.layout, self.norm)

    def load_trunk(self, state: dict[str, Tensor]) -> list[str]:
        """Fill from a pretrained backbone under this module's names; returns those that are not in it."""
        state = dict(state)
        if isinstance(self.trunk, VisionTransformer) and "trunk.pos_embed" in state:
            prefix = 0 if self.trunk.no_embed_class else self.trunk.num_prefix_tokens
            state["trunk.pos_embed"] = regrid(state["trunk.pos_embed"], self.grid, _antialiased, prefix=prefix)
        own = self.state_dict()
        fill_exactly(self, {name: value for name, value in state.items() if name in own}, "the backbone")
        return [name for name in state if name not in own]


def _trunk(
    backbone: str, size: tuple[int, int], drop_path: float
) -> tuple[ConvNeXt | VisionTransformer, nn.LayerNorm, tuple[int, int]]:
    """A backbone that stops before its final norm, that norm, and the stride of its features in pixels."""
    # Only a transformer has to know the size of its images.
    extra: dict[str, Any] = {} if backbone.startswith("convnext") else {"img_size": size, "global_pool": ""}
    usable = "a ConvNeXt or a plain vision transformer of timm, with a LayerNorm at its end"
    try:
        trunk = timm.create_model(backbone, pretrained=False, num_classes=0, drop_path_rate=drop_path, **extra)
    except (RuntimeError, TypeError) as reason:
        # RuntimeError: timm has no such name or tag; TypeError: a family that does not take these arguments.
        raise ModelError("cannot be built", field="backbone", found=backbone, expected=usable) from reason
    if isinstance(trunk, ConvNeXt):
        norm, stride = _convnext_end(trunk)
    elif isinstance(trunk, VisionTransformer) and isinstance(trunk.patch_embed, PatchEmbed):
        norm, stride = _transformer_end(trunk)
    else:
        raise ModelError("not a backbone for this method", field="backbone", found=backbone, expected=usable)
    if not isinstance(norm, nn.LayerNorm):
        raise ModelError("ends without a LayerNorm", field="backbone", found=backbone, expected=usable)
    return trunk, nn.LayerNorm(trunk.num_features, eps=norm.eps), stride


def _convnext_end(trunk: Any) -> tuple[nn.Module | None, tuple[int, int]]:
    """Take a ConvNeXt's head off; its norm, if the head had one, and its stride."""
    norm: nn.Module | None = getattr(trunk.head, "norm", None)
    trunk.head = nn.Identity()
    stride = int(trunk.feature_info[-1]["reduction"])
    return norm, (stride, stride)


def _transformer_end(trunk: Any) -> tuple[nn.Module, tuple[int, int]]:
    """Take a transformer's final norm off, which timm names after its place before or behind the pooling."""
    norm: nn.Module = trunk.fc_norm if isinstance(trunk.norm, nn.Identity) else trunk.norm
    trunk.norm = trunk.fc_norm = nn.Identity()
    height, width = trunk.patch_embed.patch_size
    return norm, (height, width)


def _normalisation(trunk: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and deviation of the images that the backbone's pretrained weights were made with."""
    mean, std = trunk.pretrained_cfg["mean"], trunk.pretrained_cfg["std"]
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def _antialiased(spread: Tensor, grid: tuple[int, int]) -> Tensor:
    """As timm resizes position embeddings."""
    return F.interpolate(spread, grid, mode="bicubic", antialias=True)


class FrGeo(CrossViewModel):
    """FRGeo: descriptors of four regions of 768 (ConvNeXt-Tiny), 3072 together; views not shared.

    Raises:
        ModelError: a backbone or a layout that does not exist, images too small for it, or descriptors of two sizes.
    """

    settings: FrGeoSettings

    def __init__(self, settings: FrGeoSettings, name: str = "frgeo") -> None:
        super().__init__()
        self.settings = settings
        self.timm_name = _OFFICIAL_TAGS.get(settings.backbone, settings.backbone)
        rate = settings.drop_path
        self.query = ViewNet(settings.backbone, settings.query_size, settings.query_layout, rate, "query")
        self.reference = ViewNet(
            settings.backbone, settings.reference_size, settings.reference_layout, rate, "reference"
        )
        parts = part_count(settings.query_layout)
        if parts != part_count(settings.reference_layout):
            raise ModelError(
                "descriptors of the two views have different sizes",
                field="reference_layout",
                found=f"{settings.reference_layout!r} beside query_layout {settings.query_layout!r}",
                expected='"none" for both views or for neither',
            )
        mean, std = _normalisation(self.query.trunk)
        self.info = ModelInfo(
            name,
            parts * self.query.trunk.num_features,
            ViewInput(*settings.query_size, mean, std),
            ViewInput(*settings.reference_size, mean, std),
            shared=False,
        )

    def _net(self, view: View) -> ViewNet:
        return self.query if view == "query" else self.reference

    def forward(self, images: Tensor, view: View) -> Features:
        """(B, 3, H, W) to descriptors (B, P * C), regions in the order of `recombination.region_means`."""
        return Features(self._net(view)(images))

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """ImageNet weights, as timm or as the official ConvNeXt names them, into both views.

        Position embeddings of a transformer are taken as those of a square image and resampled to each view's grid.

        Raises:
            ModelError: as of the base class.
        """
        official = any(name.startswith("downsample_layers.") for name in state)
        names = {name: _from_convnext(name) if official else _from_timm(name) for name in state}
        renamed = {names[name]: value for name, value in state.items()}
        unused = {name for net in (self.query, self.reference) for name in net.load_trunk(renamed)}
        return [name for name in state if names[name] in unused]

    @torch.no_grad()
    def regions(self, images: Tensor, view: View) -> tuple[Tensor, Tensor] | None:
        """Heat is the length of each cell's final feature; regions are fixed by the layout."""
        net = self._net(view)
        if net.layout == "none":
            return None
        heat = net.features(images).norm(dim=1)
        return heat, region_index(net.grid, net.layout).to(heat.device).expand(heat.shape)


def _from_timm(name: str) -> str:
    """A tensor's name in `ViewNet` from timm's; the final norm has another name in each of its families."""
    found = re.fullmatch(r"(?:head\.norm|fc_norm|norm)\.(weight|bias)", name)
    return f"norm.{found[1]}" if found else f"trunk.{name}"


_CONVNEXT = (
    (r"downsample_layers\.0\.", "trunk.stem."),
    (r"downsample_layers\.(\d+)\.", r"trunk.stages.\1.downsample."),
    (r"stages\.(\d+)\.(\d+)\.dwconv\.", r"trunk.stages.\1.blocks.\2.conv_dw."),
    (r"stages\.(\d+)\.(\d+)\.pwconv(\d)\.", r"trunk.stages.\1.blocks.\2.mlp.fc\3."),
    (r"stages\.(\d+)\.(\d+)\.", r"trunk.stages.\1.blocks.\2."),
)


def _from_convnext(name: str) -> str:
    """A tensor's name in `ViewNet` from the official ConvNeXt's; other names stay as they are."""
    for pattern, own in _CONVNEXT:
        renamed, count = re.subn(f"^{pattern}", own, name)
        if count:
            return renamed
    return name


def from_authors(state: dict[str, Tensor], name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and renamed tensors of the authors' checkpoint; see `cvgl_train.importer.import_state`.

    The tensors say nothing about sizes and layouts, which stay the settings' (CVUSA's and CVACT's by default).
    """
    renamed = {}
    for key, value in state.items():
        view, _, inner = key.partition("_net.")
        known = inner and view in ("query", "reference")
        renamed[f"{view}.{_from_convnext(inner)}" if known else key] = value
    return {}, renamed
