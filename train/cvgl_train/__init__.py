"""Training: the embedding networks, their losses, and the two ways to train one (the base, and for one
map)."""

from __future__ import annotations
