"""SAIG: a convolutional stem and blocks of attention without MLPs (Zhu et al. 2023, "Simple, Effective and General").

What the released code does, and where this differs on purpose:

- Images are normalised by mean 0.5 and deviation 0.5, not by ImageNet's, in pretraining as in the training.
- There is no class token, and no stochastic depth or dropout.
- The mixed head (SMD) has three linear layers over the tokens and one GELU, after the first; no residual, no norm.
  Its layers are written for 256 tokens; here they follow the images' size. The commands' default is GAP, not SMD.
- Unit length is the last step of the released network; here `embed` does it, and `Features.descriptor` is without.
- The optimiser of its sharpness-aware training is adaptive (ASAM, rho 2), which its file names do not say.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cvgl.errors import ModelError

from ..weights import fill_exactly
from .base import CrossViewModel, Features, ModelInfo, View, ViewInput
from .positions import regrid

__all__ = ["Saig", "SaigSettings", "from_authors"]

_STRIDES = (2, 2, 1, 2, 1, 2)
_PATCH = math.prod(_STRIDES)
_DEPTHS = {"saig-s": 11, "saig-d": 22}
_HALF = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class SaigSettings:
    """The shape of a SAIG. The defaults are those of SAIG-D on CVUSA and CVACT; SAIG-S has depth 11.

    Args:
        depth: blocks.
        head: "smd" (spatial-mixed: learnt sums over the tokens) or "gap" (their mean).
        query_size, reference_size: height and width of the images, pixels; multiples of 16.
        width: length of a token; a multiple of `heads`.
        heads: of attention.
        stem: channels after each of the six 3 x 3 convolutions.
        mixed: sums that the SMD head makes; the descriptor has `mixed * width` values, or `width` with "gap".
    """

    depth: int = 22
    head: Literal["smd", "gap"] = "smd"
    query_size: tuple[int, int] = (128, 512)
    reference_size: tuple[int, int] = (256, 256)
    width: int = 384
    heads: int = 12
    stem: tuple[int, int, int, int, int, int] = (64, 128, 128, 256, 256, 512)
    mixed: int = 8


class Attention(nn.Module):
    """Multi-head self-attention of (B, N, C) tokens, with biases, scaled by the square root of a head's width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        query, key, value = self.qkv(x).reshape(batch, count, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, width))


class Block(nn.Module):
    """x + Attention(LayerNorm(x)), and nothing after it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(self.norm(x))


class Backbone(nn.Module):
    """(B, 3, H, W) images to (B, N, C) tokens, N = H / 16 * W / 16 in rows from the top left."""

    def __init__(self, settings: SaigSettings, size: tuple[int, int]) -> None:
        super().__init__()
        self.grid = (size[0] // _PATCH, size[1] // _PATCH)
        layers: list[nn.Module] = []
        channels = 3
        for width, stride in zip(settings.stem, _STRIDES, strict=True):
            layers += [nn.Conv2d(channels, width, 3, stride, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
        self.stem = nn.Sequential(*layers, nn.Conv2d(channels, settings.width, 1))
        self.position = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], settings.width))
        self.blocks = nn.Sequential(*[Block(settings.width, settings.heads) for _ in range(settings.depth)])
        self.norm = nn.LayerNorm(settings.width, eps=1e-6)
        nn.init.trunc_normal_(self.position, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.stem(images).flatten(2).transpose(1, 2)
        return self.norm(self.blocks(tokens + self.position))


class MeanHead(nn.Module):
    """(B, N, C) tokens to their mean, (B, C)."""

    def forward(self, tokens: Tensor) -> Tensor:
        return tokens.mean(1)


class MixedHead(nn.Module):
    """(B, N, C) tokens to `mixed` learnt sums of them, flattened sum by sum: (B, mixed * C)."""

    def __init__(self, tokens: int, mixed: int) -> None:
        super().__init__()
        self.expand = nn.Linear(tokens, 4 * tokens)
        self.contract = nn.Linear(4 * tokens, tokens)
        self.select = nn.Linear(tokens, mixed)

    def forward(self, tokens: Tensor) -> Tensor:
        mixed = self.contract(F.gelu(self.expand(tokens.transpose(1, 2))))
        return self.select(mixed).transpose(1, 2).flatten(1)


class ViewNet(nn.Module):
    """The network of one view: images to descriptors before they get unit length."""

    def __init__(self, settings: SaigSettings, size: tuple[int, int]) -> None:
        super().__init__()
        self.backbone = Backbone(settings, size)
        tokens = self.backbone.position.shape[1]
        self.head = MixedHead(tokens, settings.mixed) if settings.head == "smd" else MeanHead()

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class Saig(CrossViewModel):
    """SAIG-S and SAIG-D: descriptors of 3072 (SMD) or 384 (GAP); views not shared.

    Raises:
        ModelError: settings that cannot be, by name.
    """

    settings: SaigSettings

    def __init__(self, settings: SaigSettings, name: str = "saig-d") -> None:
        super().__init__()
        _check(settings)
        self.settings = settings
        self.query = ViewNet(settings, settings.query_size)
        self.reference = ViewNet(settings, settings.reference_size)
        self.info = ModelInfo(
            name,
            settings.width * (settings.mixed if settings.head == "smd" else 1),
            ViewInput(*settings.query_size, _HALF, _HALF),
            ViewInput(*settings.reference_size, _HALF, _HALF),
            shared=False,
        )

    def forward(self, images: Tensor, view: View) -> Features:
        """(B, 3, H, W) to descriptors (B, mixed * width), or (B, width) with the mean head."""
        return Features(self.query(images) if view == "query" else self.reference(images))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Both backbones, which have pretrained weights, and both heads, which have none ("gap": nothing)."""
        nets = (self.query, self.reference)
        return {
            "backbone": [p for net in nets for p in net.backbone.parameters() if p.requires_grad],
            "head": [p for net in nets for p in net.head.parameters() if p.requires_grad],
        }

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """The authors' ImageNet weights into both views, the position embeddings resampled to each view's grid.

        Raises:
            ModelError: as of the base class, or position embeddings that are not those of a square image.
        """
        names = {name: _own_name(name) for name in state}
        renamed = {names[name]: value for name, value in state.items()}
        for net in (self.query.backbone, self.reference.backbone):
            mine = {name: value for name, value in renamed.items() if name in net.state_dict()}
            if "position" in mine:
                mine["position"] = regrid(mine["position"], net.grid, _bicubic, prefix=0)
            fill_exactly(net, mine, "the backbone of SAIG")
        own = self.query.backbone.state_dict()
        return [name for name in state if names[name] not in own]


def _check(settings: SaigSettings) -> None:
    for field in ("query_size", "reference_size"):
        size = getattr(settings, field)
        if len(size) != 2 or any(side % _PATCH or side < _PATCH for side in size):
            raise ModelError("not a size", field=field, found=size, expected=f"two multiples of {_PATCH} pixels")
    if settings.head not in ("smd", "gap"):
        raise ModelError("no such head", field="head", found=settings.head, expected="smd or gap")
    if len(settings.stem) != len(_STRIDES):
        raise ModelError("not a stem", field="stem", found=settings.stem, expected=f"{len(_STRIDES)} widths")
    if settings.heads < 1 or settings.width % settings.heads:
        expected = f"a divisor of width {settings.width}"
        raise ModelError("heads do not divide the width", field="heads", found=settings.heads, expected=expected)
    if settings.depth < 1:
        raise ModelError("not a depth", field="depth", found=settings.depth, expected="1 or more")


def _bicubic(spread: Tensor, grid: tuple[int, int]) -> Tensor:
    """As in the authors' code."""
    return F.interpolate(spread, grid, mode="bicubic")


_NAMES = (
    (r"pos_embed", "position"),
    (r"patch_embed\.conv_stem\.", "stem."),
    (r"(blocks\.\d+)\.norm1\.", r"\1.norm."),
    (r"(blocks\.\d+)\.attn\.qkv\.", r"\1.attention.qkv."),
    (r"(blocks\.\d+)\.attn\.proj\.", r"\1.attention.out."),
)
_HEAD = {"linear1": "expand", "linear2": "contract", "linear3": "select"}


def _own_name(name: str) -> str:
    """A tensor's name in `Backbone` from the authors'; other names stay as they are."""
    for pattern, own in _NAMES:
        renamed, count = re.subn(f"^{pattern}", own, name)
        if count:
            return renamed
    return name


def from_authors(state: dict[str, Tensor], name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and renamed tensors of the authors' checkpoint; see `cvgl_train.importer.import_state`.

    Depth and head are read from the tensors. Sizes are not in them: 256 tokens are 128 x 512 pixels as well as
    256 x 256, so the settings' sizes hold where the caller gives no others.

    Raises:
        ModelError: no such checkpoint, or weights of the other depth.
    """
    found = [re.match(r"model_(?:grd|sat)\.backbone\.blocks\.(\d+)\.", key) for key in state]
    depth = 1 + max((int(match[1]) for match in found if match), default=-1)
    if not depth:
        expected = "names from model_grd.backbone. and model_sat.backbone. on"
        raise ModelError("not SAIG's", field="state_dict", found=", ".join(list(state)[:3]), expected=expected)
    if depth != _DEPTHS.get(name, depth):
        other = " ".join(f"({method})" for method, blocks in _DEPTHS.items() if blocks == depth)
        raise ModelError(
            "weights of another depth", field="blocks", found=f"{depth} {other}".strip(), expected=f"{_DEPTHS[name]}"
        )
    renamed = {}
    for key, value in state.items():
        branch, _, inner = key.partition(".")
        view = {"model_grd": "query", "model_sat": "reference"}.get(branch)
        layer, _, leaf = inner.partition(".")
        if view is None:
            renamed[key] = value
        elif layer in _HEAD:
            renamed[f"{view}.head.{_HEAD[layer]}.{leaf}"] = value
        else:
            renamed[f"{view}.{layer}.{_own_name(leaf)}"] = value
    mixed = any(".head." in key for key in renamed)
    return {"depth": depth, "head": "smd" if mixed else "gap"}, renamed
