"""A filter's recent past, so that what comes late is taken in at its own time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass

from cvgl.tracking.evidence import Sight
from cvgl.tracking.mixture import Mixture

__all__ = ["History"]

_LONGEST = 256


@dataclass(frozen=True)
class _Entry:
    sight: Sight
    after: Mixture


class History:
    """What was seen, in order of time, with what was believed after each.

    Args:
        start: what is believed before anything was seen.
        step: from what was believed at an earlier time and what was seen to what is believed then.
        reach_s: how far back it is kept, seconds.
    """

    def __init__(self, start: Mixture, step: Callable[[Mixture, Sight], Mixture], reach_s: float) -> None:
        self._start = start
        self._step = step
        self._reach = reach_s
        self._entries: list[_Entry] = []

    @property
    def last(self) -> Mixture:
        """The latest belief."""
        return self._entries[-1].after if self._entries else self._start

    def takes(self, sight: Sight) -> bool:
        """Whether it can still be taken in: it is not older than what is kept, and nothing counts for its time yet."""
        index = self._index(sight.time)
        if self._known(index, sight.time) and (self._entries[index].sight.places or not sight.places):
            return False
        newest = self._entries[-1].sight.time if self._entries else sight.time
        return sight.time > self._start.time and newest - sight.time <= self._reach

    def add(self, sight: Sight) -> tuple[Mixture, Mixture]:
        """Take in what ``takes`` allows, instead of what told no place at its time, and go through what came after.

        Returns:
            What was believed after what came before it, and what is believed with it.
        """
        index = self._index(sight.time)
        later = [entry.sight for entry in self._entries[index + self._known(index, sight.time) :]]
        del self._entries[index:]
        earlier = belief = self._entries[-1].after if self._entries else self._start
        for one in (sight, *later):
            belief = self._step(belief, one)
            self._entries.append(_Entry(one, belief))
        after = self._entries[index].after
        self._forget()
        return earlier, after

    def at(self, time: float) -> Mixture | None:
        """The latest belief of a time or before it; None before all that is kept."""
        index = self._index(time)
        if self._known(index, time):
            return self._entries[index].after
        if index:
            return self._entries[index - 1].after
        return self._start if time >= self._start.time else None

    def _known(self, index: int, time: float) -> bool:
        return index < len(self._entries) and self._entries[index].sight.time == time

    def _index(self, time: float) -> int:
        return bisect_left(self._entries, time, key=lambda entry: entry.sight.time)

    def _forget(self) -> None:
        newest = self._entries[-1].sight.time
        first = 0
        while len(self._entries) - first > _LONGEST or newest - self._entries[first].sight.time > self._reach:
            first += 1
        if first:
            # One older entry stays: from it, what comes late by less than the reach is worked through.
            first -= 1
        if first:
            self._start = self._entries[first - 1].after
            del self._entries[:first]
