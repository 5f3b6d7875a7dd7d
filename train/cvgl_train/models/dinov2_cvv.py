"""Frozen DINOv2 with a small head per view (CVV) and a classifier of differences.

DINOv2's tokens (Oquab et al. 2023) are never trained, so they can be computed once and kept: see
`cvgl_train.feature_cache`. What is trained are one head per view, not shared, and the classifier.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import timm
import torch
import torch.nn.functional as F
from timm.layers import PatchEmbed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from cvgl.errors import ModelError

from ..weights import fill_exactly
from .base import CrossViewModel, Features, ModelInfo, View, ViewInput
from .positions import regrid

__all__ = [
    "CvvHead",
    "Dinov2Cvv",
    "Dinov2CvvSettings",
    "PairClassifier",
    "Score",
    "from_authors",
    "resize_positions",
]

Score = Literal["descriptor", "classifier"]

OFFICIAL = {
    (384, 12): "vit_small_patch14_dinov2",
    (768, 12): "vit_base_patch14_dinov2",
    (1024, 24): "vit_large_patch14_dinov2",
}
"""timm's names of the official networks by width and depth."""

HEAD_CHANNELS = 64
"""Per attention head, in every official network."""


@dataclass(frozen=True)
class Dinov2CvvSettings:
    """The shape of the network. Trained are 2 763 905 parameters: two heads of 1 381 376, and 1 153 of the classifier.

    The paper gives 2.8 million; how they are spread over the head is not public, and `feedforward` and `hidden` are
    chosen to come to it.

    Args:
        backbone: a vision transformer of timm.
        image_size: side of both views' input, pixels; a multiple of the transformer's patch.
        width, depth, heads: of the backbone, where they are not to be timm's.
        head_heads: attention heads of a view's block.
        feedforward: hidden units of its feed-forward part.
        token: which token the descriptor is made of; 0 is the class token.
        hidden: hidden units of the MLP behind it.
        descriptor_size: length of the descriptor.
        score: what `Dinov2Cvv.score` compares by: the descriptors' distance, or the classifier's log-odds.
    """

    backbone: str = "vit_small_patch14_dinov2"
    image_size: int = 224
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    head_heads: int = 6
    feedforward: int = 384
    token: int = 0
    hidden: int = 512
    descriptor_size: int = 384
    score: Score = "descriptor"


class CvvHead(nn.Module):
    """(B, T, C) tokens to (B, D): position codes, one transformer block (post-norm), one of its tokens, an MLP.

    Args:
        tokens, width: T and C.
        settings: the rest.
    """

    def __init__(self, tokens: int, width: int, settings: Dinov2CvvSettings) -> None:
        super().__init__()
        self.token = settings.token
        self.heads = settings.head_heads
        self.positions = nn.Parameter(torch.empty(1, tokens, width))
        nn.init.trunc_normal_(self.positions, std=0.02)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.norm1 = nn.LayerNorm(width)
        self.feedforward = _mlp(width, settings.feedforward, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _mlp(width, settings.hidden, settings.descriptor_size)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, _, width = tokens.shape
        tokens = tokens + self.positions
        # Of the block's output one token is used, so only that one is computed: the others would change nothing, and
        # would cost three times the work of all that is done here.
        one = tokens[:, self.token]
        split = (batch, -1, self.heads, width // self.heads)
        query = self.query(one).reshape(split).transpose(1, 2)
        key, value = (part.reshape(split).transpose(1, 2) for part in self.key_value(tokens).chunk(2, dim=2))
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(batch, width)
        one = self.norm1(one + self.project(attended))
        one = self.norm2(one + self.feedforward(one))
        return self.mlp(one)


class PairClassifier(nn.Module):
    """(Q, D) and (R, D) descriptors to (Q, R) log-odds of a match: Linear(LayerNorm(q - r)) of every pair.

    Computed in the memory of the result: LayerNorm's scale and the linear layer make one direction, along which a
    difference of vectors is a difference of numbers, and the standard deviation of a difference is a distance.

    Args:
        size: D.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.linear = nn.Linear(size, 1)

    def forward(self, query: Tensor, reference: Tensor) -> Tensor:
        weight = self.linear.weight[0]
        query = query - query.mean(1, keepdim=True)
        reference = reference - reference.mean(1, keepdim=True)
        # Not by matrix products, which lose the digits of small distances.
        apart = torch.cdist(query, reference, compute_mode="donot_use_mm_for_euclid_dist")
        deviation = (apart.square() / query.shape[1] + self.norm.eps).sqrt()
        direction, offset = weight * self.norm.weight, weight @ self.norm.bias + self.linear.bias
        return ((query @ direction)[:, None] - (reference @ direction)[None]) / deviation + offset


class Dinov2Cvv(CrossViewModel):
    """Frozen DINOv2, one head per view, and a classifier of differences.

    `forward`, `embed` and `forward_pair` take images or, in their place, (B, T, C) tokens as `tokens` gives them. The
    state carries the frozen backbone too, so that a checkpoint needs no download.

    Raises:
        ModelError: settings that cannot be.
    """

    def __init__(self, settings: Dinov2CvvSettings, name: str = "dinov2-cvv") -> None:
        super().__init__()
        self.settings = settings
        self.backbone: VisionTransformer = _backbone(settings).requires_grad_(False).eval()
        size, patch = settings.image_size, _patch(self.backbone).patch_size[0]
        if size % patch:
            raise ModelError("not a size", field="image_size", found=size, expected=f"a multiple of {patch}")
        self.width = int(self.backbone.embed_dim)
        self.token_count = (size // patch) ** 2 + int(self.backbone.num_prefix_tokens)
        _check(settings, self.width, self.token_count)
        own_shape = settings.width is settings.depth is settings.heads is None
        self.timm_name = settings.backbone if own_shape else None
        view = ViewInput(size, size, interpolation="bicubic")
        self.info = ModelInfo(name, settings.descriptor_size, view, view, shared=False, metric="euclidean")
        views: tuple[View, ...] = get_args(View)
        self.heads = nn.ModuleDict({view: CvvHead(self.token_count, self.width, settings) for view in views})
        self.classifier = PairClassifier(settings.descriptor_size)

    def train(self, mode: bool = True) -> Dinov2Cvv:
        """As usual, but the frozen backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images: Tensor, view: View) -> Features:
        descriptor = self.head_only(images if images.ndim == 3 else self.tokens(images), view)
        if self.training:
            # The loss asks the classifier when this pass is over. Data-parallel training, which looks here for what
            # will get a gradient, would take it for unused and refuse the gradient that comes all the same.
            descriptor = descriptor + 0 * sum(p.sum() for p in self.classifier.parameters())
        return Features(descriptor)

    def tokens(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) normalised images to the backbone's (B, T, C) tokens, without gradient."""
        tokens: Tensor = self.backbone.forward_features(images)
        return tokens.detach()

    def head_only(self, tokens: Tensor, view: View) -> Tensor:
        """(B, T, C) tokens to the (B, D) descriptors of a view."""
        descriptor: Tensor = self.heads[view](tokens)
        return descriptor

    def check(self, images: Tensor, view: View) -> None:
        """Raise ModelError for images or tokens of another shape than the network's."""
        if images.ndim != 3:
            super().check(images, view)
        elif tuple(images.shape[1:]) != (self.token_count, self.width):
            expected = f"(B, {self.token_count}, {self.width})"
            raise ModelError("wrong tokens", field=view, found=tuple(images.shape), expected=expected)

    def pair_logits(self, query: Tensor, reference: Tensor) -> Tensor:
        """(Q, R) log-odds of the classifier that query q and reference r show the same place.

        Args:
            query, reference: (Q, D), (R, D) descriptors.
        """
        logits: Tensor = self.classifier(query, reference)
        return logits

    def score(self, query: Tensor, reference: Tensor) -> Tensor:
        """(Q, R) similarity of all pairs by `settings.score`, greater is closer: -distance, or `pair_logits`.

        Args:
            query, reference: (Q, D), (R, D), as `embed` gives them.
        """
        if self.settings.score == "classifier":
            return self.pair_logits(query, reference)
        return super().score(query, reference)

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Everything that is trained is a head."""
        return {"backbone": [], "head": [*self.heads.parameters(), *self.classifier.parameters()]}

    def load_backbone(self, state: dict[str, Tensor]) -> list[str]:
        """Public weights of the frozen transformer, as timm or DINOv2's authors name them (they agree).

        Position codes of another image size are interpolated, see `resize_positions`.

        Raises:
            ModelError: tensors that are missing, left over or of another shape.
        """
        unused = [name for name in state if name == "mask_token" or name.startswith("head.")]
        used = {name: value.float() for name, value in state.items() if name not in unused}
        if "pos_embed" in used:
            prefix = 0 if self.backbone.no_embed_class else int(self.backbone.num_prefix_tokens)
            grid = _patch(self.backbone).grid_size or (0, 0)
            used["pos_embed"] = resize_positions(used["pos_embed"], grid, prefix)
        fill_exactly(self.backbone, used, self.settings.backbone)
        return unused


def resize_positions(positions: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """Position codes of a square grid of patches for another grid, interpolated as DINOv2's own networks do.

    They interpolate bicubically without antialiasing, and by a factor of (new + 0.1) / old instead of new / old; the
    tenth, once there against rounding, shifts the codes a little and belongs to the network as published.

    Args:
        positions: (1, prefix + N x N, C).
        grid: rows and columns wanted.
        prefix: codes in front that belong to no patch.

    Returns:
        (1, prefix + rows x columns, C).

    Raises:
        ModelError: no square grid.
    """

    def resize(codes: Tensor, size: tuple[int, int]) -> Tensor:
        factors = tuple((length + 0.1) / codes.shape[-1] for length in size)
        return F.interpolate(codes, scale_factor=factors, mode="bicubic", antialias=False)

    return regrid(positions, grid, resize, prefix=prefix)


def from_authors(state: dict[str, Tensor], name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Settings and backbone weights from an official DINOv2 checkpoint without registers.

    Args:
        state: with the authors' names; the 518 px of their position codes become the settings' image size in
            `Dinov2Cvv.load_backbone`.
        name: of the method.

    Returns:
        Settings that the tensors' shapes decide, and what `Dinov2Cvv.load_backbone` takes.

    Raises:
        ModelError: no DINOv2 checkpoint, by the first tensor that is missing or unknown.
    """
    block = r"(norm[12]\.(weight|bias)|attn\.(qkv|proj)\.(weight|bias)|mlp\.fc[12]\.(weight|bias)|ls[12]\.gamma)"
    known = re.compile(
        rf"(cls_token|pos_embed|mask_token|patch_embed\.proj\.(weight|bias)|norm\.(weight|bias)|blocks\.\d+\.{block})"
    )
    for required in ("cls_token", "pos_embed", "patch_embed.proj.weight", "blocks.0.norm1.weight"):
        if required not in state:
            found = ", ".join(list(state)[:3])
            raise ModelError(f"not a DINOv2 checkpoint for {name}", field="state_dict", found=found, expected=required)
    for tensor in state:
        if known.fullmatch(tensor) is None:
            message = f"not a DINOv2 checkpoint without registers, for {name}"
            raise ModelError(message, field="state_dict", found=tensor)
    width = int(state["cls_token"].shape[-1])
    depth = 1 + max(int(tensor.split(".")[1]) for tensor in state if tensor.startswith("blocks."))
    official = OFFICIAL.get((width, depth))
    settings: dict[str, Any] = {"head_heads": max(width // HEAD_CHANNELS, 1)}
    if official is None:
        settings |= {"width": width, "depth": depth, "heads": max(width // HEAD_CHANNELS, 1)}
    else:
        settings["backbone"] = official
    return settings, {tensor: value for tensor, value in state.items() if tensor != "mask_token"}


def _backbone(settings: Dinov2CvvSettings) -> VisionTransformer:
    if settings.image_size < 1:
        raise ModelError("not a size", field="image_size", found=settings.image_size, expected="at least one patch")
    shape = {"embed_dim": settings.width, "depth": settings.depth, "num_heads": settings.heads}
    chosen: dict[str, Any] = {key: value for key, value in shape.items() if value is not None}
    try:
        network = timm.create_model(settings.backbone, num_classes=0, img_size=settings.image_size, **chosen)
    except Exception as reason:
        # timm raises errors of its own, of Python and of torch, depending on what cannot be.
        found = settings.backbone
        raise ModelError(f"timm cannot build the backbone: {reason}", field="backbone", found=found) from reason
    if not isinstance(network, VisionTransformer):
        found = type(network).__name__
        raise ModelError("no vision transformer", field="backbone", found=found, expected="VisionTransformer")
    return network


def _patch(backbone: VisionTransformer) -> PatchEmbed:
    return cast(PatchEmbed, backbone.patch_embed)


def _mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def _check(settings: Dinov2CvvSettings, width: int, tokens: int) -> None:
    if settings.head_heads < 1 or width % settings.head_heads:
        found = settings.head_heads
        raise ModelError(
            "heads do not divide the width", field="head_heads", found=found, expected=f"to divide {width}"
        )
    if not 0 <= settings.token < tokens:
        raise ModelError("no such token", field="token", found=settings.token, expected=f"0 to {tokens - 1}")
    if settings.score not in get_args(Score):
        raise ModelError("no such score", field="score", found=settings.score, expected=" or ".join(get_args(Score)))
    for field in ("feedforward", "hidden", "descriptor_size"):
        if getattr(settings, field) < 1:
            raise ModelError("not a size", field=field, found=getattr(settings, field), expected="at least 1")
