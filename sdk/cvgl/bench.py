"""How long localisation takes on this machine, of what parts, and what memory it takes.

What is timed is ``Localizer.locate`` by the wall clock; reading and decoding the pictures, which a drone's camera
delivers decoded, stands beside it and is not part of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from cvgl.errors import FlightError, FrameError, MissionError
from cvgl.fix import Fix
from cvgl.flight import Flight
from cvgl.localizer import Localizer

__all__ = ["cold_start", "machine", "open_flight", "peak_memory_mb", "time_frames"]

# A cold start that has not ended by then never will.
_COLD_START_S = 300.0


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


def cold_start(
    mission: str | Path,
    flight: str | Path,
    *,
    threads: int | None = None,
    frame_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A new process from its start to its first answer, and the memory it took.

    Files are as cold as the operating system's cache makes them: after a first run they are warm.

    Args:
        mission: the mission.
        flight: its first readable frame is located.
        threads: as :meth:`cvgl.Localizer.open`.
        frame_options: ``height`` and ``heading`` as :func:`open_flight` takes them.

    Returns:
        ``import_ms`` (start of the interpreter and ``import cvgl``), ``open_ms``, ``first_locate_ms``, ``total_ms``
        their sum (decoding the picture is left out), ``status`` of the answer, ``peak_memory_mb`` of the process.

    Raises:
        MissionError: the process fails; its last line of complaint is part of the message.
    """
    asked = {
        "mission": str(mission),
        "flight": str(flight),
        "threads": threads,
        "options": dict(frame_options or {}),
        "began": time.time(),
    }
    code = "import sys; from cvgl import bench; bench._answer_once(sys.argv[1])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, json.dumps(asked)], capture_output=True, text=True, timeout=_COLD_START_S
        )
    except subprocess.TimeoutExpired:
        raise MissionError("a cold start did not end", file=mission, expected=f"{_COLD_START_S:g} s at most") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissionError(f"a cold start failed: {said}", file=mission, found=f"exit status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _answer_once(asked: str) -> None:
    """The other side of :func:`cold_start`."""
    imported = time.time()
    task = json.loads(asked)
    localizer = Localizer.open(task["mission"], threads=task["threads"])
    opened = time.time()
    frame = None
    for record in open_flight(localizer, task["flight"], **task["options"]):
        try:
            frame = record.load()
            break
        except FrameError:
            continue
    if frame is None:
        raise FlightError("none of its frames can be read", file=task["flight"])
    began = time.time()
    fix = localizer.locate(frame)
    spent = {
        "import_ms": 1e3 * (imported - task["began"]),
        "open_ms": 1e3 * (opened - imported),
        "first_locate_ms": 1e3 * (time.time() - began),
    }
    spent["total_ms"] = sum(spent.values())
    memory = peak_memory_mb()
    answer = {name: round(value, 1) for name, value in spent.items()}
    print(json.dumps({**answer, "status": fix.status.value, "peak_memory_mb": memory}))


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, MB (10^6 bytes); None where the system does not tell."""
    # Not getrusage: on Linux its figure includes what the parent process held when it started this one.
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith("VmHWM:"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return None


def machine() -> dict[str, Any]:
    """The machine in words: processor, usable cores, memory, architecture, system, load. No names of hosts."""
    memory = None
    with contextlib.suppress(ValueError, OSError, AttributeError):  # not every system has these
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # only Linux has it
        cores = os.cpu_count() or 1
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "processor": _processor(),
        "cores": cores,
        "memory_gb": memory,
        "architecture": platform.machine(),
        "system": platform.system(),
        # What else ran: timings taken beside other work are upper bounds.
        "load_average": None if load is None else round(load, 2),
    }


def _processor() -> str:
    # Boards such as Jetson name themselves in the device tree, their cores in /proc/cpuinfo only by number.
    for path, key in (("/proc/device-tree/model", ""), ("/proc/cpuinfo", "model name")):
        try:
            text = Path(path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        if not key:
            return text.strip("\0 \n")
        for line in text.splitlines():
            name, _, value = line.partition(":")
            if name.strip() == key:
                return value.strip()
    return platform.processor() or platform.machine()


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    numbers = {"p50": p50, "p95": p95, "p99": p99, "mean": np.mean(values)}
    return {name: round(float(value), 3) for name, value in numbers.items()}
