"""Flights in closed loop: each answer of the tracker narrows where it looks next, so that errors come back to it.

`plan` decides everything about a flight from one seed, `run_flight` flies it, `perform` flies many, and `score` judges
them.
"""

from __future__ import annotations

from .fly import Flown, plan, run_flight
from .ground import open_ground
from .rows import ROW, Rows
from .run import Run, perform
from .scenario import PRESETS, Scenario, preset
from .score import score

__all__ = [
    "PRESETS",
    "ROW",
    "Flown",
    "Rows",
    "Run",
    "Scenario",
    "open_ground",
    "perform",
    "plan",
    "preset",
    "run_flight",
    "score",
]
