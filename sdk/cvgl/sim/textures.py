"""Tileable noise fields and their sampling through a ground homography."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

_FINE_SIZE, _COARSE_SIZE = 2048, 1024


def noise_tile(
    rng: np.random.Generator, size: int, low_px: float, high_px: float, slope: float = 1.0
) -> NDArray[np.uint8]:
    """A tileable band-limited noise image (size, size) uint8, mean 128, standard deviation about 42.

    `low_px` and `high_px` are the shortest and longest wavelengths in pixels; `slope` the fall of amplitude
    with frequency (1: pink).
    """
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    band = np.where((f > 1 / high_px) & (f < 1 / low_px), np.maximum(f, 1 / size) ** -slope, 0)
    phase = rng.uniform(0, 2 * np.pi, band.shape)
    field = np.fft.irfft2(band * np.exp(1j * phase), s=(size, size))
    field /= field.std()
    return np.clip(128 + 42 * field, 0, 255).astype(np.uint8)


def pyramid(tile: NDArray[np.uint8], levels: int = 6) -> list[NDArray[np.uint8]]:
    """The tile at 1, 1/2, 1/4 ... of its resolution, wrap-around kept."""
    out = [tile]
    for _ in range(levels):
        last = out[-1]
        half = (last.shape[1] // 2, last.shape[0] // 2)
        out.append(np.asarray(cv2.resize(last, half, interpolation=cv2.INTER_AREA), np.uint8))
    return out


@lru_cache(maxsize=8)
def fine_noise(seed: int) -> tuple[NDArray[np.uint8], ...]:
    """Grain of one world: 0.1 m/px, wavelengths 0.2-12 m, repeated every 205 m.

    A place of bare ground is registered by it: grain that worlds shared was found on the map of another one.
    """
    return tuple(pyramid(noise_tile(np.random.default_rng([seed, 90210]), _FINE_SIZE, 2.0, 120.0, 0.75)))


@lru_cache(maxsize=16)
def coarse_noise(seed: int) -> tuple[NDArray[np.uint8], ...]:
    """Patchiness of one world: 1 m/px, wavelengths 3-300 m."""
    return tuple(pyramid(noise_tile(np.random.default_rng([seed, 17]), _COARSE_SIZE, 3.0, 300.0, 1.15)))


def sample(
    levels: tuple[NDArray[np.uint8], ...],
    metres_per_px: float,
    pixel_to_ground: NDArray[np.float64],
    size: tuple[int, int],
    gsd: float,
    turn: float = 0.0,
) -> NDArray[np.uint8]:
    """Noise seen through a homography.

    `pixel_to_ground` (3, 3) takes pixels to (east, north, 1) m; `size` = (width, height); the pyramid level
    is picked for `gsd` m/px so that distant noise averages out instead of aliasing.
    """
    level = int(np.clip(np.round(np.log2(max(gsd / metres_per_px, 1.0))), 0, len(levels) - 1))
    scale = 1.0 / (metres_per_px * 2**level)
    c, s = np.cos(turn), np.sin(turn)
    to_tile = np.array([[c * scale, -s * scale, 0], [s * scale, c * scale, 0], [0, 0, 1]])
    seen = cv2.warpPerspective(
        levels[level],
        to_tile @ pixel_to_ground,
        size,
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.asarray(seen, np.uint8)
