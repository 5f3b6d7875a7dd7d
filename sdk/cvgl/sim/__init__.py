"""A procedural world: one vector scene seen as a satellite map and through a drone's camera.

`World.generate(seed)` lays out a place; `render_map` and `render_frame` show it on the day an `Appearance`
describes; `write_map` and `write_flight` write it as the files a mission starts from.
"""

from __future__ import annotations

from .appearance import Appearance
from .flight import write_flight, write_map
from .render import render_frame, render_map
from .scene import STYLES, World

__all__ = ["STYLES", "Appearance", "World", "render_frame", "render_map", "write_flight", "write_map"]
