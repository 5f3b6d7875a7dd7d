"""From the field values of ``sensor_msgs/Image`` to the SDK's image, without cv_bridge."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import FrameError

__all__ = ["image_from_fields"]

Image = NDArray[np.uint8]


def _convert(code: int) -> Callable[[Image], Image]:
    return lambda image: np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)


# Encoding -> channels, and what makes BGR or grey of them.
_ENCODINGS: dict[str, tuple[int, Callable[[Image], Image]]] = {
    "mono8": (1, np.ascontiguousarray),
    "bgr8": (3, np.ascontiguousarray),
    "rgb8": (3, _convert(cv2.COLOR_RGB2BGR)),
    "bgra8": (4, _convert(cv2.COLOR_BGRA2BGR)),
    "rgba8": (4, _convert(cv2.COLOR_RGBA2BGR)),
}


def image_from_fields(encoding: str, height: int, width: int, step: int, data: Any) -> Image:
    """The image of a message as (H, W, 3) BGR or (H, W) grey, uint8; a copy that may outlive ``data``.

    Args:
        encoding: mono8, bgr8, rgb8, bgra8 or rgba8.
        height, width: pixels.
        step: bytes from one row to the next, padding included.
        data: ``step * height`` bytes: bytes, an array, or whatever has a buffer.

    Raises:
        FrameError: another encoding, or sizes that do not fit each other.
    """
    if encoding not in _ENCODINGS:
        raise FrameError(
            "encoding not supported", field="image.encoding", found=encoding, expected=", ".join(_ENCODINGS)
        )
    channels, convert = _ENCODINGS[encoding]
    flat = np.frombuffer(data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or flat.size < step * height:
        raise FrameError(
            "sizes do not fit each other",
            field="image",
            found=f"{width} x {height} {encoding}, step {step}, {flat.size} bytes",
            expected="step >= width * channels and step * height bytes",
        )
    rows = flat[: step * height].reshape(height, step)[:, : width * channels]
    shaped = rows if channels == 1 else rows.reshape(height, width, channels)
    image = convert(shaped)
    return image.copy() if np.shares_memory(image, flat) else image
