"""Keeping only what is newest: frames that wait for the worker, and telemetry that goes with them."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

__all__ = ["Latest", "NewestOnly"]

T = TypeVar("T")


class NewestOnly(Generic[T]):
    """A queue of one between threads: what is put replaces what waits, so a slow worker stays current."""

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


class Latest:
    """The last value of a measurement, and whether it is still worth using.

    Args:
        max_age_s: seconds after which a value is stale.
    """

    def __init__(self, max_age_s: float) -> None:
        self._max_age_s = max_age_s
        self._sample: tuple[float, float] | None = None

    def set(self, value: float, now: float) -> None:
        """A new value, received at ``now`` (seconds, any steady clock)."""
        self._sample = (value, now)

    def get(self, now: float) -> float | None:
        """The value, or None where there is none or it is stale."""
        sample = self._sample
        if sample is None or now - sample[1] > self._max_age_s:
            return None
        return sample[0]
