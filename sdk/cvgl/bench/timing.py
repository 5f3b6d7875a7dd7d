"""A flight's frames located again and again, by the clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from cvgl.bench.machine import allocated_mb
from cvgl.bench.spread import growth, spread
from cvgl.errors import FlightError, FrameError
from cvgl.fix import Fix
from cvgl.flight import Flight
from cvgl.frame import Frame
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
    track: bool = False,
    on_fix: Callable[[Fix], None] | None = None,
) -> dict[str, Any]:
    """Locate a flight's frames again and again, each as if it were the first of its flight.

    Args:
        localizer: the localiser, with the flight's camera.
        flight: the flight; its pictures are decoded one at a time, in every round.
        frames: how many of them, from the first; None for all.
        repeat: rounds that are timed. One frame before them is located and not counted.
        track: locate each frame a second time as the next of a sequence, with the prior that the frames before it
            give. The two take turns in who is first, since the second finds the frame in the processor's cache.
        on_fix: called with each counted answer of a frame by itself.

    Returns:
        ``frames`` and ``answers`` timed; ``unreadable`` frames; ``counts`` of the answers by status;
        ``locate_ms``, ``decode_ms`` and under ``stages_ms`` each stage, as :func:`cvgl.bench.spread.spread` puts it,
        in milliseconds; stages also with their ``share`` of all time spent in ``locate``, ``other`` being what no
        stage accounts for. With ``track``, under that name, ``counts``, ``locate_ms`` and ``stages_ms`` of the
        sequence, whose ``track`` stage is what no stage of ``locate`` accounts for. ``memory_growth_mb``: by how much
        what the process holds grows in 1000 answers, ``slope``, ``low``, ``high``; None where there are too few to
        tell.

    Raises:
        FlightError: none of the frames can be read.
    """
    clocks = {"locate": _Clock(localizer.locate, "other")}
    if track:
        clocks["track"] = _Clock(localizer.track, "track")
    decoded: list[str] = []
    decode_ms: list[float] = []
    unreadable: set[str] = set()
    held: list[float] = []
    for _ in range(repeat):
        localizer.reset()
        for record in islice(flight, frames):
            began = time.perf_counter()
            try:
                frame = record.load()
            except FrameError:
                unreadable.add(record.name)
                continue
            decode_ms.append(1e3 * (time.perf_counter() - began))
            decoded.append(record.name)
            if len(decoded) == 1:
                localizer.locate(frame)
            order = list(clocks.values())
            for clock in order if len(decoded) % 2 else reversed(order):
                clock.answer(frame, record.name)
            if on_fix is not None:
                on_fix(clocks["locate"].last)
            held.append(allocated_mb() or 0.0)
    if not decoded:
        raise FlightError("none of its frames can be read", file=flight.path, found=f"{len(unreadable)} unreadable")
    grown = growth(held) if all(held) else None
    return {
        "frames": len(set(decoded)),
        "answers": len(decoded),
        "unreadable": len(unreadable),
        **clocks["locate"].result(),
        "decode_ms": spread(decode_ms, decoded),
        **({"track": clocks["track"].result()} if track else {}),
        "memory_growth_mb": grown and {name: round(1000 * value / len(clocks), 3) for name, value in grown.items()},
    }


class _Clock:
    """Times one way of locating, and its stages.

    Args:
        call: the way.
        rest: name of what no stage accounts for.
    """

    last: Fix

    def __init__(self, call: Callable[[Frame], Fix], rest: str) -> None:
        self._call, self._rest = call, rest
        self._names: list[str] = []
        self._wall_ms: list[float] = []
        self._stages: list[dict[str, float]] = []
        self._counts: dict[str, int] = {}

    def answer(self, frame: Frame, name: str) -> None:
        began = time.perf_counter()
        self.last = self._call(frame)
        wall_ms = 1e3 * (time.perf_counter() - began)
        self._names.append(name)
        self._wall_ms.append(wall_ms)
        self._stages.append({**self.last.timings_ms, self._rest: wall_ms - self.last.latency_ms})
        status = self.last.status.value
        self._counts[status] = self._counts.get(status, 0) + 1

    def result(self) -> dict[str, Any]:
        total = sum(self._wall_ms)
        stages = list(dict.fromkeys(stage for spent in self._stages for stage in spent if stage != self._rest))
        return {
            "counts": self._counts,
            "locate_ms": spread(self._wall_ms, self._names),
            "stages_ms": {stage: self._stage(stage, total) for stage in [*stages, self._rest]},
        }

    def _stage(self, stage: str, total: float) -> dict[str, float]:
        # A frame that was refused early has not been through every stage, and says nothing of how long it takes.
        been = [(spent[stage], name) for spent, name in zip(self._stages, self._names, strict=True) if stage in spent]
        values: Sequence[float] = [spent for spent, _ in been]
        return {**spread(values, [name for _, name in been]), "share": round(sum(values) / total, 4)}
