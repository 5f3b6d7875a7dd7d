"""What training minimises: one plain function a loss; `terms` joins them to what a recipe asks for."""

from __future__ import annotations
