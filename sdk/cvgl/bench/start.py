"""From the start of a process to its first answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cvgl.bench.machine import peak_memory_mb
from cvgl.bench.timing import open_flight
from cvgl.errors import FlightError, FrameError, MissionError
from cvgl.gallery import Gallery
from cvgl.localizer import Localizer
from cvgl.mission import Mission
from cvgl.model import Model

__all__ = ["PARTS", "answer_once", "cold_start", "forget_files"]

PARTS = (
    "interpreter_ms",
    "import_ms",
    "open_mission_ms",
    "open_model_ms",
    "open_gallery_ms",
    "open_rest_ms",
    "first_locate_ms",
)
"""Of a cold start, in their order."""

# A cold start that has not ended by then never will.
_COLD_START_S = 300.0
# The first line is run before anything is imported but the clock, which the interpreter has loaded by then anyway.
_CHILD = """
import time; awake = time.monotonic()
import cvgl; imported = time.monotonic(); busy = time.process_time()
import sys; from cvgl.bench.start import answer_once; answer_once(sys.argv[1], awake, imported, busy)
"""


def cold_start(
    mission: str | Path,
    flight: str | Path,
    *,
    threads: int | None = None,
    frame_options: Mapping[str, Any] | None = None,
    repeat: int = 1,
    from_disk: bool = False,
    on_start: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """A new process from its start to its first answer, and the memory it took.

    The clock starts in this process, before it asks for the new one, so that the start of the interpreter is part of
    it. Decoding the picture, which a camera delivers decoded, is not.

    Args:
        mission: the mission.
        flight: its first readable frame is located.
        threads: as :meth:`cvgl.Localizer.open`.
        frame_options: ``height`` and ``heading`` as :func:`open_flight` takes them.
        repeat: processes one after the other; the one with the median total is told.
        from_disk: before each, ask the system to forget what it has of the mission's files in memory (as after a
            start of the machine; libraries stay). It may refuse, and a virtual machine's host may remember them.
        on_start: called after each process.

    Returns:
        ``total_ms`` and what it is the sum of (:data:`PARTS`): the start of the interpreter, ``import cvgl``, opening
        mission, model (with the library that runs it) and gallery, what else ``Localizer.open`` does, and the first
        ``locate``; ``processor_ms``, what all its threads took of the processors, which other work on the machine
        hardly lengthens; ``totals_ms`` of all repetitions, ``status`` of the answer, ``peak_memory_mb``.

    Raises:
        MissionError: the process fails; its last line of complaint is part of the message.
    """
    starts = []
    for _ in range(repeat):
        if from_disk:
            forget_files(Path(mission))
        starts.append(_start(mission, flight, threads, dict(frame_options or {})))
        if on_start is not None:
            on_start()
    starts.sort(key=lambda start: float(start["total_ms"]))
    return {**starts[(len(starts) - 1) // 2], "totals_ms": [start["total_ms"] for start in starts]}


def forget_files(folder: Path) -> bool:
    """Ask the system to forget what it holds in memory of the files of a folder.

    Returns:
        False where the system does not take such requests.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                # What is not on the disk yet cannot be forgotten.
                os.fsync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
    return True


def _start(mission: str | Path, flight: str | Path, threads: int | None, options: dict[str, Any]) -> dict[str, Any]:
    task = {"mission": str(mission), "flight": str(flight), "threads": threads, "options": options}
    began = time.monotonic()  # the same clock in all processes
    words = [sys.executable, "-c", _CHILD, json.dumps({**task, "began": began})]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_COLD_START_S)
    except subprocess.TimeoutExpired:
        raise MissionError("a cold start did not end", file=mission, expected=f"{_COLD_START_S:g} s at most") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissionError(f"a cold start failed: {said}", file=mission, found=f"exit status {done.returncode}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def answer_once(asked: str, awake: float, imported: float, busy: float) -> None:
    """The other side of :func:`cold_start`: prints what it returns.

    Args:
        asked: the task, as JSON.
        awake, imported: when the interpreter ran its first line, and when cvgl was imported; ``time.monotonic()``.
        busy: processor time that the process had taken by then, seconds.
    """
    task = json.loads(asked)
    spent = {
        "interpreter_ms": awake - task["began"],
        "import_ms": imported - awake,
        "open_mission_ms": 0.0,
        "open_model_ms": 0.0,
        "open_gallery_ms": 0.0,
    }
    for kind, part in ((Mission, "open_mission_ms"), (Model, "open_model_ms"), (Gallery, "open_gallery_ms")):
        _watch(kind, spent, part)
    began, busy_before = time.monotonic(), time.process_time()
    localizer = Localizer.open(task["mission"], threads=task["threads"])
    opened = time.monotonic() - began
    busy += time.process_time() - busy_before
    spent["open_rest_ms"] = opened - sum(spent[part] for part in PARTS[2:5])
    frame = None
    for record in open_flight(localizer, task["flight"], **task["options"]):
        try:
            frame = record.load()
            break
        except FrameError:
            continue
    if frame is None:
        raise FlightError("none of its frames can be read", file=task["flight"])
    began, busy_before = time.monotonic(), time.process_time()
    fix = localizer.locate(frame)
    spent["first_locate_ms"] = time.monotonic() - began
    busy += time.process_time() - busy_before
    answer = {part: round(1e3 * spent[part], 1) for part in PARTS}
    answer |= {"total_ms": round(1e3 * sum(spent.values()), 1), "processor_ms": round(1e3 * busy, 1)}
    print(json.dumps({**answer, "status": fix.status.value, "peak_memory_mb": peak_memory_mb()}))


def _watch(kind: type, spent: dict[str, float], part: str) -> None:
    """Time a class's ``open`` from now on: the real ``Localizer.open`` is taken apart, not one made up of its parts."""
    inner = kind.open  # type: ignore[attr-defined]

    def watched(*args: Any, **options: Any) -> Any:
        began = time.monotonic()
        try:
            return inner(*args, **options)
        finally:
            spent[part] += time.monotonic() - began

    kind.open = watched  # type: ignore[attr-defined]
