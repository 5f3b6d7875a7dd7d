"""The messages as types of the ``cyclonedds`` package, under the names that ROS 2 gives them on the bus.

The types are announced as ROS announces its own; the bytes are written and read by ``cvgl_ros.cdr``, which is fast for
images and bounds every length, where the package's own reader makes a Python number of every byte.
"""

from __future__ import annotations

import functools
import typing
from typing import Any

from cyclonedds.idl import make_idl_struct, types

from cvgl_ros.cdr import MessageError, decode, encode, fields_of
from cvgl_ros.msgs import Array, Message, Unbounded

__all__ = ["carrier_of", "dds_type_name", "wrap"]

# The package's own types are subscripted with values, which no type checker follows.
_array: Any = types.array
_sequence: Any = types.sequence
_bounded: Any = types.bounded_str
_PRIMITIVES: dict[str, Any] = {
    "bool": bool,
    "string": str,
    "string<256>": _bounded[256],
    "byte": types.uint8,
    **{
        name: getattr(types, name)
        for name in ("int8", "uint8", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
    },
}


def dds_type_name(ros_name: str) -> str:
    """``sensor_msgs/msg/NavSatFix`` as ``sensor_msgs::msg::dds_::NavSatFix_``."""
    package, kind, name = ros_name.split("/")
    return f"{package}::{kind}::dds_::{name}_"


def carrier_of(cls: type[Message]) -> Any:
    """The DDS type of a message class, an ``IdlStruct``.

    Its samples carry a message whole: what is written has one in ``message`` (see :func:`wrap`), what is read has the
    message, or None with the reason in ``error``.
    """
    return _carrier(typing.cast(Any, cls))


@functools.cache
def _carrier(cls: Any) -> Any:
    fields = {name: _idl(kind) for name, kind in fields_of(cls)}
    carrier: Any = make_idl_struct(cls.__name__, dds_type_name(cls.ros_name), fields)

    def serialize(self: Any, *_: Any, **__: Any) -> bytes:
        return encode(self.message)

    def deserialize(_: Any, data: bytes, *__: Any, **___: Any) -> Any:
        sample = object.__new__(carrier)
        try:
            sample.message, sample.error = decode(cls, data), None
        except MessageError as error:
            sample.message, sample.error = None, error
        return sample

    carrier.serialize = serialize
    carrier.deserialize = classmethod(deserialize)
    return carrier


def wrap(message: Message) -> Any:
    """A sample that a data writer takes."""
    sample = object.__new__(carrier_of(type(message)))
    sample.message = message
    return sample


def _idl(kind: Any) -> Any:
    if isinstance(kind, str):
        return _PRIMITIVES[kind]
    if isinstance(kind, Array):
        return _array[_PRIMITIVES[kind.element], kind.length]
    if isinstance(kind, Unbounded):
        return _sequence[_PRIMITIVES[kind.element]]
    if isinstance(kind, list):
        return _sequence[carrier_of(kind[0])]
    return carrier_of(kind)
