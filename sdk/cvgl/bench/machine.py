"""The machine that is measured, in words, and the memory of this process."""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["allocated_mb", "machine", "peak_memory_mb", "resident_mb"]


def peak_memory_mb() -> float | None:
    """Largest resident size of this process so far, MB (10^6 bytes); None where the system does not tell."""
    # Not getrusage: on Linux its figure includes what the parent process held when it started this one.
    return _status_mb("VmHWM:")


def allocated_mb() -> float | None:
    """Memory that this process holds and that is no file's, MB (10^6 bytes); None where the system does not tell.

    Files that are mapped, such as a gallery's, are not counted: they come and go with what was looked at last.
    """
    return _status_mb("RssAnon:")


def resident_mb() -> float | None:
    """Resident size of this process now, mapped files included, MB (10^6 bytes); None where nobody tells."""
    return _status_mb("VmRSS:")


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


def _status_mb(field: str) -> float | None:
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(field):
            return round(int(line.split()[1]) * 1024 / 1e6, 2)
    return None


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
