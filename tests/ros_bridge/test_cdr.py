"""The bytes of every message are those of the rosbags library, which takes its definitions from ROS itself."""

from __future__ import annotations

import contextlib
import math
import struct
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cvgl_ros import msgs
from cvgl_ros.cdr import MAX_STRING, MessageError, decode, encode, fields_of
from cvgl_ros.msgs import Array, Message, Unbounded

CLASSES = [getattr(msgs, name) for name in msgs.__all__]
CLASSES = [c for c in CLASSES if isinstance(c, type) and issubclass(c, Message) and c is not Message]
# rosbags has bytes signed and ROS has them unsigned; in what both hold the bits are the same.
INTEGERS = {"int8": (-(2**7), 2**7), "int32": (-(2**31), 2**31), "int64": (-(2**63), 2**63), "byte": (0, 2**7)}
INTEGERS |= {f"uint{bits}": (0, 2**bits) for bits in (8, 16, 32, 64)}
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


def values(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, Array):
        return st.lists(values(kind.element), min_size=kind.length, max_size=kind.length).map(tuple)
    if isinstance(kind, Unbounded):
        if kind.element == "uint8":
            return st.binary(max_size=20)
        return st.lists(values(kind.element), max_size=5).map(tuple)
    if isinstance(kind, list):
        return st.lists(messages(kind[0]), max_size=3)
    if isinstance(kind, type):
        return messages(kind)
    if kind == "string":
        return TEXT
    if kind == "bool":
        return st.booleans()
    if kind.startswith("float"):
        return st.floats(width=int(kind[5:]), allow_nan=False)
    low, high = INTEGERS[kind]
    return st.integers(low, high - 1)


def messages(cls: type[Message]) -> st.SearchStrategy[Message]:
    return st.builds(cls, **{name: values(kind) for name, kind in fields_of(cls)})


def in_rosbags(message: Message, distro: str, peer: ModuleType) -> Any:
    """The same message in rosbags' class."""
    made: dict[str, Any] = {}
    for name, kind in fields_of(type(message)):
        value = getattr(message, name)
        if isinstance(kind, (Array, Unbounded)):
            plain = np.frombuffer(value, np.uint8) if kind.element == "uint8" else value
            value = np.array(plain, dtype=kind.element)
        elif isinstance(kind, list):
            value = [in_rosbags(item, distro, peer) for item in value]
        elif isinstance(kind, type):
            value = in_rosbags(value, distro, peer)
        made[name] = value
    return peer.store(distro).types[peer.known(message.ros_name)](**made)


def of_distros(cls: type[Message]) -> tuple[str, ...]:
    return {
        msgs.Range: ("ROS2_HUMBLE",),
        msgs.RangeWithVariance: ("ROS2_JAZZY",),
    }.get(cls, ("ROS2_HUMBLE", "ROS2_JAZZY"))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_bytes_are_those_of_rosbags(cls: type[Message], peer_module: ModuleType) -> None:
    @settings(max_examples=25, deadline=None)
    @given(messages(cls))
    def check(message: Message) -> None:
        ours = encode(message)
        for distro in of_distros(cls):
            theirs = bytes(
                peer_module.store(distro).serialize_cdr(
                    in_rosbags(message, distro, peer_module), peer_module.known(cls.ros_name)
                )
            )
            assert ours.ljust(len(theirs), b"\0") == theirs  # rosbags fills up to four bytes
            assert len(theirs) - len(ours) < 4
            assert decode(cls, theirs) == message

    check()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_field_names_and_their_order_are_those_of_ros(cls: type[Message], peer_module: ModuleType) -> None:
    for distro in of_distros(cls):
        definition = peer_module.store(distro).fielddefs[peer_module.known(cls.ros_name)][1]
        assert [name for name, _ in fields_of(cls)] == [name for name, _ in definition]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_damaged_bytes_are_refused_or_read_but_do_no_harm(cls: type[Message]) -> None:
    @settings(max_examples=40, deadline=None)
    @given(messages(cls), st.data())
    def check(message: Message, data: st.DataObject) -> None:
        raw = bytearray(encode(message))
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        raw = raw[: data.draw(st.integers(0, len(raw)))]
        with contextlib.suppress(MessageError):
            decode(cls, bytes(raw))

    check()


def test_big_endian_is_read_as_well() -> None:
    raw = b"\x00\x00\x00\x00" + struct.pack(">iI", -5, 7)
    assert decode(msgs.Time, raw) == msgs.Time(-5, 7)


def test_not_a_number_is_carried() -> None:
    back = decode(msgs.Float64, encode(msgs.Float64(math.nan)))
    assert math.isnan(back.data)


@pytest.mark.parametrize(
    ("cls", "raw", "message"),
    [
        (msgs.Float64, b"", "not plain CDR"),
        (msgs.Float64, b"\x00\x03\x00\x00" + bytes(8), "not plain CDR"),  # parameter list
        (msgs.Float64, b"\x00\x07\x00\x00" + bytes(8), "not plain CDR"),  # version 2
        (msgs.Float64, b"\x00\x01\x00\x00" + bytes(7), "ends too early"),
        (msgs.KeyValue, b"\x00\x01\x00\x00" + struct.pack("<I", 0), "not a string"),
        (msgs.KeyValue, b"\x00\x01\x00\x00" + struct.pack("<I", MAX_STRING + 1), "not a string"),
        (msgs.KeyValue, b"\x00\x01\x00\x00" + struct.pack("<I", 4) + b"abcd", "final zero"),
        (msgs.KeyValue, b"\x00\x01\x00\x00" + struct.pack("<I", 2) + b"\xff\0", "not UTF-8"),
        (msgs.TFMessage, b"\x00\x01\x00\x00" + struct.pack("<I", 2**32 - 1), "more elements than bytes"),
        (msgs.CompressedImage, encode(msgs.CompressedImage())[:-4] + struct.pack("<I", 2**32 - 1), "ends too early"),
    ],
)
def test_lies_about_lengths_are_told(cls: type[Message], raw: bytes, message: str) -> None:
    with pytest.raises(MessageError, match=message):
        decode(cls, raw)


@pytest.mark.parametrize(
    "message",
    [
        msgs.NavSatFix(position_covariance=(0.0,) * 8),
        msgs.Time(sec=2**31),
        msgs.Header(frame_id=None),  # type: ignore[arg-type]
        msgs.Image(data="text"),
    ],
)
def test_values_that_no_field_can_hold_are_refused(message: Message) -> None:
    with pytest.raises(MessageError, match="not encodable"):
        encode(message)


def test_an_image_is_read_without_copying() -> None:
    raw = encode(msgs.Image(height=2, width=2, encoding="mono8", step=2, data=b"abcd"))
    image = decode(msgs.Image, raw)
    assert isinstance(image.data, memoryview)
    assert bytes(image.data) == b"abcd"
