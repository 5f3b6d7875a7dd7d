"""FSRA and its strong baseline: a transformer whose tokens are segmented by heat and aligned region by region."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from cvgl.errors import ModelError

from .base import CrossViewModel, Features, ModelInfo, View, ViewInput
from .heads import PartClassifier, check_shared, part_features, rename_class_block
from .vit import PATCH, VisionTransformer

__all__ = ["Fsra", "FsraSettings", "from_authors", "heat_regions", "pool_regions"]


@dataclass(frozen=True)
class FsraSettings:
    """The shape of an FSRA network; the defaults are those of Dai et al. 2021 on University-1652.

    Args:
        regions: n, groups of tokens of like heat, each with a classifier; 0 is the strong baseline, which has the
            class token only.
        classes: places in training.
        image_size: pixels, a multiple of 16; one number for a square, or (height, width).
        width: channels of a token.
        depth: blocks.
        heads: of the attention.
        mlp_ratio: hidden units of an MLP over `width`.
        drop_path: of the last block in training; it rises linearly from 0 in the first.
        bottleneck: features of a part.
        dropout: of a part's features in training.
        mirror: embed the sum of an image and its mirror image, as the authors test; twice the work.
    """

    regions: int = 3
    classes: int = 701
    image_size: int | tuple[int, int] = 256
    width: int = 768
    depth: int = 8
    heads: int = 8
    mlp_ratio: float = 3.0
    drop_path: float = 0.1
    bottleneck: int = 512
    dropout: float = 0.5
    mirror: bool = False


class Fsra(CrossViewModel):
    """Feature segmentation and region alignment (Dai et al. 2021); both views share the weights.

    `Features.parts` are the regions, the hottest first, and the class token last: (B, regions + 1, bottleneck).
    `Features.descriptor` is already normalised part by part, see `cvgl_train.models.heads.part_descriptor`.

    Raises:
        ModelError: settings that cannot be.
    """

    def __init__(self, settings: FsraSettings, name: str = "fsra") -> None:
        super().__init__()
        self.settings = settings
        size = settings.image_size
        height, width = (size, size) if isinstance(size, int) else size
        self.backbone = VisionTransformer(
            height,
            width,
            settings.width,
            settings.depth,
            settings.heads,
            settings.mlp_ratio,
            settings.drop_path,
        )
        tokens = self.backbone.grid[0] * self.backbone.grid[1]
        if not 0 <= settings.regions <= tokens:
            found = settings.regions
            raise ModelError("not a number of regions", field="regions", found=found, expected=f"0 to {tokens}")
        parts = settings.regions + 1
        self.classifier = PartClassifier(parts, settings.width, settings.bottleneck, settings.classes, settings.dropout)
        view = ViewInput(height, width, interpolation="bicubic")
        self.info = ModelInfo(name, parts * settings.bottleneck, view, view, shared=True)

    def forward(self, images: Tensor, view: View) -> Features:
        return part_features(self._pool, self.classifier, images, self.settings.mirror)

    def _pool(self, images: Tensor) -> Tensor:
        tokens = self.backbone(images)
        whole, patches = tokens[:, :1], tokens[:, 1:]
        if not self.settings.regions:
            return whole
        return torch.cat([pool_regions(patches, self.settings.regions), whole], 1)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """The transformer, and the classifiers, which the authors train faster."""
        return {
            group: [p for p in module.parameters() if p.requires_grad]
            for group, module in (("backbone", self.backbone), ("head", self.classifier))
        }

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """Weights of timm's first ``vit_small_patch16_224`` (768 channels), as `VisionTransformer.load` takes them."""
        return self.backbone.load(state)

    def regions(self, images: Tensor, view: View) -> tuple[Tensor, Tensor] | None:
        """(B, h, w) heat and (B, h, w) region of every patch, 0 the hottest; None for the baseline."""
        if not self.settings.regions:
            return None
        with torch.no_grad():
            heat, numbers = heat_regions(self.backbone(images)[:, 1:], self.settings.regions)
        return heat.unflatten(1, self.backbone.grid), numbers.unflatten(1, self.backbone.grid)


def pool_regions(tokens: Tensor, regions: int) -> Tensor:
    """(B, N, C) tokens to (B, regions, C) means of groups of like heat, the hottest first.

    Heatmap segmentation (Dai et al. 2021, section III-B): the heat of a token is the mean of its channels; tokens in
    the order of falling heat are cut into groups of N // regions, and the last takes what remains. The order of
    tokens of equal heat is the sort's own.
    """
    order = _hottest_first(tokens.float().mean(2))
    ordered = tokens.gather(1, order[:, :, None].expand_as(tokens))
    groups = ordered.split(_sizes(tokens.shape[1], regions), 1)
    return torch.stack([group.mean(1) for group in groups], 1)


def heat_regions(tokens: Tensor, regions: int) -> tuple[Tensor, Tensor]:
    """(B, N, C) tokens to their heat (B, N) and their region (B, N), int64, as `pool_regions` groups them."""
    heat = tokens.float().mean(2)
    sizes = torch.tensor(_sizes(tokens.shape[1], regions), device=tokens.device)
    ranked = torch.repeat_interleave(torch.arange(regions, device=tokens.device), sizes)
    order = _hottest_first(heat)
    return heat, torch.empty_like(order).scatter_(1, order, ranked.expand_as(order))


def _hottest_first(heat: Tensor) -> Tensor:
    # Not the stable sort, which has no counterpart in ONNX.
    return heat.argsort(dim=1, descending=True)


def _sizes(count: int, regions: int) -> list[int]:
    each = count // regions
    return [each] * (regions - 1) + [count - each * (regions - 1)]


# The transformer's ImageNet classifier, which the authors' network keeps but never calls.
_UNUSED = {"model_1.transformer.fc.weight", "model_1.transformer.fc.bias"}
_HEAT = re.compile(r"model_1\.classifier_heat(\d+)\.(.+)")


def from_authors(state: dict[str, Tensor], name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and renamed tensors from a `state_dict` of the authors' code (two views, shared weights).

    Regions, classes, image size (where the patches are a square) and the sizes of the layers are read from names and
    shapes. Left out are only the transformer's unused ImageNet classifier, a second view that repeats the first, the
    street's of three views (``model_2``), which takes no part in drone to satellite, and the classifier of a single
    region: the authors build it for their baseline (``block=1``) and never call it. Names that nobody knows are passed
    on as they are, for the strict filling to name.

    Raises:
        ModelError: no such checkpoint, views that do not share weights, or another number of regions than `name` has.
    """
    if not any(key.startswith("model_1.transformer.") for key in state):
        found = ", ".join(list(state)[:3])
        raise ModelError("not FSRA's", field="state_dict", found=found, expected="names from model_1.transformer. on")
    if any(key.startswith("model_3.") for key in state):
        state = {key: value for key, value in state.items() if not key.startswith("model_2.")}
    for other in ("model_2.", "model_3."):
        state = check_shared(state, "model_1.", other)
    regions = max((int(match[1]) for match in map(_HEAT.fullmatch, state) if match), default=0)
    if regions == 1:
        state = {key: value for key, value in state.items() if not _HEAT.fullmatch(key)}
        regions = 0
    if (name == "vit-baseline") != (regions == 0):
        expected = "--as fsra" if regions else "--as vit-baseline"
        raise ModelError(f"not {name}", field="classifier_heat", found=f"{regions} regions", expected=expected)
    renamed = {}
    for key, value in state.items():
        heat = _HEAT.fullmatch(key)
        if key in _UNUSED:
            continue
        if heat:
            renamed[f"classifier.blocks.{int(heat[1]) - 1}.{rename_class_block(heat[2])}"] = value
        elif key.startswith("model_1.classifier1."):
            rest = key.removeprefix("model_1.classifier1.")
            renamed[f"classifier.blocks.{regions}.{rename_class_block(rest)}"] = value
        elif key.startswith("model_1.transformer."):
            renamed[f"backbone.{key.removeprefix('model_1.transformer.')}"] = value
        else:
            renamed[key] = value
    return {"regions": regions, **_shapes(renamed, regions)}, renamed


def _shapes(renamed: dict[str, Tensor], regions: int) -> dict[str, Any]:
    """The settings that shapes decide; a tensor that is missing decides nothing and is named by the filling."""
    found: dict[str, Any] = {}
    classifier = renamed.get(f"classifier.blocks.{regions}.classifier.weight")
    if classifier is not None and classifier.ndim == 2:
        found["classes"], found["bottleneck"] = classifier.shape
    positions = renamed.get("backbone.pos_embed")
    if positions is not None and positions.ndim == 3:
        side = isqrt(max(positions.shape[1] - 1, 0))
        if side * side == positions.shape[1] - 1:
            found["image_size"] = side * PATCH
    token = renamed.get("backbone.cls_token")
    if token is not None and token.ndim == 3:
        found["width"] = token.shape[2]
    hidden = renamed.get("backbone.blocks.0.mlp.fc1.weight")
    if hidden is not None and hidden.ndim == 2:
        found["mlp_ratio"] = hidden.shape[0] / hidden.shape[1]
    blocks = [int(key.split(".")[2]) for key in renamed if re.match(r"backbone\.blocks\.\d+\.", key)]
    if blocks:
        found["depth"] = max(blocks) + 1
    return found
