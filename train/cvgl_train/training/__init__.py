"""The one training loop, what it draws batches from, and how a run is kept."""

from __future__ import annotations
