"""How long localisation takes on this machine, of what parts, and what memory it takes.

What is timed is ``Localizer.locate`` by the wall clock; reading and decoding the pictures, which a drone's camera
delivers decoded, stands beside it and is not part of it.
"""

from __future__ import annotations

from cvgl.bench.machine import machine, peak_memory_mb, resident_mb
from cvgl.bench.start import cold_start
from cvgl.bench.timing import open_flight, time_frames

__all__ = ["cold_start", "machine", "open_flight", "peak_memory_mb", "resident_mb", "time_frames"]
