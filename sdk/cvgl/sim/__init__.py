"""A procedural world: one vector scene seen as a satellite map and through a drone's camera."""

from __future__ import annotations

from .appearance import Appearance
from .render import render_frame, render_map
from .scene import STYLES, World

__all__ = ["STYLES", "Appearance", "World", "render_frame", "render_map"]
