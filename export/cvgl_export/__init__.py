"""Export: checkpoint to ONNX to engine, each step proving that it is still the same model."""

from __future__ import annotations
