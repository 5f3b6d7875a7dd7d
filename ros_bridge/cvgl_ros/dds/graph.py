"""The entry in the ROS graph: which node the participant's readers and writers belong to.

Source: rmw_dds_common, ``ParticipantEntitiesInfo`` on the latched topic ``ros_discovery_info``. Without it the topics
are seen, but ``ros2 node list`` does not know whose they are.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Annotated, Any
from uuid import UUID

from cvgl_ros.msgs import Array, Message

__all__ = ["GRAPH_TOPIC", "USER_DATA", "entities_info", "entities_type"]

GRAPH_TOPIC = "ros_discovery_info"
# What marks a participant as one of ROS.
USER_DATA = b"enclave=/;"
# Bytes of an identifier: from Iron on those of DDS, before with eight zeros behind.
_HUMBLE, _JAZZY = 24, 16

_Octets = Sequence[int]


@functools.cache
def _types(length: int) -> tuple[Any, Any, Any]:
    def message(name: str, *fields: tuple[str, Any]) -> Any:
        namespace = {"ros_name": f"rmw_dds_common/msg/{name}"}
        return dataclasses.make_dataclass(name, fields, bases=(Message,), namespace=namespace)

    text = Annotated[str, "string<256>"]
    gid: Any = message("Gid", ("data", Annotated[_Octets, Array("uint8", length)]))
    gids = list[gid]
    node: Any = message(
        "NodeEntitiesInfo",
        ("node_namespace", text),
        ("node_name", text),
        ("reader_gid_seq", gids),
        ("writer_gid_seq", gids),
    )
    return gid, node, message("ParticipantEntitiesInfo", ("gid", gid), ("node_entities_info_seq", list[node]))


def entities_type(jazzy: bool) -> type[Message]:
    """The message class; Jazzy's identifiers are shorter than Humble's."""
    return _types(_JAZZY if jazzy else _HUMBLE)[2]  # type: ignore[no-any-return]


def entities_info(
    jazzy: bool, namespace: str, name: str, participant: UUID, readers: Iterable[UUID], writers: Iterable[UUID]
) -> Message:
    """One node with all readers and writers of a participant.

    Args:
        jazzy: see :func:`entities_type`.
        namespace: of the node, beginning with a slash.
        name: of the node.
        participant, readers, writers: their DDS identifiers.
    """
    length = _JAZZY if jazzy else _HUMBLE
    gid, node, info = _types(length)

    def of(one: UUID) -> Any:
        return gid(one.bytes.ljust(length, b"\0"))

    entry = node(namespace, name, [of(one) for one in readers], [of(one) for one in writers])
    return info(of(participant), [entry])  # type: ignore[no-any-return]
