"""Image messages of the usual encodings become the SDK's BGR or grey images."""

from __future__ import annotations

import array

import numpy as np
import pytest

from cvgl.errors import FrameError
from cvgl_ros.images import image_from_fields

HEIGHT, WIDTH = 3, 5
BGR = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
OPAQUE = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)


@pytest.mark.parametrize("padding", [0, 7])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("bgr8", BGR, BGR),
        ("rgb8", BGR[..., ::-1], BGR),
        ("bgra8", np.concatenate([BGR, OPAQUE], axis=2), BGR),
        ("rgba8", np.concatenate([BGR[..., ::-1], OPAQUE], axis=2), BGR),
        ("mono8", BGR[..., 0], BGR[..., 0]),
    ],
)
def test_encodings(encoding: str, pixels: np.ndarray, expected: np.ndarray, padding: int) -> None:
    rows = np.ascontiguousarray(pixels).reshape(HEIGHT, -1)
    step = rows.shape[1] + padding
    data = array.array("B", np.pad(rows, ((0, 0), (0, padding))).tobytes())
    image = image_from_fields(encoding, HEIGHT, WIDTH, step, data)
    np.testing.assert_array_equal(image, expected)
    data[0] ^= 255
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("encoding", "step", "size", "message"),
    [
        ("16UC1", 10, 30, "encoding not supported.*16UC1"),
        ("bgr8", 14, 45, "sizes do not fit"),
        ("bgr8", 15, 44, "sizes do not fit"),
    ],
)
def test_unusable_messages_are_refused(encoding: str, step: int, size: int, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        image_from_fields(encoding, HEIGHT, WIDTH, step, bytes(size))
