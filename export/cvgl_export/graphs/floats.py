"""Floating-point types of a graph, and their names."""

from __future__ import annotations

from typing import Literal

from onnx import TensorProto

__all__ = ["FLOATS", "HALF_MAX", "HALF_TYPES", "TYPE_NAMES", "Kind"]

Kind = Literal["fp16", "bf16"]

HALF_MAX = 65504.0
"""Greatest finite number in FP16."""

HALF_TYPES: dict[str, int] = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}

TYPE_NAMES: dict[int, str] = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
FLOATS = frozenset(TYPE_NAMES)
