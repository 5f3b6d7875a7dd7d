"""Gradient orientation as a complex field: what survives between a satellite image and a drone photo.

Brightness, colour and contrast change with sensor, sun and season; edges mostly stay, though a roof that was brighter
than the street may now be darker. So each pixel is the unit vector of its gradient at twice the angle, which forgets
the sign of the contrast, shortened where the gradient is weak. The correlation of two such fields is the real part of
a complex correlation (Fitch et al., "Orientation correlation", BMVC 2002, with the doubled angle).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import TiledPixels
from cvgl.native import ground_field, orientation

__all__ = ["NOISE_LEVEL", "SIGMA_PX", "map_field", "map_site", "orientation_field"]

NOISE_LEVEL = 4.0
"""Gradients (grey levels per pixel) of this size count half: below lie sensor noise and JPEG blocks."""
SIGMA_PX = 1.0
"""Of the Gaussian that smooths before the derivative, pixels."""


def orientation_field(
    grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None, sigma: float = SIGMA_PX
) -> NDArray[np.complex64]:
    """Doubled-angle orientation field.

    Args:
        grey: (H, W) uint8.
        mask: (H, W), nonzero where ``grey`` holds a picture; None for everywhere.
        sigma: of the Gaussian that smooths before the derivative, pixels.

    Returns:
        (H, W) complex64, magnitude below 1, zero outside the mask, within 3 pixels of its edge, and on the
            image's outermost pixels.
    """
    return orientation(grey, mask, sigma, NOISE_LEVEL)


def map_field(
    pixels: NDArray[np.uint8] | TiledPixels, left: int, top: int, side: int, reduction: int
) -> tuple[NDArray[np.complex64], NDArray[np.uint8] | None]:
    """Doubled-angle orientation field of a square window of a map, at a whole multiple of its GSD.

    Args:
        pixels: (H, W) uint8, 0 where there is no data; of a basemap.
        left, top: column and row of the window's first pixel, which may lie outside the map.
        side: of the field, reduced pixels.
        reduction: 1 to 3; a reduced pixel is known where all of its pixels are.

    Returns:
        The field (side, side), and where it is known (side, side), 255 or 0; None for everywhere. As with a mask, the
        field is zero near what is not known.
    """
    site = map_site(pixels, left, top, side * reduction)
    return ground_field(*site, side, side, reduction, SIGMA_PX, NOISE_LEVEL)


def map_site(
    pixels: NDArray[np.uint8] | TiledPixels, left: int, top: int, side: int
) -> tuple[NDArray[np.uint8] | list[list[NDArray[np.uint8] | None]], int, int]:
    """What the native core reads a square window of a map from.

    Args:
        pixels: (H, W) uint8, 0 where there is no data; of a basemap.
        left, top: column and row of the window's first pixel, which may lie outside the map.
        side: of the window, pixels.

    Returns:
        The map or the tiles that the window touches, and column and row of the window's first pixel in them.
    """
    if not isinstance(pixels, TiledPixels):
        return pixels, left, top
    column, row, tiles = pixels.cover(left, top, side, side)
    return tiles, left - column, top - row
