"""The autopilot's clock against ours, from TIMESYNC: which exchanges are believed, and what follows from them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

__all__ = ["ClockOffset", "Exchange"]

# Quartz clocks of flight controllers and computers, both together.
_DRIFT = 100e-6
_SLOWEST_NS = 1_000_000_000
_KEPT = 100
_AGREEING = 3


@dataclass(frozen=True)
class Exchange:
    """A question and its answer.

    Args:
        sent: nanoseconds on our clock.
        there: nanoseconds on theirs, when they answered.
        back: nanoseconds on our clock.
    """

    sent: int
    there: int
    back: int

    @property
    def offset(self) -> int:
        """Their clock less ours, if both ways took as long; off by at most half of ``round_trip`` if not."""
        return self.there - (self.sent + self.back) // 2

    @property
    def round_trip(self) -> int:
        """Nanoseconds from question to answer."""
        return self.back - self.sent

    def bound(self, now: int) -> float:
        """The most that ``offset`` can be off by at a time: half the round trip, and what the clocks drift since."""
        return self.round_trip / 2 + _DRIFT * max(0, now - self.back)


class ClockOffset:
    """The offset of another clock, by the exchange that bounds it most tightly (Cristian, 1989).

    A delayed answer has a wide bound and so no say, however many are delayed. Exchanges that contradict the best one
    beyond both bounds mean that a clock was set or the autopilot restarted; they are believed once there are three in
    a row that agree with each other, so that a single false one changes nothing.
    """

    def __init__(self) -> None:
        self._exchanges: deque[Exchange] = deque(maxlen=_KEPT)
        self._contradicting: list[Exchange] = []
        self._best: Exchange | None = None
        self.jumps = 0
        self.refused = 0

    @property
    def known(self) -> bool:
        """Whether there were enough exchanges."""
        return len(self._exchanges) >= _AGREEING

    def add(self, exchange: Exchange) -> None:
        """A new exchange."""
        if not 0 <= exchange.round_trip <= _SLOWEST_NS or exchange.there <= 0:
            self.refused += 1
            return
        if self._best is not None and not _agree(exchange, self._best, exchange.back):
            self._contradicting = [e for e in self._contradicting if _agree(e, exchange, exchange.back)]
            self._contradicting.append(exchange)
            if len(self._contradicting) < _AGREEING:
                self.refused += 1
                return
            self._exchanges.clear()
            self._exchanges.extend(self._contradicting)
            self.jumps += 1
        else:
            self._exchanges.append(exchange)
        self._contradicting = []
        self._best = min(self._exchanges, key=lambda one: one.bound(exchange.back))

    def ours(self, theirs: int) -> int | None:
        """A time of their clock (nanoseconds) on ours; None while the offset is not known."""
        return theirs - self._best.offset if self.known and self._best is not None else None

    def uncertainty(self, now: int) -> float:
        """The most that ``ours`` is off by, nanoseconds."""
        return float("inf") if self._best is None else self._best.bound(now)


def _agree(one: Exchange, other: Exchange, now: int) -> bool:
    return abs(one.offset - other.offset) <= one.bound(now) + other.bound(now)
