"""Gradient orientation as a complex field: what survives between a satellite image and a drone photo.

Brightness, colour and contrast change with sensor, sun and season; edges mostly stay, though a roof that was brighter
than the street may now be darker. So each pixel is the unit vector of its gradient at twice the angle, which forgets
the sign of the contrast, shortened where the gradient is weak. The correlation of two such fields is the real part of
a complex correlation (Fitch et al., "Orientation correlation", BMVC 2002, with the doubled angle).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["orientation_field"]

# Gradients (grey levels per pixel) of this size count half: below lie sensor noise and JPEG blocks.
_NOISE_LEVEL = 4.0
# An edge of the mask is no edge of the ground; the filters see this far (pixels).
_REACH = 3


def orientation_field(
    grey: NDArray[np.uint8], mask: NDArray[np.uint8] | None = None, sigma: float = 1.0
) -> NDArray[np.complex64]:
    """Doubled-angle orientation field.

    Args:
        grey: (H, W) uint8.
        mask: (H, W), nonzero where ``grey`` holds a picture; None for everywhere.
        sigma: of the Gaussian that smooths before the derivative, pixels.

    Returns:
        (H, W) complex64, magnitude below 1, zero outside the mask and within 3 pixels of its edge.
    """
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma)
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    magnitude = cv2.magnitude(gx, gy)
    weight = 1.0 / (magnitude * (magnitude + np.float32(_NOISE_LEVEL)) + np.float32(1e-9))
    if mask is not None:
        kernel = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
        inside = cv2.erode((mask > 0).astype(np.uint8), kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        weight *= inside
    field = np.empty(grey.shape, np.complex64)
    field.real = (gx * gx - gy * gy) * weight
    field.imag = (2 * gx * gy) * weight
    return field
