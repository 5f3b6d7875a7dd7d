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

from cvgl.native import orientation

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
        (H, W) complex64, magnitude below 1, zero outside the mask, within 3 pixels of its edge, and on the
            image's outermost pixels.
    """
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), sigma)
    if mask is None:
        inside = np.ones(grey.shape, np.uint8)
    else:
        kernel = np.ones((2 * _REACH + 1, 2 * _REACH + 1), np.uint8)
        inside = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return orientation(smooth, inside, _NOISE_LEVEL)
