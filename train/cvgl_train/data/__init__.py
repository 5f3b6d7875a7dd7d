"""Datasets: one reader for each official folder tree, and what they have in common."""

from __future__ import annotations
