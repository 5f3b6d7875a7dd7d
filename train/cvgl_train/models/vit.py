"""The vision transformer that FSRA stands on: timm's first "small" one, which no longer exists there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from timm.layers import DropPath, Mlp
from torch import Tensor, nn

from cvgl.errors import ModelError

from ..weights import fill_exactly
from .positions import regrid

__all__ = ["PATCH", "VisionTransformer", "resize_positions"]

PATCH = 16
"""Side of the square of pixels that becomes one token."""

# The authors' value; PyTorch's own default is ten times as large.
_EPSILON = 1e-6


class VisionTransformer(nn.Module):
    """(B, 3, H, W) normalised images to (B, 1 + N, C) tokens after the last LayerNorm: class token first, then rows.

    Dosovitskiy et al. 2021 with three peculiarities of timm's first "small" model, whose weights FSRA starts from:
    no biases of queries, keys and values; an MLP of three times the width; attention scaled by the root of the whole
    width, not of one head's. Module names are timm's, so that public weights fit.

    Args:
        height, width: of the images, pixels; multiples of 16.
        channels: C.
        depth: blocks.
        heads: of the attention; divides `channels`.
        mlp_ratio: hidden units of an MLP over `channels`.
        drop_path: chance that a residual branch of the last block is left out in training (stochastic depth); it
            rises linearly from 0 in the first.

    Raises:
        ModelError: settings that cannot be.
    """

    def __init__(
        self, height: int, width: int, channels: int, depth: int, heads: int, mlp_ratio: float, drop_path: float
    ) -> None:
        super().__init__()
        if min(height, width) < PATCH or height % PATCH or width % PATCH:
            found = (height, width)
            raise ModelError("not a size", field="image_size", found=found, expected=f"multiples of {PATCH}")
        if depth < 1:
            raise ModelError("no blocks", field="depth", found=depth, expected="1 or more")
        if heads < 1 or channels % heads:
            raise ModelError(
                "heads do not divide the width", field="heads", found=heads, expected=f"to divide {channels}"
            )
        if not 0 <= drop_path < 1:
            raise ModelError("not a chance", field="drop_path", found=drop_path, expected="0 <= drop_path < 1")
        self.grid = (height // PATCH, width // PATCH)
        self.patch_embed = _PatchEmbedding(channels)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], channels))
        chances = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.ModuleList(_Block(channels, heads, round(channels * mlp_ratio), chance) for chance in chances)
        self.norm = nn.LayerNorm(channels, eps=_EPSILON)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: Tensor) -> Tensor:
        patches = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(images.shape[0], -1, -1), patches], 1) + self.pos_embed
        for block in self.blocks:
            tokens = block(tokens)
        return self.norm(tokens)

    def load(self, state: dict[str, Tensor]) -> list[str]:
        """Fill from pretrained weights with timm's names; positions are resized to this grid.

        Returns:
            Names that were not used: the classifier of another task.

        Raises:
            ModelError: a tensor is missing or of another shape, or positions that are no square grid.
        """
        own = self.state_dict()
        used = {name: value for name, value in state.items() if name in own}
        if "pos_embed" in used:
            used["pos_embed"] = resize_positions(used["pos_embed"], self.grid)
        kernel = used.get("patch_embed.proj.weight")
        if kernel is not None and kernel.ndim == 2 and kernel.shape[1] == 3 * PATCH * PATCH:
            # The first weights were published when this was a linear layer over flattened patches.
            used["patch_embed.proj.weight"] = kernel.reshape(-1, 3, PATCH, PATCH)
        fill_exactly(self, used, "the transformer")
        return sorted(state.keys() - own.keys())


class _PatchEmbedding(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, PATCH, PATCH)
        nn.init.kaiming_normal_(self.proj.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> Tensor:
        return self.proj(images).flatten(2).transpose(1, 2)


class _Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = channels**-0.5
        self.qkv = nn.Linear(channels, 3 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, count, channels = tokens.shape
        qkv = self.qkv(tokens).reshape(batch, count, 3, self.heads, channels // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        mixed = F.scaled_dot_product_attention(query, key, value, scale=self.scale)
        return self.proj(mixed.transpose(1, 2).reshape(batch, count, channels))


class _Block(nn.Module):
    def __init__(self, channels: int, heads: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPSILON)
        self.attn = _Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels, eps=_EPSILON)
        self.mlp = Mlp(channels, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens)))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens)))


def resize_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """(1, 1 + s * s, C) position embeddings for another grid of patches, bilinear as FSRA's authors resize them.

    Raises:
        ModelError: as `regrid`.
    """
    return regrid(positions, grid, lambda spread, size: F.interpolate(spread, size, mode="bilinear"))
