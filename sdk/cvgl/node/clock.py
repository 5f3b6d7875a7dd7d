"""A clock for stamps that reads like Unix time and never steps."""

from __future__ import annotations

import time

__all__ = ["SteadyClock"]


class SteadyClock:
    """Nanoseconds since the Unix epoch as the system had it when this was made, counted on steadily since.

    A vehicle without GNSS often learns the time of day in flight; stamps that jump with it would tear frames from their
    telemetry.
    """

    def __init__(self) -> None:
        self._began = time.time_ns() - time.monotonic_ns()

    def __call__(self) -> int:
        """Now."""
        return self._began + time.monotonic_ns()
