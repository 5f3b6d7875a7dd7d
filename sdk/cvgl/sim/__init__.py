"""A procedural world: one vector scene seen as a satellite map and through a drone's camera."""

from __future__ import annotations

from .scene import World

__all__ = ["World"]
