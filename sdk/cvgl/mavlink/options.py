"""What can be set about a MAVLink node."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cvgl.errors import CvglError
from cvgl.mavlink.telemetry import HEIGHTS

__all__ = ["OUTPUTS", "RATES_HZ", "Options"]

#: What each autopilot can be sent, the default first.
OUTPUTS = {"px4": ("global", "vision", "odometry"), "ardupilot": ("external", "gps")}
#: The most messages a second by default, for PX4 with room above a camera of 10 Hz whose frames are answered
#: unevenly. ArduPilot resets its position to each external estimate, so these are few.
RATES_HZ = {"global": 20.0, "vision": 30.0, "odometry": 30.0, "external": 1.0, "gps": 5.0}


@dataclass(frozen=True)
class Options:
    """All options of a node.

    Args:
        autopilot: ``px4`` or ``ardupilot``.
        output: what it is sent, one of ``OUTPUTS``; empty for the default.
        rate_hz: the most messages a second; 0 for the output's own (``RATES_HZ``).
        system: the autopilot's system; 0 takes the first that is heard.
        component: of this node, in the same system.
        sensor: number of this sensor: ``GLOBAL_POSITION_SENSOR``'s id, or ``GPS_INPUT``'s.
        height: a source of height (see ``telemetry.HEIGHTS``), or ``auto`` for the best that is there.
        height_offset_m: added to it: where the source sits above the camera, or the take-off above the ground.
        heading: take it from the autopilot's attitude; otherwise all headings are searched.
        velocity: hand the autopilot's velocity to the tracker, where ``telemetry`` allows it.
        triggered: take exposures from CAMERA_TRIGGER and CAMERA_IMAGE_CAPTURED instead of the camera's own stamps.
        tracking: narrow the search to where the aircraft can have flown.
        coarse: send coarse fixes too.
        wait_s: how long a frame waits for telemetry that covers its exposure.
        camera_timeout_s: without a frame, or telemetry, for so long something is wrong.
        lost_s: without a fix for so long the autopilot is told.
        request: ask the autopilot for the messages that are needed.

    Raises:
        CvglError: names the option, what was found and what was expected.
    """

    autopilot: str
    output: str = ""
    rate_hz: float = 0.0
    system: int = 0
    component: int = 197
    sensor: int = 1
    height: str = "auto"
    height_offset_m: float = 0.0
    heading: bool = True
    velocity: bool = False
    triggered: bool = False
    tracking: bool = True
    coarse: bool = False
    wait_s: float = 0.1
    camera_timeout_s: float = 2.0
    lost_s: float = 3.0
    request: bool = True

    def __post_init__(self) -> None:
        _one_of("autopilot", self.autopilot, tuple(OUTPUTS))
        if not self.output:
            object.__setattr__(self, "output", OUTPUTS[self.autopilot][0])
        _one_of("output", self.output, OUTPUTS[self.autopilot])
        _one_of("height", self.height, ("auto", *HEIGHTS))
        bounds: dict[str, tuple[float, float]] = {
            "rate_hz": (0.0, 100.0),
            "system": (0, 255),
            "component": (1, 255),
            "sensor": (0 if self.output == "gps" else 1, 255),
            "height_offset_m": (-10_000.0, 10_000.0),
            "wait_s": (0.0, 5.0),
            "camera_timeout_s": (0.1, 3600.0),
            "lost_s": (0.1, 3600.0),
        }
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and low <= value <= high):
                raise CvglError("out of range", field=name, found=value, expected=f"{low:g} to {high:g}")
        if self.rate_hz == 0.0:
            object.__setattr__(self, "rate_hz", RATES_HZ[self.output])


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise CvglError("not one of these", field=name, found=value, expected=", ".join(known))
