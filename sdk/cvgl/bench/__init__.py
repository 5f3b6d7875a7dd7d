"""How long localisation takes on this machine, of what parts, what memory it takes, and how far it is from the limit.

What is timed is ``Localizer.locate`` by the wall clock; reading and decoding the pictures, which a drone's camera
delivers decoded, stands beside it and is not part of it.
"""

from __future__ import annotations

from cvgl.bench.machine import allocated_mb, machine, peak_memory_mb, resident_mb
from cvgl.bench.start import cold_start, forget_files
from cvgl.bench.throughput import back_to_back, load_frames, two_threads
from cvgl.bench.timing import open_flight, time_frames

__all__ = [
    "allocated_mb",
    "back_to_back",
    "cold_start",
    "forget_files",
    "load_frames",
    "machine",
    "open_flight",
    "peak_memory_mb",
    "resident_mb",
    "time_frames",
    "two_threads",
]
