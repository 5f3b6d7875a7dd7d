"""What a sequence adds: where the aircraft can be by now."""

from __future__ import annotations

import math

from cvgl.fix import Fix, FixStatus
from cvgl.frame import Prior
from cvgl.geo import LocalFrame

__all__ = ["Tracker"]

# A prior wider than this (metres) excludes nothing worth excluding, and the global search is as good.
_LOST_M = 2000.0


class Tracker:
    """Keeps the last refined fix and widens it with time, at the speed the aircraft can fly.

    Args:
        local: the local tangent plane.
        max_speed_m_s: of the aircraft over ground; taken as two sigma.
    """

    def __init__(self, local: LocalFrame, max_speed_m_s: float) -> None:
        self._local = local
        self._speed_sigma = max_speed_m_s / 2
        self._start: Prior | None = None
        self._last: Fix | None = None

    def reset(self, prior: Prior | None = None) -> None:
        """Begin a sequence, at a known start or lost."""
        self._start = prior
        self._last = None

    def prior(self, time: float) -> Prior | None:
        """Where the aircraft may be at a time, or None when lost."""
        if self._last is None:
            return self._start
        elapsed = time - self._last.time
        if not math.isfinite(elapsed) or elapsed < 0:
            return None
        sigma = math.hypot(self._last.sigma_m, self._speed_sigma * elapsed)
        return Prior(self._last.latitude, self._last.longitude, sigma) if sigma < _LOST_M else None

    def update(self, fix: Fix) -> None:
        """Take in the answer for a frame. Coarse fixes and refusals leave the prior to widen."""
        if fix.status is FixStatus.REFINED:
            self._last = fix
