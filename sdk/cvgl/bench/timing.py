"""A flight's frames located again and again, by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cvgl.errors import FlightError, FrameError
from cvgl.fix import Fix
from cvgl.flight import Flight
from cvgl.localizer import Localizer

__all__ = ["open_flight", "time_frames"]


def open_flight(
    localizer: Localizer, flight: str | Path, *, height: float | None = None, heading: str | None = None
) -> Flight:
    """Open a flight and hand its camera to the localiser, as ``cvgl-locate`` does.

    Args:
        localizer: the localiser; its camera is replaced where the flight brings its own.
        flight: see :meth:`cvgl.flight.Flight.open`.
        height: metres, for frames that do not say theirs.
        heading: degrees for frames that do not say theirs, or ``unknown`` to ignore recorded ones.

    Raises:
        FlightError, CameraError: as :meth:`cvgl.flight.Flight.open`.
    """
    unknown = heading == "unknown"
    opened = Flight.open(
        flight,
        localizer.camera,
        height=height,
        heading=None if unknown or heading is None else float(heading),
        ignore_heading=unknown,
    )
    if opened.camera is not None and opened.camera != localizer.camera:
        localizer.camera = opened.camera
    return opened


def time_frames(
    localizer: Localizer,
    flight: Flight,
    *,
    frames: int | None = None,
    repeat: int = 3,
    on_fix: Callable[[Fix], None] | None = None,
) -> dict[str, Any]:
    """Locate a flight's frames again and again, each as if it were the first of its flight.

    Args:
        localizer: the localiser, with the flight's camera.
        flight: the flight; its pictures are decoded one at a time, in every round.
        frames: how many of them, from the first; None for all.
        repeat: rounds that are timed. One frame before them is located and not counted.
        on_fix: called with each counted answer.

    Returns:
        ``frames`` and ``answers`` timed; ``unreadable`` frames; ``counts`` of the answers by status;
        ``locate_ms``, ``decode_ms`` and under ``stages_ms`` each stage, with ``p50``, ``p95``, ``p99`` and ``mean``
        in milliseconds; stages also with their ``share`` of all time spent in ``locate``, ``other`` being what no
        stage accounts for.

    Raises:
        FlightError: none of the frames can be read.
    """
    warm = False
    decoded: set[str] = set()
    unreadable: set[str] = set()
    wall_ms: list[float] = []
    decode_ms: list[float] = []
    stage_ms: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for _ in range(repeat):
        for record in islice(flight, frames):
            began = time.perf_counter()
            try:
                frame = record.load()
            except FrameError:
                unreadable.add(record.name)
                continue
            decode_ms.append(1e3 * (time.perf_counter() - began))
            decoded.add(record.name)
            if not warm:
                localizer.locate(frame)
                warm = True
            began = time.perf_counter()
            fix = localizer.locate(frame)
            wall_ms.append(1e3 * (time.perf_counter() - began))
            counts[fix.status.value] = counts.get(fix.status.value, 0) + 1
            for stage, spent in {**fix.timings_ms, "other": wall_ms[-1] - fix.latency_ms}.items():
                stage_ms.setdefault(stage, []).append(spent)
            if on_fix is not None:
                on_fix(fix)
    if not wall_ms:
        raise FlightError("none of its frames can be read", file=flight.path, found=f"{len(unreadable)} unreadable")
    total = sum(wall_ms)
    other = stage_ms.pop("other")
    return {
        "frames": len(decoded),
        "answers": len(wall_ms),
        "unreadable": len(unreadable),
        "counts": counts,
        "locate_ms": _percentiles(wall_ms),
        "decode_ms": _percentiles(decode_ms),
        "stages_ms": {
            stage: {**_percentiles(spent), "share": round(sum(spent) / total, 4)}
            for stage, spent in {**stage_ms, "other": other}.items()
        },
    }


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    numbers = {"p50": p50, "p95": p95, "p99": p99, "mean": np.mean(values)}
    return {name: round(float(value), 3) for name, value in numbers.items()}
