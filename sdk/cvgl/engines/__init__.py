"""What runs a network: one module per runtime, all with the same small face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["Engine", "FrameEngine", "RawFrame"]


@dataclass(frozen=True)
class RawFrame:
    """A raw frame, and how the network wants to see it.

    Args:
        image, pixels: as :class:`cvgl.frame.Frame` has them; "grey" for two dimensions.
        maps: (B, 3, 3) float64, from the pixels of the network's input to ideal camera coordinates.
        intrinsics: fx, fy, cx, cy of the image, pixels.
        distortion: 0, 4, 5 or 8 coefficients of a pinhole, 0 or 4 of a fisheye, OpenCV's order.
        scale, offset: (3,) by channel: the network sees grey * scale + offset of grey levels 0 to 255.
        channels: the order that the network takes them in, "rgb" or "bgr".
        lens, slant: as :func:`cvgl.native.rectify` takes them.
    """

    image: NDArray[np.uint8]
    pixels: str
    maps: NDArray[np.float64]
    intrinsics: tuple[float, float, float, float]
    distortion: Sequence[float]
    scale: Sequence[float]
    offset: Sequence[float]
    channels: str = "rgb"
    lens: str = "pinhole"
    slant: float = inf


class Engine(Protocol):
    """A network ready to run.

    Attributes:
        description: the runtime and where it runs, for people.
        input_size: (height, width) in pixels.
        descriptor_size: length of one descriptor.
        batch: the batch size that the network insists on; None where any will do.
    """

    description: str
    input_size: tuple[int, int]
    descriptor_size: int
    batch: int | None

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, H, W) normalised RGB to (B, D) descriptors, not necessarily of unit length."""
        ...


@runtime_checkable
class FrameEngine(Engine, Protocol):
    """An engine that can make its input itself, where it runs.

    Attributes:
        takes_frames: whether it can here.
    """

    takes_frames: bool

    def run_frame(self, frame: RawFrame) -> NDArray[np.float32]:
        """Descriptors (B, D) of a raw frame under its B maps; only where ``takes_frames``."""
        ...
