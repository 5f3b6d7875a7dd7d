"""Queries made of tiles where there is nothing else to make them of."""

from __future__ import annotations

import math

import cv2
import numpy as np

from .tiles import Images

__all__ = ["disturbed"]


def disturbed(image: Images, rng: np.random.Generator) -> Images:
    """What another camera on another day might have made of a tile: (H, W, 3) uint8, as large as the image.

    Turned by up to 5 degrees, scaled by up to 8 %, shifted by up to 6 %; another exposure, contrast and colour cast;
    sometimes blurred; noisy.
    """
    height, width = image.shape[:2]
    centre = ((width - 1) / 2, (height - 1) / 2)
    matrix = cv2.getRotationMatrix2D(centre, float(rng.uniform(-5, 5)), float(np.exp(rng.uniform(-0.08, 0.08))))
    matrix[:, 2] += rng.uniform(-0.06, 0.06, 2) * (width, height)
    moved = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
    gain = math.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.04, 3))
    contrast, brightness = math.exp(rng.normal(0, 0.12)), float(rng.normal(0, 10))
    blur, noise = float(rng.uniform(0, 1.2)), float(rng.uniform(0, 8))
    values = (moved.astype(np.float32) * gain.astype(np.float32) - 110) * contrast + 110 + brightness
    if blur > 0.4:
        values = cv2.GaussianBlur(values, (0, 0), blur)
    values += noise * rng.standard_normal(values.shape, np.float32)
    return np.clip(np.round(values), 0, 255).astype(np.uint8)
