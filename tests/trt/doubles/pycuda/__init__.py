"""A double of pycuda for machines without a GPU; see `driver`."""

from __future__ import annotations
