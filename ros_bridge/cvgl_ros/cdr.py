"""Messages to the bytes that ROS 2 sends and back: CDR, version 1, either byte order.

Source: OMG Common Data Representation as RTPS uses it (DDSI-RTPS 2.5, section 10): a header of four bytes, then the
fields, each aligned to its size counted from the end of the header; strings carry their length and a final zero.
Nothing is believed: a length is held against the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import typing
from typing import Any, TypeVar

from cvgl.errors import CvglError
from cvgl_ros.msgs import Array, Message, Unbounded

__all__ = ["MAX_STRING", "MessageError", "decode", "encode", "fields_of"]

M = TypeVar("M", bound=Message)

# Longer strings than this (bytes) are in no message that a vehicle sends.
MAX_STRING = 1 << 20
_CODES = {
    "bool": "?",
    "byte": "B",
    "int8": "b",
    "uint8": "B",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "uint64": "Q",
    "float32": "f",
    "float64": "d",
}
_HEADER = 4


class MessageError(CvglError, ValueError):
    """Bytes that are not the message they should be."""


def encode(message: Message) -> bytes:
    """The bytes of a message, little-endian, header included.

    Raises:
        MessageError: a value that its field cannot hold.
    """
    out = bytearray(b"\x00\x01\x00\x00")
    try:
        _write(out, message)
    except (struct.error, TypeError, ValueError, AttributeError) as reason:
        raise MessageError("not encodable", field=message.ros_name, found=str(reason)) from reason
    return bytes(out)


def decode(cls: type[M], data: bytes | memoryview) -> M:
    """The message that bytes say; sequences of bytes are views into ``data``, not copies.

    Raises:
        MessageError: too short, another encoding than plain CDR, a length beyond the end, text that is not UTF-8.
    """
    view = memoryview(data)
    if len(view) < _HEADER or view[0] != 0 or view[1] not in (0, 1):
        raise MessageError("not plain CDR", field=cls.ros_name, found=bytes(view[:_HEADER]).hex())
    source = _Source(view, "<" if view[1] else ">", cls.ros_name)
    return typing.cast(M, _read(source, cls))


def fields_of(cls: type[Message]) -> tuple[tuple[str, Any], ...]:
    """Names of a message's fields and what they hold: the ROS name of a primitive, ``Array``, ``Unbounded``, a message
    class, or a list of one message class."""
    return _fields(typing.cast(Any, cls))


@functools.cache
def _fields(cls: Any) -> tuple[tuple[str, Any], ...]:
    hints = typing.get_type_hints(cls, include_extras=True)
    found = []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        kind: Any = hint
        if typing.get_origin(hint) is typing.Annotated:
            kind = typing.get_args(hint)[1]
        elif typing.get_origin(hint) is list:
            kind = [typing.get_args(hint)[0]]
        found.append((field.name, kind))
    return tuple(found)


def _write(out: bytearray, message: Any, cls: type[Message] | None = None) -> None:
    for name, kind in fields_of(cls or type(message)):
        value = getattr(message, name)
        if isinstance(kind, str):
            if kind.startswith("string"):
                text = value.encode("utf-8")
                _put(out, "I", len(text) + 1)
                out += text + b"\x00"
            else:
                _put(out, _CODES[kind], value)
        elif isinstance(kind, Unbounded):
            if kind.element == "uint8":
                octets = memoryview(value).cast("B")
                _put(out, "I", len(octets))
                out += octets
            else:
                _put(out, "I", len(value))
                _put_many(out, _CODES[kind.element], value)
        elif isinstance(kind, Array):
            if len(value) != kind.length:
                raise ValueError(f"{name}: {len(value)} elements instead of {kind.length}")
            _put_many(out, _CODES[kind.element], value)
        elif isinstance(kind, list):
            _put(out, "I", len(value))
            for item in value:
                _write(out, item, kind[0])
        else:
            _write(out, value, kind)


def _put(out: bytearray, code: str, value: Any) -> None:
    _align(out, struct.calcsize(code))
    out += struct.pack("<" + code, value)


def _put_many(out: bytearray, code: str, values: Any) -> None:
    if len(values):
        _align(out, struct.calcsize(code))
        out += struct.pack(f"<{len(values)}{code}", *values)


def _align(out: bytearray, size: int) -> None:
    out += bytes(-(len(out) - _HEADER) % size)


class _Source:
    """Bytes that are read from front to back."""

    def __init__(self, view: memoryview, order: str, name: str) -> None:
        self.view = view
        self.order = order
        self.name = name
        self.at = _HEADER

    def take(self, size: int, alignment: int = 1) -> memoryview:
        start = self.at + -(self.at - _HEADER) % alignment
        if size > len(self.view) - start:
            found = f"{size} bytes at {start} of {len(self.view)}"
            raise MessageError("ends too early", field=self.name, found=found)
        self.at = start + size
        return self.view[start : self.at]

    def number(self, code: str) -> Any:
        size = struct.calcsize(code)
        return struct.unpack(self.order + code, self.take(size, size))[0]

    def numbers(self, code: str, count: int) -> tuple[Any, ...]:
        if count == 0:
            return ()
        size = struct.calcsize(code)
        return struct.unpack(f"{self.order}{count}{code}", self.take(count * size, size))

    def text(self) -> str:
        length = self.number("I")
        if not 1 <= length <= MAX_STRING:
            expected = f"1 to {MAX_STRING} bytes with the final zero"
            raise MessageError("not a string", field=self.name, found=length, expected=expected)
        raw = bytes(self.take(length))
        if raw[-1] != 0:
            raise MessageError("a string without its final zero", field=self.name)
        try:
            return raw[:-1].decode("utf-8")
        except UnicodeDecodeError as reason:
            raise MessageError("a string that is not UTF-8", field=self.name) from reason


def _read(source: _Source, cls: type[Message]) -> Message:
    values: dict[str, Any] = {}
    for name, kind in fields_of(cls):
        if isinstance(kind, str):
            values[name] = source.text() if kind.startswith("string") else source.number(_CODES[kind])
        elif isinstance(kind, Unbounded):
            count = source.number("I")
            if kind.element == "uint8":
                values[name] = source.take(count)
            else:
                values[name] = source.numbers(_CODES[kind.element], count)
        elif isinstance(kind, Array):
            values[name] = source.numbers(_CODES[kind.element], kind.length)
        elif isinstance(kind, list):
            values[name] = _read_list(source, kind[0])
        else:
            values[name] = _read(source, kind)
    return cls(**values)


def _read_list(source: _Source, cls: type[Message]) -> list[Message]:
    count = source.number("I")
    # Every message takes a byte at least, so that a false count ends where the bytes do.
    if count > len(source.view) - source.at:
        raise MessageError("more elements than bytes", field=source.name, found=count)
    return [_read(source, cls) for _ in range(count)]
