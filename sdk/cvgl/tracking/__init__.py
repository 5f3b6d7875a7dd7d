"""The filter over frames: from what each of them says to where the aircraft is, at any time."""

from __future__ import annotations

from cvgl.tracking.evidence import Sight, distinct
from cvgl.tracking.tracker import Answer, Expected, Tracker

__all__ = ["Answer", "Expected", "Sight", "Tracker", "distinct"]
