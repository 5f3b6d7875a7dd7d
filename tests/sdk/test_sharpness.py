"""Blur is told from what is left of the finest detail, not from contrast."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from cvgl.sharpness import sharpness


def smeared(image: np.ndarray, pixels: int, turn_deg: float) -> np.ndarray:
    """Motion of so many pixels in a direction."""
    kernel = np.zeros((pixels, pixels), np.float32)
    kernel[pixels // 2] = 1.0
    turn = cv2.getRotationMatrix2D(((pixels - 1) / 2, (pixels - 1) / 2), turn_deg, 1.0)
    kernel = cv2.warpAffine(kernel, turn, (pixels, pixels))
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()))


@pytest.mark.parametrize("turn_deg", [0.0, 45.0, 90.0, 120.0])
def test_motion_takes_sharpness_in_any_direction(place: Any, turn_deg: float) -> None:
    grey = place.basemap.pixels
    values = [sharpness(grey), *(sharpness(smeared(grey, pixels, turn_deg)) for pixels in (5, 9, 15))]
    assert values == sorted(values, reverse=True)
    assert values[2] < 0.6 * values[0]


def test_contrast_and_brightness_take_none(place: Any) -> None:
    grey = place.basemap.pixels
    weak = (grey * 0.4 + 90).astype(np.uint8)
    assert sharpness(weak) == pytest.approx(sharpness(grey), rel=0.05)


def test_what_is_not_seen_does_not_count(place: Any) -> None:
    grey = place.basemap.pixels.copy()
    mask = np.full_like(grey, 255)
    grey[:, :200] = np.random.default_rng(0).integers(1, 255, (len(grey), 200))
    mask[:, :200] = 0
    assert sharpness(grey, mask) == pytest.approx(sharpness(place.basemap.pixels[:, 200:]), rel=1e-6)
    assert np.isnan(sharpness(grey, np.zeros_like(mask)))
