"""Logging must not end a flight."""

from __future__ import annotations

from cvgl.node.log import harmless


def test_what_logs_may_raise_and_ends_nothing() -> None:
    def full(level: str, text: str) -> None:
        told.append((level, text))
        raise OSError("no space left on device")

    told: list[tuple[str, str]] = []
    harmless(full)("info", "fix")
    assert told == [("info", "fix")]
