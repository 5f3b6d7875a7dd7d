"""A vehicle that circles over a procedural town, for benchmarks that send its flight to a bridge.

Frames are warped from the map itself under a changed light: position errors show that answers belong to their frames,
no more.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.calibrate import simulated_frame
from cvgl.camera import Camera
from cvgl.geo import LocalFrame
from cvgl.sim import World, render_map, write_map
from cvgl.sim.views import MapImage

__all__ = ["CAMERA", "HEIGHT_M", "PLACE", "TICK_S", "make_frames", "make_mission", "nearest", "round_s", "where"]

PLACE = LocalFrame(47.0, 9.5)
HEIGHT_M = 80.0
CAMERA = Camera.from_field_of_view(512, 384, 62.0)
#: Between two frames.
TICK_S = 0.1
_SIDE_M, _GSD_M = 480.0, 0.3
_RADIUS_M, _SPEED_M_S = 75.0, 10.0


def round_s() -> float:
    """Seconds of one round."""
    return 2 * math.pi * _RADIUS_M / _SPEED_M_S


def where(seconds: float) -> tuple[float, float, float]:
    """Easting, northing and heading (degrees) on the circle, flown clockwise from its north."""
    angle = _SPEED_M_S * seconds / _RADIUS_M
    return _RADIUS_M * math.sin(angle), _RADIUS_M * math.cos(angle), (math.degrees(angle) + 90.0) % 360.0


def make_mission(work: Path) -> Path:
    """The town's mission in a folder, made once."""
    from cvgl_export.prepare import CheckSize, prepare

    mission = work / "mission"
    if not mission.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        write_map(_world(), work / "map.tif", gsd=_GSD_M)
        camera = work / "camera.yaml"
        camera.write_text(json.dumps(CAMERA.to_dict()), encoding="utf-8")  # JSON is YAML
        check = CheckSize(views=32, frames=4, trials=0)
        prepare(work / "map.tif", camera, HEIGHT_M, mission, adapt=False, stride_m=20.0, check=check)
    return mission


def make_frames() -> list[NDArray[np.uint8]]:
    """One round of images, BGR. The last meets the first, so that the flight may go on for as long as it likes."""
    rgb = render_map(_world(), _GSD_M)
    view = MapImage.of(rgb, np.ones(rgb.shape[:2], bool), _GSD_M, -_SIDE_M / 2, _SIDE_M / 2)
    rng = np.random.default_rng(0)
    count = round(round_s() / TICK_S)
    frames = []
    for index in range(count):
        easting, northing, heading = where(round_s() * index / count)
        frames.append(simulated_frame(view, easting, northing, HEIGHT_M, heading, CAMERA, rng, light=0.3))
    return frames


def nearest(seconds: float, count: int) -> tuple[int, float, float]:
    """The image of ``count`` nearest to the vehicle: its index, and the easting and northing it was taken at."""
    index = round(seconds / round_s() * count) % count
    easting, northing, _ = where(round_s() * index / count)
    return index, easting, northing


def _world() -> World:
    return World.generate(5, _SIDE_M, "suburban")
