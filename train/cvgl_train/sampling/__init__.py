"""Which pairs a batch is made of."""

from __future__ import annotations

from .base import Sampler, SamplerError, ignored_pairs, share
from .build import SAMPLERS, build_sampler

__all__ = ["SAMPLERS", "Sampler", "SamplerError", "build_sampler", "ignored_pairs", "share"]
