"""Image messages of the usual encodings, raw and compressed, become images that the SDK reads."""

from __future__ import annotations

import array
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl.errors import FrameError
from cvgl.frame import Frame
from cvgl.ros.images import image_from_fields, image_from_file, size_in_file, to_bgr

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
    image = to_bgr(*image_from_fields(encoding, HEIGHT, WIDTH, step, data))
    np.testing.assert_array_equal(image, expected)
    data[0] ^= 255
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("encoding", "step", "size", "message"),
    [
        ("16UC1", 10, 30, "encoding not supported.*16UC1"),
        ("bgr8", 14, 45, "sizes do not fit"),
        ("bgr8", 15, 44, "sizes do not fit"),
        ("bayer_rggb8", 5, 15, "sizes do not fit"),  # an odd width has no pattern
        ("x" * 10_000, 10, 30, "encoding not supported"),
    ],
)
def test_unusable_messages_are_refused(encoding: str, step: int, size: int, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        image_from_fields(encoding, HEIGHT, WIDTH, step, bytes(size))


SMOOTH = cv2.resize(np.random.default_rng(1).integers(0, 256, (4, 6, 3), dtype=np.uint8), (48, 32))


@pytest.mark.parametrize(
    ("encoding", "red_at"),
    [("bayer_rggb8", (0, 0)), ("bayer_bggr8", (1, 1)), ("bayer_gbrg8", (1, 0)), ("bayer_grbg8", (0, 1))],
)
def test_bayer_patterns_by_where_their_red_is(encoding: str, red_at: tuple[int, int]) -> None:
    mosaic = np.empty(SMOOTH.shape[:2], np.uint8)
    mosaic[:] = SMOOTH[..., 1]
    row, column = red_at
    mosaic[row::2, column::2] = SMOOTH[row::2, column::2, 2]
    mosaic[1 - row :: 2, 1 - column :: 2] = SMOOTH[1 - row :: 2, 1 - column :: 2, 0]
    image = to_bgr(*image_from_fields(encoding, 32, 48, 48, mosaic.tobytes()))
    inner = np.abs(image.astype(int) - SMOOTH)[2:-2, 2:-2]
    assert inner.mean() < 6


@pytest.mark.parametrize(("encoding", "luma"), [("yuv422_yuy2", 0), ("yuyv", 0), ("yuv422", 1), ("uyvy", 1)])
def test_packed_yuv_by_where_its_luma_is(encoding: str, luma: int) -> None:
    packed = np.full((4, 8, 2), 128, np.uint8)
    packed[..., luma] = 180
    image = to_bgr(*image_from_fields(encoding, 4, 8, 16, packed.tobytes()))
    assert image.shape == (4, 8, 3)
    assert np.ptp(image) == 0 and image[0, 0, 0] > 180  # grey; video range is stretched


def test_an_image_larger_than_allowed_is_refused_before_it_is_touched() -> None:
    with pytest.raises(FrameError, match="too large"):
        image_from_fields("mono8", 2**31, 2**31, 2**31, b"", most_pixels=1e6)


@pytest.mark.parametrize("extension", [".jpg", ".png"])
@pytest.mark.parametrize("grey", [False, True])
def test_files(extension: str, grey: bool) -> None:
    source = SMOOTH[..., 0] if grey else SMOOTH
    data = memoryview(cv2.imencode(extension, source, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes())
    assert size_in_file(data) == (48, 32)
    image = image_from_file(data)
    assert image.shape == source.shape
    assert np.abs(image.astype(int) - source).mean() < 4


def bomb() -> bytes:
    """A small PNG that states 60 000 x 60 000 pixels."""
    data = bytearray(cv2.imencode(".png", SMOOTH)[1].tobytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither JPEG nor PNG"),
        (b"GIF89a" + bytes(20), "neither JPEG nor PNG"),
        (b"\xff\xd8", "cut off"),
        (b"\xff\xd8\x00\x00", "not a JPEG"),
        (b"\xff\xd8\xff\xe0\xff\xff", "cut off"),
        (b"\x89PNG\r\n\x1a\n", "cut off"),
        (cv2.imencode(".png", SMOOTH)[1].tobytes()[:60], "not decodable"),
        (bomb(), "too large"),
    ],
)
def test_files_that_are_none_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(FrameError, match=message):
        image_from_file(data, most_pixels=1e6)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([".jpg", ".png"]), st.data())
def test_damaged_files_do_no_harm(extension: str, data: st.DataObject) -> None:
    raw = bytearray(cv2.imencode(extension, SMOOTH)[1].tobytes())
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = image_from_file(bytes(raw[: data.draw(st.integers(0, len(raw)))]), most_pixels=1e6)
        assert image.dtype == np.uint8
    except FrameError:
        pass


@pytest.mark.parametrize(
    ("encoding", "pixels", "channels"),
    [("mono8", "grey", 1), ("bgr8", "bgr", 3), ("rgb8", "rgb", 3), ("yuv422_yuy2", "yuyv", 2), ("yuyv", "yuyv", 2)],
)
def test_layouts_that_the_sdk_reads_are_passed_on_as_they_are(encoding: str, pixels: str, channels: int) -> None:
    bytes_in = np.random.default_rng(2).integers(0, 256, (4, 8 * channels), dtype=np.uint8)
    image, layout = image_from_fields(encoding, 4, 8, 8 * channels, bytes_in.tobytes())
    assert layout == pixels
    np.testing.assert_array_equal(image.reshape(4, -1), bytes_in)


@pytest.mark.parametrize("padding", [0, 6])
def test_nv12_has_its_colours_below(padding: int) -> None:
    rows = np.random.default_rng(3).integers(0, 256, (24, 32), dtype=np.uint8)
    padded = np.pad(rows, ((0, 0), (0, padding)))
    image, layout = image_from_fields("nv12", 16, 32, 32 + padding, padded.tobytes())
    assert layout == "nv12"
    np.testing.assert_array_equal(image, rows)
    Frame(image=image, time=0.0, height=50.0, pixels=layout).check()
    assert to_bgr(image, layout).shape == (16, 32, 3)


@pytest.mark.parametrize(("height", "width", "size"), [(15, 32, 32 * 24), (16, 31, 32 * 24), (16, 32, 32 * 23)])
def test_nv12_of_odd_or_short_sizes_is_refused(height: int, width: int, size: int) -> None:
    with pytest.raises(FrameError, match="sizes do not fit"):
        image_from_fields("nv12", height, width, 32, bytes(size))
