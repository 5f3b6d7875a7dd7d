"""What lens, sensor and file format do to a picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .appearance import Appearance

Image = NDArray[np.uint8]


def develop(image: Image, a: Appearance) -> Image:
    """Colour cast, saturation, exposure, contrast, gamma and haze of a BGR uint8 image."""
    level = np.linspace(0, 1, 256)
    tables = []
    for gain, air in zip(a.cast[::-1], (0.80, 0.76, 0.72), strict=True):
        x = np.clip(level * gain * a.exposure, 0, 1.5)
        x = 0.45 + (x - 0.45) * a.contrast
        x = np.clip(x, 0, None)
        x = np.where(x > 0.8, 0.8 + 0.2 * np.tanh((x - 0.8) / 0.2), x) ** a.gamma
        x = x * (1 - a.haze) + air * a.haze
        tables.append(np.clip(255 * x, 0, 255))
    out = cv2.LUT(image, np.stack(tables, axis=1).astype(np.uint8)[:, None, :].reshape(256, 1, 3))
    s = a.saturation
    if abs(s - 1) > 1e-3:
        grey = np.array([0.114, 0.587, 0.299]) * (1 - s)
        out = cv2.transform(out, (s * np.eye(3) + np.tile(grey, (3, 1))).astype(np.float32))
    return np.asarray(out, np.uint8)


def expose(image: Image, a: Appearance, rng: np.random.Generator) -> Image:
    """Blur, sharpening halo, vignetting, noise and file loss of a BGR uint8 image."""
    height, width = image.shape[:2]
    if a.blur_px > 0.25:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), a.blur_px), np.uint8)
    if a.sharpen > 0.05:
        image = np.asarray(
            cv2.addWeighted(image, 1 + a.sharpen, cv2.GaussianBlur(image, (0, 0), 1.2), -a.sharpen, 0),
            np.uint8,
        )
    if a.vignetting > 0.02:
        x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] * np.float32(height / width)
        fall = (255 * (1 - a.vignetting * (x * x + y * y) / (1 + (height / width) ** 2))).astype(np.uint8)
        image = np.asarray(cv2.multiply(image, cv2.merge([fall, fall, fall]), scale=1 / 255), np.uint8)
    if a.noise > 0.1:
        grain = rng.standard_normal((height, width), dtype=np.float32) * a.noise
        half = (height // 2 + 1, width // 2 + 1)
        colour = rng.standard_normal((*half, 3), dtype=np.float32) * (0.6 * a.noise)
        noise = cv2.resize(colour, (width, height), interpolation=cv2.INTER_LINEAR) + grain[..., None]
        image = np.asarray(cv2.add(image, noise, dtype=cv2.CV_8U), np.uint8)
    if a.jpeg_quality:
        image = np.asarray(
            cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, a.jpeg_quality])[1], cv2.IMREAD_COLOR),
            np.uint8,
        )
    return image
