"""What a node reports about itself: rates, latency, availability, and what is wrong now."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable

from cvgl.fix import Fix

__all__ = ["ERROR", "OK", "WARN", "Health"]

# As diagnostic_msgs/DiagnosticStatus has them.
OK, WARN, ERROR = 0, 1, 2
# Answers over which rates, latency and availability are stated.
_WINDOW = 200


class Health:
    """Counts since the start, rates and latencies over the last answers, and what is wrong now.

    Not locked: the worker calls it under its own lock.

    Args:
        clock: steady seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = clock()
        self.counts: Counter[str] = Counter()
        self.message = "no frame yet"
        self.level = WARN
        self.sigma_m = float("nan")
        self._arrivals: deque[float] = deque(maxlen=_WINDOW)
        self._telemetry: dict[str, float] = {}
        self._answers: deque[tuple[float, bool, float, float]] = deque(maxlen=_WINDOW)

    def arrived(self) -> None:
        """An image came in."""
        self.counts["images"] += 1
        self._arrivals.append(self._clock())

    def heard(self, source: str) -> None:
        """Telemetry of a source came in and could be used."""
        self._telemetry[source] = self._clock()

    def answered(self, fix: Fix, delay_ms: float) -> None:
        """A frame went through the localiser; ``delay_ms`` from exposure (by its stamp) to the answer."""
        self.counts["frames"] += 1
        self.counts["fixes"] += bool(fix)
        self._answers.append((self._clock(), bool(fix), fix.latency_ms, delay_ms))
        self.sigma_m = fix.sigma_m if fix else float("nan")
        self.level = OK if fix else WARN
        self.message = fix.status.value + (f": {fix.reason}" if fix.reason else "")

    def refuse(self, reason: str, counter: str = "refused") -> None:
        """A message or an answer could not be used."""
        self.counts[counter] += 1
        self.level = WARN
        self.message = reason

    def state(self, camera_timeout_s: float, sources: tuple[str, ...]) -> tuple[int, str]:
        """Level and message of now.

        Args:
            camera_timeout_s: without an image for this long the camera counts as dead; telemetry likewise.
            sources: telemetry that should be there.
        """
        now = self._clock()
        last = self._arrivals[-1] if self._arrivals else self._began
        if now - last > camera_timeout_s:
            since = f"for {now - last:.1f} s" if self._arrivals else "yet"
            return ERROR, f"camera: no image {since}"
        silent = [name for name in sources if now - self._telemetry.get(name, self._began) > camera_timeout_s]
        if silent:
            return ERROR, f"telemetry: nothing usable from {', '.join(silent)} for {camera_timeout_s:g} s"
        return self.level, self.message

    def values(self, dropped: int) -> dict[str, str]:
        """Key-value pairs; ``dropped`` frames were replaced by newer ones before their turn."""
        named: tuple[str, ...] = ("images", "frames", "fixes", "refused", "malformed", "out_of_order", "clock_jumps")
        named += ("telemetry_refused", "without_attitude", "without_heading")
        values = {name: str(self.counts[name]) for name in named}
        values["dropped"] = str(dropped)
        values["image_rate_hz"] = f"{_rate(self._arrivals, self._clock()):.2f}"
        values["fix_rate_hz"] = f"{_rate([at for at, good, _, _ in self._answers if good], self._clock()):.2f}"
        if self._answers:
            good = sum(answer[1] for answer in self._answers)
            values["availability"] = f"{good / len(self._answers):.3f}"
            for name, column in (("latency_ms", 2), ("delay_ms", 3)):
                ordered = sorted(answer[column] for answer in self._answers)
                values[f"{name}_p50"] = f"{ordered[len(ordered) // 2]:.1f}"
                values[f"{name}_p99"] = f"{ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]:.1f}"
        values["sigma_m"] = f"{self.sigma_m:.2f}"
        return values


def _rate(times: deque[float] | list[float], now: float) -> float:
    """Per second, up to now, so that a source that stopped fades out."""
    if len(times) < 2:
        return 0.0
    return (len(times) - 1) / max(now - times[0], 1e-9)
