"""ROS 2 names on the DDS bus.

Source: ROS 2 design, "Topic and Service name mapping to DDS": topics under ``rt/``, requests of a service under ``rq/``
with ``Request`` behind, replies under ``rr/`` with ``Reply`` behind.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from cvgl_ros.parameters import ParameterError

__all__ = ["check_namespace", "parse_remaps", "reply_topic", "request_topic", "resolve", "topic_name"]

_NAME = re.compile(r"/?[A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*")


def resolve(name: str, namespace: str = "/", remaps: Mapping[str, str] | None = None) -> str:
    """The full name of a topic or service, beginning with a slash: remapped first, then put into the namespace."""
    name = (remaps or {}).get(name, name)
    return name if name.startswith("/") else f"/{namespace.strip('/')}/{name}".replace("//", "/")


def topic_name(full_name: str) -> str:
    """``/camera/image`` as ``rt/camera/image``."""
    return f"rt{full_name}"


def request_topic(full_name: str) -> str:
    """``/trigger`` as ``rq/triggerRequest``."""
    return f"rq{full_name}Request"


def reply_topic(full_name: str) -> str:
    """``/trigger`` as ``rr/triggerReply``."""
    return f"rr{full_name}Reply"


def check_namespace(namespace: str) -> str:
    """The namespace, if it is one.

    Raises:
        ParameterError: it is none.
    """
    if namespace.strip("/") and not _NAME.fullmatch(namespace.rstrip("/")):
        raise ParameterError("not a namespace", field="namespace", found=namespace, expected="names between slashes")
    return namespace


def parse_remaps(rules: Iterable[str]) -> dict[str, str]:
    """Rules of the form ``from:=to``.

    Raises:
        ParameterError: another form, or names that are none.
    """
    remaps = {}
    for rule in rules:
        old, sign, new = rule.partition(":=")
        if not sign or not _NAME.fullmatch(old) or not _NAME.fullmatch(new):
            raise ParameterError("not a remapping", field="remap", found=rule, expected="from:=to")
        remaps[old] = new
    return remaps
