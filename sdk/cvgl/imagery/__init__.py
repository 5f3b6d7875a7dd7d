"""Satellite imagery as users have it, read by windows of the local tangent plane."""

from __future__ import annotations

from cvgl.imagery.source import MapSource

__all__ = ["MapSource"]
