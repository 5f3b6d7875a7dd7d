"""Measurements kept for a while, so that a frame gets what held when it was exposed and not what came last."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["NANOSECONDS", "Track", "linear"]

V = TypeVar("V")

NANOSECONDS = 1_000_000_000
# At 400 Hz five seconds.
_KEPT = 2000


def linear(first: float, second: float, share: float) -> float:
    """The straight line between two numbers."""
    return first + share * (second - first)


class Track(Generic[V]):
    """Samples of one measurement by time.

    A stamp that lies more than ``jump_s`` before the newest sample means that the clock was set: what was known is
    forgotten, and so one message with a false stamp from the future does no lasting harm. Smaller steps back are
    messages out of order, and are sorted in.

    Args:
        interpolate: value between two samples at a share from 0 to 1 of the way.
        max_age_s: no sample further from the asked-for time than this is used.
        jump_s: see above.
        kept: samples, the newest.
    """

    def __init__(
        self, interpolate: Callable[[V, V, float], V], max_age_s: float, jump_s: float, kept: int = _KEPT
    ) -> None:
        self._interpolate = interpolate
        self._max_age = round(max_age_s * NANOSECONDS)
        self._jump = round(jump_s * NANOSECONDS)
        self._kept = kept
        self._stamps: list[int] = []
        self._values: list[V] = []
        self.jumps = 0

    def add(self, stamp: int, value: V) -> None:
        """A new sample; ``stamp`` in nanoseconds. One with a stamp that is there already replaces it."""
        if self._stamps and stamp < self._stamps[-1] - self._jump:
            self._stamps, self._values = [], []
            self.jumps += 1
        at = bisect_left(self._stamps, stamp)
        if at < len(self._stamps) and self._stamps[at] == stamp:
            self._values[at] = value
            return
        self._stamps.insert(at, stamp)
        self._values.insert(at, value)
        if len(self._stamps) > self._kept:
            del self._stamps[0], self._values[0]

    def covers(self, stamp: int) -> bool:
        """Whether a sample at or after a time is there, so that waiting for more is of no use. One far after it is
        from before the clock was set back."""
        return bool(self._stamps) and 0 <= self._stamps[-1] - stamp <= self._jump

    def at(self, stamp: int) -> V | None:
        """The value at a time (nanoseconds): interpolated between two samples, or the nearest; None if none is near
        enough."""
        after = bisect_left(self._stamps, stamp)
        near = [i for i in (after - 1, after) if 0 <= i < len(self._stamps)]
        near = [i for i in near if abs(self._stamps[i] - stamp) <= self._max_age]
        if not near:
            return None
        if len(near) == 1:
            return self._values[near[0]]
        first, second = near
        share = (stamp - self._stamps[first]) / (self._stamps[second] - self._stamps[first])
        return self._interpolate(self._values[first], self._values[second], share)
