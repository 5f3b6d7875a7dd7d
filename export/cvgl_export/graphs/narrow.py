"""Weights in half precision."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from cvgl.errors import ModelError

from .floats import TYPE_NAMES
from .read import array_of

__all__ = ["narrowed", "rounded"]


def narrowed(tensor: TensorProto, kind: int, name: str) -> tuple[TensorProto, int]:
    """A weight in half precision under a name, and how many of its values became 0.

    Raises:
        ModelError: a value beyond the type's range.
    """
    wide = array_of(tensor)
    narrow = rounded(wide, kind)
    beyond = np.isfinite(wide) & ~np.isfinite(narrow.astype(np.float32))
    if beyond.any():
        worst = float(np.abs(wide[beyond]).max())
        limit = f"at most {float(ml_dtypes.finfo(narrow.dtype).max):.6g} in {TYPE_NAMES[kind]}"
        raise ModelError("a weight is beyond half precision", field=tensor.name, found=worst, expected=limit)
    half = TensorProto(name=name, data_type=kind, dims=tensor.dims, raw_data=narrow.tobytes())
    return half, int(np.count_nonzero((narrow == 0) & (wide != 0)))


def rounded(values: NDArray[np.float32], kind: int) -> NDArray[Any]:
    """Values in half precision, infinite where they are beyond its range."""
    with np.errstate(over="ignore"):
        return values.astype(np.float16 if kind == TensorProto.FLOAT16 else ml_dtypes.bfloat16)
