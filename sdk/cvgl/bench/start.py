"""From the start of a process to its first answer."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvgl.bench.machine import peak_memory_mb
from cvgl.bench.timing import open_flight
from cvgl.errors import FlightError, FrameError, MissionError
from cvgl.localizer import Localizer

__all__ = ["cold_start"]

# A cold start that has not ended by then never will.
_COLD_START_S = 300.0


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
    code = "import sys; from cvgl.bench import start; start._answer_once(sys.argv[1])"
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
