"""Position embeddings of a transformer's patches, taken from one grid to another."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import torch
from torch import Tensor

from cvgl.errors import ModelError

__all__ = ["regrid"]


def regrid(
    positions: Tensor, grid: tuple[int, int], resize: Callable[[Tensor, tuple[int, int]], Tensor], *, prefix: int = 1
) -> Tensor:
    """Position embeddings of a square grid of patches for another grid; unchanged where it is the same.

    Public weights are of squares, so a square number of patches is taken as one. Any other number can only be that of
    the grid wanted, and stays too.

    Args:
        positions: (1, prefix + s * s, C), in the order of rows.
        grid: rows and columns wanted.
        resize: (1, C, s, s) float32 and the grid to (1, C, rows, columns); the methods' authors interpolate
            differently.
        prefix: embeddings in front that belong to no patch, such as the class token's.

    Returns:
        (1, prefix + rows * columns, C), of the type given.

    Raises:
        ModelError: no square grid to start from.
    """
    count = positions.shape[1] - prefix if positions.ndim == 3 and positions.shape[0] == 1 else -1
    side = isqrt(max(count, 0))
    square = side > 0 and side * side == count
    if grid == (side, side) or (not square and count == grid[0] * grid[1]):
        return positions
    if not square:
        raise ModelError(
            "not of a square grid of patches",
            field="pos_embed",
            found=tuple(positions.shape),
            expected=f"(1, {prefix} + s * s, channels)" if prefix else "(1, s * s, channels)",
        )
    spread = positions[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2).float()
    resized = resize(spread, grid).to(positions.dtype)
    return torch.cat([positions[:, :prefix], resized.flatten(2).transpose(1, 2)], 1)
