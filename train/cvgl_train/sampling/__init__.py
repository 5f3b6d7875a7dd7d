"""Which pairs make a batch: k-fold, hard negatives by nearest neighbours or clusters, neighbours by position."""

from __future__ import annotations
