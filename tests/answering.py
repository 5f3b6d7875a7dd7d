"""What the tests of live nodes share, whatever carries the messages: a localiser that answers without thinking."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from cvgl.camera import Camera
from cvgl.fix import Fix, FixStatus
from cvgl.frame import Frame, Prior
from cvgl.geo import LocalFrame
from cvgl.settings import Settings

__all__ = ["LOCAL", "Answering", "fix_at", "wait_until"]

LOCAL = LocalFrame(47.0, 9.5)


def fix_at(moment: float, north_m: float = 0.0, status: FixStatus = FixStatus.REFINED, **changes: Any) -> Fix:
    """A fix 5 m east and so much north of ``LOCAL``; ``changes`` are fields of it."""
    latitude, longitude = LOCAL.to_wgs84(5.0, north_m)
    values: dict[str, Any] = {
        "latitude": float(latitude),
        "longitude": float(longitude),
        "covariance": np.array([[4.0, 1.5], [1.5, 9.0]]),
        "heading_deg": 30.0,
        "heading_sigma_deg": 1.0,
        "height_m": 80.0,
        "score": 0.9,
        "timings_ms": {"all": 12.0},
    }
    return Fix(status, time=moment, **{**values, **changes})


@dataclass
class Answering:
    """Stands for the localiser: answers every frame at once, from what the frame itself says.

    Unless ``answer`` says otherwise the position is 10 m north of ``LOCAL`` for each second of the frame's time beyond
    the first frame's.
    """

    answer: Callable[[Frame], Fix] | None = None
    frames: list[Frame] = field(default_factory=list)
    resets: list[Prior | None] = field(default_factory=list)
    mission: Any = field(
        default_factory=lambda: SimpleNamespace(
            settings=Settings(), camera=replace(Camera.from_field_of_view(64, 48, 62.0), stabilized=False)
        )
    )
    model: Any = field(default_factory=lambda: SimpleNamespace(runtime="test engine", name="test model"))
    gallery: Any = field(default_factory=lambda: SimpleNamespace(local=LOCAL, path="test gallery"))
    camera: Any = None

    def locate(self, frame: Frame) -> Fix:
        self.frames.append(frame)
        if self.answer is not None:
            return self.answer(frame)
        return fix_at(frame.time, 10.0 * (frame.time - self.frames[0].time))

    def track(self, frame: Frame) -> Fix:
        return self.locate(frame)

    def reset(self, prior: Prior | None = None) -> None:
        self.resets.append(prior)


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The first true value of a condition; the test fails where it stays false."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.005)
    raise AssertionError(f"not within {timeout_s:g} s: {condition}")
