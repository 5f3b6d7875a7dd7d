"""From the field values of ROS image messages to the SDK's images, without cv_bridge and without conversion where the
SDK reads the layout as it is."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import FrameError

__all__ = ["image_from_fields", "image_from_file", "size_in_file", "to_bgr"]

Image = NDArray[np.uint8]


def _convert(code: int) -> Callable[[Image], Image]:
    return lambda image: np.asarray(cv2.cvtColor(image, code), dtype=np.uint8)


# Encodings that the SDK reads as they are: bytes of a pixel, and the SDK's name.
_AS_THEY_ARE = {
    "mono8": (1, "grey"),
    "8UC1": (1, "grey"),
    "bgr8": (3, "bgr"),
    "8UC3": (3, "bgr"),
    "rgb8": (3, "rgb"),
    "yuv422_yuy2": (2, "yuyv"),
    "yuyv": (2, "yuyv"),
    "nv12": (1, "nv12"),
}
# The others: bytes of a pixel, and what makes BGR of them. OpenCV names a Bayer pattern by its second row and column,
# ROS by its first.
_CONVERTED: dict[str, tuple[int, Callable[[Image], Image]]] = {
    "bgra8": (4, _convert(cv2.COLOR_BGRA2BGR)),
    "rgba8": (4, _convert(cv2.COLOR_RGBA2BGR)),
    "yuv422": (2, _convert(cv2.COLOR_YUV2BGR_UYVY)),
    "uyvy": (2, _convert(cv2.COLOR_YUV2BGR_UYVY)),
    "bayer_rggb8": (1, _convert(cv2.COLOR_BayerBG2BGR)),
    "bayer_bggr8": (1, _convert(cv2.COLOR_BayerRG2BGR)),
    "bayer_gbrg8": (1, _convert(cv2.COLOR_BayerGR2BGR)),
    "bayer_grbg8": (1, _convert(cv2.COLOR_BayerGB2BGR)),
}
_TO_BGR = {
    "rgb": _convert(cv2.COLOR_RGB2BGR),
    "yuyv": _convert(cv2.COLOR_YUV2BGR_YUY2),
    "nv12": _convert(cv2.COLOR_YUV2BGR_NV12),
}
# A JPEG's start-of-frame markers, which are followed by its size; C4, C8 and CC mean other things.
_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}


def image_from_fields(
    encoding: str, height: int, width: int, step: int, data: Any, most_pixels: float = float("inf")
) -> tuple[Image, str]:
    """The image of a message and its layout (see :class:`cvgl.Frame`); a copy that may outlive ``data``.

    Layouts that the SDK reads are passed on as they are, the others become BGR.

    Args:
        encoding: a ROS name of 8-bit grey, colour, YUV or Bayer images.
        height, width: pixels.
        step: bytes from one row to the next, padding included.
        data: ``step * height`` bytes, half as many again for nv12: bytes, an array, or whatever has a buffer.
        most_pixels: larger images are refused.

    Raises:
        FrameError: another encoding, or sizes that do not fit each other.
    """
    known = {name: size for name, (size, _) in (*_AS_THEY_ARE.items(), *_CONVERTED.items())}
    if encoding not in known:
        raise FrameError(
            "encoding not supported", field="image.encoding", found=encoding[:40], expected=", ".join(known)
        )
    _check_size(width, height, most_pixels)
    size = known[encoding]
    flat = np.frombuffer(data, dtype=np.uint8)
    pairs = size == 2 or encoding.startswith("bayer") or encoding == "nv12"
    # nv12 has its colours below, at half the resolution.
    lines = height * 3 // 2 if encoding == "nv12" else height
    odd = (pairs and (width % 2 or width < 4 or height < 4)) or (encoding == "nv12" and height % 2)
    if step < width * size or flat.size < step * lines or odd:
        raise FrameError(
            "sizes do not fit each other",
            field="image",
            found=f"{width} x {height} {encoding}, step {step}, {flat.size} bytes",
            expected="step >= width * channels and step bytes for every row",
        )
    rows = flat[: step * lines].reshape(lines, step)[:, : width * size]
    shaped = rows if size == 1 else rows.reshape(lines, width, size)
    if encoding in _CONVERTED:
        return _CONVERTED[encoding][1](shaped), "bgr"
    return shaped.copy(), _AS_THEY_ARE[encoding][1]


def to_bgr(image: Image, pixels: str) -> Image:
    """(H, W, 3) BGR, or (H, W) grey as it is, of an image in one of the SDK's layouts."""
    return _TO_BGR[pixels](image) if pixels in _TO_BGR else image


def image_from_file(data: Any, most_pixels: float = float("inf")) -> Image:
    """The image of a JPEG or PNG file as (H, W, 3) BGR or (H, W) grey, uint8. Orientation marks are not applied: the
    camera's intrinsics belong to the pixels as they are stored.

    Raises:
        FrameError: no such file, damaged, or larger than ``most_pixels`` (told before it is decoded).
    """
    width, height = size_in_file(data)
    _check_size(width, height, most_pixels)
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    except cv2.error as reason:
        raise FrameError(f"not decodable: {reason.err}", field="image.data") from reason
    if image is None or image.shape[:2] != (height, width):
        raise FrameError("not decodable", field="image.data", found=f"{len(memoryview(data))} bytes")
    return np.asarray(image, dtype=np.uint8)


def size_in_file(data: Any) -> tuple[int, int]:
    """Width and height that a JPEG or PNG file states, read without decoding it.

    Raises:
        FrameError: neither of the two, or cut off before the size.
    """
    view = memoryview(data).cast("B")
    try:
        if bytes(view[:8]) == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack(">II", view[16:24])
            return width, height
        if bytes(view[:2]) == b"\xff\xd8":
            return _jpeg_size(view)
    except (struct.error, IndexError):
        raise FrameError("cut off", field="image.data", found=f"{len(view)} bytes") from None
    raise FrameError("neither JPEG nor PNG", field="image.data", found=bytes(view[:4]).hex())


def _jpeg_size(view: memoryview) -> tuple[int, int]:
    at = 2
    while True:
        if view[at] != 0xFF:
            raise FrameError("not a JPEG", field="image.data", found=f"no marker at byte {at}")
        marker = view[at + 1]
        if marker == 0xFF:  # fill
            at += 1
        elif marker in _JPEG_SIZES:
            height, width = struct.unpack(">HH", view[at + 5 : at + 9])
            return width, height
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # without a length
            at += 2
        else:
            (length,) = struct.unpack(">H", view[at + 2 : at + 4])
            at += 2 + max(2, length)


def _check_size(width: int, height: int, most_pixels: float) -> None:
    if width < 1 or height < 1:
        raise FrameError("sizes do not fit each other", field="image", found=f"{width} x {height}", expected="pixels")
    if width * height > most_pixels:
        raise FrameError("too large", field="image", found=f"{width} x {height}", expected=f"{most_pixels:g} pixels")
