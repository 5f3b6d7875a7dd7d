"""A queue of one between the thread that receives and the thread that localises."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["NewestOnly"]

T = TypeVar("T")


class NewestOnly(Generic[T]):
    """What is put replaces what waits, so that a slow worker stays current; what was replaced is counted."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._waiting: list[T] = []
        self._closed = False
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """How many were replaced before anybody took them."""
        with self._condition:
            return self._dropped

    def put(self, item: T) -> None:
        """Make ``item`` the one that waits; after ``close`` it is ignored."""
        with self._condition:
            if self._closed:
                return
            self._dropped += len(self._waiting)
            self._waiting = [item]
            self._condition.notify()

    def take(self) -> T | None:
        """Wait for the next one; None once closed."""
        with self._condition:
            self._condition.wait_for(lambda: self._waiting or self._closed)
            return None if self._closed else self._waiting.pop()

    def close(self) -> None:
        """Let every ``take`` return None, now and later."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()
