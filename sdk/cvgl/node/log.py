"""Texts for people, which must never end what tells them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

__all__ = ["Log", "harmless"]

#: Called with ``"error"``, ``"warning"`` or ``"info"`` and a text.
Log = Callable[[str, str], None]


def harmless(log: Log) -> Log:
    """The same, but whatever it raises is passed over: a full disk or a logger's own rules must not end a thread that
    flies."""

    def told(level: str, text: str) -> None:
        with suppress(Exception):
            log(level, text)

    return told
