"""ONNX Runtime: the engine that works everywhere, on an NVIDIA GPU where its CUDA provider is installed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cvgl.errors import ModelError

__all__ = ["OnnxEngine"]

_FATAL_ONLY = 4
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxEngine:
    """One ONNX file with one image input (B, 3, H, W) and one output (B, D).

    Args:
        path: the ONNX file. Check its hash before: what is read here goes to a C++ parser.
        threads: threads of one inference on the CPU; by default two, or one on a single core.

    Raises:
        ModelError: the file does not load, or has other inputs and outputs than these.
    """

    def __init__(self, path: str | Path, threads: int | None = None) -> None:
        self.path = Path(path)
        self.threads = min(2, os.cpu_count() or 1) if threads is None else threads
        if self.threads < 1:
            raise ModelError("not usable", field="threads", found=threads, expected="1 or more")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # Frames come a few times a second; by default the workers would spin, and burn a core, between them.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        options.log_severity_level = _FATAL_ONLY
        try:
            self._session = onnxruntime.InferenceSession(
                os.fspath(self.path),
                sess_options=options,
                providers=[name for name in (_CUDA, _CPU) if name in onnxruntime.get_available_providers()],
            )
        except Exception as reason:  # the runtime's own exceptions have no common base of their own
            raise ModelError(f"ONNX Runtime does not load it: {_first_line(reason)}", file=self.path) from reason
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                "not an embedding network",
                file=self.path,
                field="inputs, outputs",
                found=([node.name for node in inputs], [node.name for node in outputs]),
                expected="one of each",
            )
        channels, height, width = self._fixed(inputs[0], 4)
        if channels != 3 or inputs[0].type != "tensor(float)":
            raise ModelError(
                "not an embedding network",
                file=self.path,
                field=f"input {inputs[0].name}",
                found=f"{inputs[0].type} {inputs[0].shape}",
                expected="tensor(float) (batch, 3, height, width)",
            )
        (self.descriptor_size,) = self._fixed(outputs[0], 2)
        self.input_size = (height, width)
        self.batch = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else None
        # What is in use, which is not what was asked for where the GPU or its libraries are absent.
        where = "CUDA" if _CUDA in self._session.get_providers() else f"CPU, {self.threads} threads"
        self.description = f"ONNX Runtime {onnxruntime.__version__}, {where}"
        self._input = inputs[0].name
        # The first run allocates and picks kernels; it must not be the first frame's.
        self.run(np.zeros((self.batch or 1, 3, height, width), np.float32))

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, H, W) normalised RGB to (B, D) descriptors.

        Raises:
            ModelError: the network fails on this input.
        """
        try:
            (descriptors,) = self._session.run(None, {self._input: batch})
        except Exception as reason:
            raise ModelError(f"ONNX Runtime fails: {_first_line(reason)}", file=self.path) from reason
        return np.asarray(descriptors, np.float32)

    def _fixed(self, node: Any, dimensions: int) -> list[int]:
        """The sizes after the batch; they must be numbers, since patches and galleries are made for them."""
        if len(node.shape) != dimensions or not all(isinstance(size, int) for size in node.shape[1:]):
            raise ModelError(
                "not an embedding network",
                file=self.path,
                field=node.name,
                found=node.shape,
                expected=f"{dimensions} dimensions, fixed but for the batch",
            )
        return list(node.shape[1:])


def _first_line(reason: Exception) -> str:
    return (str(reason).splitlines() or [type(reason).__name__])[0]
