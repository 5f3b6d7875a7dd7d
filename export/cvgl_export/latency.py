"""How long an engine takes for an image."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from cvgl.bench import machine as about_machine

from .descriptors import Floats
from .running import Run

__all__ = ["Latency", "latency", "processor"]


@dataclass(frozen=True)
class Latency:
    """Of single images, one after another.

    Args:
        p50_ms, p99_ms: milliseconds within which half and 99 % of the runs ended.
        runs: how many were timed, after a warm-up.
        engine: what ran.
        machine: on what.
    """

    p50_ms: float
    p99_ms: float
    runs: int
    engine: str
    machine: str


def latency(
    run: Run, images: Floats, *, engine: str, machine: str | None = None, runs: int = 50, warm_up: int = 5
) -> Latency:
    """Time an engine.

    Args:
        run: the engine; must not return before it is done.
        images: (B, 3, H, W) what every run is given.
        engine: its name, for people.
        machine: what it ran on; this machine's processor without.
        runs, warm_up: timed runs, and those before them.
    """
    for _ in range(warm_up):
        run(images)
    times = np.empty(max(runs, 1))
    for i in range(len(times)):
        start = time.perf_counter()
        run(images)
        times[i] = time.perf_counter() - start
    middle, late = (float(1e3 * np.percentile(times, share)) for share in (50, 99))
    return Latency(middle, late, len(times), engine, machine or processor())


def processor() -> str:
    """This machine's processor, for people."""
    return f"CPU {about_machine()['processor']}"
