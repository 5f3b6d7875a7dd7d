"""Feature recombination: the final features cut into regions that mean the same directions in both views, and pooled.

A north-up map cut in quadrants from the south-west clockwise (SW, NW, NE, SE) and a panorama whose centre looks north
cut in four strips from left to right name the same four directions in the same order (Zhang et al. 2024, "Aligning
Geometric Spatial Layout in Cross-View Geo-Localization via Feature Recombination", section 3.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from cvgl.errors import ModelError

__all__ = [
    "LAYOUTS",
    "Layout",
    "check_layout",
    "part_count",
    "recombine",
    "recombine_tokens",
    "region_index",
    "region_means",
    "token_map",
]

Layout = Literal["map", "panorama", "none"]
"""How a view is cut: a map in quadrants, a panorama in vertical strips, "none" in one region that is all of it."""

LAYOUTS: tuple[str, ...] = get_args(Layout)


def part_count(layout: Layout) -> int:
    """Number of regions: 4, or 1 for "none"."""
    return 1 if layout == "none" else 4


def check_layout(layout: str, grid: tuple[int, int], field: str) -> None:
    """See that a layout exists and that each of its regions has a cell.

    Args:
        layout: a name to be one of `LAYOUTS`.
        grid: height and width of the feature map, cells.
        field: the setting that holds it, for the message.

    Raises:
        ModelError: no such layout, or a feature map too small for it (a mean over nothing is not a number).
    """
    if layout not in LAYOUTS:
        raise ModelError("no such layout", field=field, found=layout, expected=" or ".join(LAYOUTS))
    least = {"map": (2, 2), "panorama": (1, 4), "none": (1, 1)}[layout]
    if grid[0] < least[0] or grid[1] < least[1]:
        raise ModelError(
            "feature map too small for the layout",
            field=field,
            found=f"{grid[0]} x {grid[1]} cells",
            expected=f"{least[0]} x {least[1]} or more for {layout!r}: use a larger image",
        )


def _cuts(grid: tuple[int, int], layout: Layout) -> list[tuple[slice, slice]]:
    """Rows and columns of each region; what does not divide evenly goes to the south and the east, as released."""
    height, width = grid
    everywhere = slice(0, height)
    if layout == "map":
        north, south = slice(0, height // 2), slice(height // 2, height)
        west, east = slice(0, width // 2), slice(width // 2, width)
        return [(south, west), (north, west), (north, east), (south, east)]
    if layout == "panorama":
        step = width // 4
        edges = [0, step, 2 * step, 3 * step, width]
        return [(everywhere, slice(edges[i], edges[i + 1])) for i in range(4)]
    return [(everywhere, slice(0, width))]


def region_means(features: Tensor, layout: Layout) -> Tensor:
    """Mean feature of each region.

    Args:
        features: (B, C, h, w), row 0 in the north of a map.
        layout: how to cut; an odd row or column in the middle goes to the south or the east.

    Returns:
        (B, P, C): of a map SW, NW, NE, SE; of a panorama from left to right.
    """
    cuts = _cuts((features.shape[-2], features.shape[-1]), layout)
    return torch.stack([features[:, :, rows, columns].mean((-2, -1)) for rows, columns in cuts], 1)


def region_index(grid: tuple[int, int], layout: Layout) -> Tensor:
    """(h, w) int64: the region each cell belongs to, numbered in the order of `region_means`."""
    index = torch.empty(grid, dtype=torch.int64)
    for number, (rows, columns) in enumerate(_cuts(grid, layout)):
        index[rows, columns] = number
    return index


def recombine(features: Tensor, layout: Layout, norm: Callable[[Tensor], Tensor]) -> Tensor:
    """The descriptor of a feature map: each region's mean, normalised by itself, one after the other.

    Args:
        features: (B, C, h, w) before the network's final norm.
        layout: how to cut.
        norm: over the last dimension; the same for every region.

    Returns:
        (B, P * C), not of unit length.
    """
    return norm(region_means(features, layout)).flatten(1)


def token_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, C) tokens in rows from the top left to a (B, C, h, w) feature map.

    Raises:
        ModelError: as many tokens as the grid has cells are wanted, without class tokens.
    """
    batch, count, channels = tokens.shape
    if count != grid[0] * grid[1]:
        raise ModelError("tokens do not fill the grid", field="tokens", found=count, expected=f"{grid[0]} x {grid[1]}")
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


def recombine_tokens(tokens: Tensor, grid: tuple[int, int], layout: Layout, norm: Callable[[Tensor], Tensor]) -> Tensor:
    """`recombine` for the patch tokens of a transformer.

    Args:
        tokens: (B, N, C) before the final norm, without class tokens.
        grid: height and width of what the tokens cover, tokens; N = height * width.
        layout, norm: as of `recombine`.

    Raises:
        ModelError: another number of tokens than the grid has.
    """
    return recombine(token_map(tokens, grid), layout, norm)
