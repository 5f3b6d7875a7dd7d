"""How often something is sent at most."""

from __future__ import annotations

__all__ = ["RateLimit"]

# Share of a period that a message may come early, or jitter would cost every second one of a source at just this rate.
_EARLY = 0.25


class RateLimit:
    """Lets through so many a second in the long run, and two no closer than half a period.

    Args:
        rate_hz: above 0.
    """

    def __init__(self, rate_hz: float) -> None:
        self._period = 1.0 / rate_hz
        self._due = float("-inf")

    def allows(self, now: float) -> bool:
        """Whether one may be sent now (steady seconds, never decreasing); counts it if so."""
        if now < self._due - _EARLY * self._period:
            return False
        self._due = max(self._due, now - _EARLY * self._period) + self._period
        return True
