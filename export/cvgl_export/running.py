"""Descriptors of all tiles by PyTorch, by ONNX Runtime, or by any engine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from cvgl.errors import ModelError
from cvgl_train.models.base import CrossViewModel, View

from .descriptors import Floats
from .graphs.emulate import emulate
from .graphs.types import is_half
from .tiles import ParityTiles, Progress

__all__ = ["Run", "describe", "onnx_descriptors", "onnx_runner", "torch_descriptors", "torch_runner"]

Run = Callable[[Floats], Floats]
"""(B, 3, H, W) normalised images to (B, D) descriptors."""

_BATCH = 16


def describe(
    run: Run, tiles: ParityTiles, view: View, *, batch: int = _BATCH, progress: Progress | None = None
) -> Floats:
    """(N, D) descriptors of all tiles of a view, whatever is not finite included.

    Args:
        run: the engine; always given `batch` images, the last ones padded with zeros, so that it may have a fixed size.
        tiles: the images.
        view: of them.
        batch: images at a time.
        progress: told how far it is.

    Raises:
        ModelError: the engine gives something else than one descriptor an image.
    """
    count = len(tiles.images(view))
    found: list[Floats] = []
    for start in range(0, count, batch):
        images = tiles.batch(view, start, start + batch)
        size = len(images)
        if size < batch:
            images = np.concatenate([images, np.zeros((batch - size, *images.shape[1:]), np.float32)])
        descriptors = np.asarray(run(images), np.float32)
        if descriptors.ndim != 2 or len(descriptors) != batch:
            raise ModelError("not a descriptor an image", field=view, found=descriptors.shape, expected=f"({batch}, D)")
        found.append(descriptors[:size])
        if progress is not None:
            progress(start + size, count)
    return np.concatenate(found)


def torch_descriptors(
    model: CrossViewModel,
    tiles: ParityTiles,
    view: View,
    *,
    batch: int = _BATCH,
    unit: bool = True,
    progress: Progress | None = None,
) -> Floats:
    """(N, D) descriptors by PyTorch, on the model's device; the model is put into evaluation mode.

    Args:
        model, tiles, view: whose and of what.
        batch: images at a time.
        unit: of unit length whatever the model's metric is, as exported graphs give them; otherwise as
            `CrossViewModel.embed` does.
        progress: told how far it is.

    Raises:
        ModelError: images of another size than the model's.
    """
    return describe(torch_runner(model, view, unit), tiles, view, batch=batch, progress=progress)


def onnx_descriptors(
    path: str | Path,
    tiles: ParityTiles,
    view: View,
    *,
    batch: int = _BATCH,
    threads: int | None = None,
    exact: bool = True,
    progress: Progress | None = None,
) -> Floats:
    """(N, D) descriptors by ONNX Runtime on the CPU.

    Args:
        path: the ONNX file; a fixed batch size is kept to.
        tiles, view: the images.
        batch: images at a time, where the file leaves it free.
        threads: of one inference; ONNX Runtime's default without.
        exact: see `onnx_runner`.
        progress: told how far it is.

    Raises:
        ModelError: a file that ONNX Runtime does not load or run, or that takes other images.
    """
    run, fixed = onnx_runner(path, threads=threads, exact=exact)
    return describe(run, tiles, view, batch=fixed or batch, progress=progress)


def onnx_runner(model: str | Path | Any, *, threads: int | None = None, exact: bool = True) -> tuple[Run, int | None]:
    """A function that runs a graph, and its batch size where that is fixed.

    ONNX Runtime's CPU kernels for half precision are few: around the others it puts casts to FP32, and where two of
    them meet it takes both away. A value beyond 65504 then passes through an FP16 graph unharmed, and agreement with
    FP32 says nothing of a GPU. It also fuses Q/DQ pairs into kernels which saturate on processors without VNNI.

    Args:
        model: an ONNX file or a ModelProto.
        threads: of one inference; ONNX Runtime's default without.
        exact: run what the graph says: `cvgl_export.graphs.emulate` of it where it computes in half precision, and
            Q/DQ pairs as they stand. Otherwise as ONNX Runtime sees fit.

    Raises:
        ModelError: it cannot be loaded.
    """
    import onnx
    import onnxruntime

    file = Path(model) if isinstance(model, (str, Path)) else None
    try:
        graph: Any = onnx.load(os.fspath(file)) if file is not None else model
    except Exception as reason:  # protobuf's, onnx's and the system's errors, depending on where the damage is
        raise ModelError(f"not readable as ONNX: {reason}", file=file) from reason
    options = onnxruntime.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    if exact:
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        if is_half(graph):
            graph = emulate(graph)
    try:
        session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as reason:  # the runtime's own exceptions have no common base
        raise ModelError(f"ONNX Runtime does not load it: {_first_line(reason)}", file=file) from reason
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        found = [(node.name, node.shape) for node in inputs]
        raise ModelError(
            "not an embedding network", file=file, field="inputs", found=found, expected="one of (B, 3, H, W)"
        )
    first = session.get_outputs()[0].name

    def run(images: Floats) -> Floats:
        try:
            return np.asarray(session.run([first], {inputs[0].name: images})[0], np.float32)
        except Exception as reason:
            raise ModelError(f"ONNX Runtime fails: {_first_line(reason)}", file=file) from reason

    fixed = inputs[0].shape[0]
    return run, fixed if isinstance(fixed, int) else None


def torch_runner(model: CrossViewModel, view: View, unit: bool = True) -> Run:
    """A function that runs one view of a model by PyTorch; see `torch_descriptors`."""
    model.eval()
    device = next(model.parameters()).device

    def run(images: Floats) -> Floats:
        with torch.inference_mode():
            found = model.embed(torch.from_numpy(images).to(device), view).float()
            descriptors: Floats = (F.normalize(found, dim=1) if unit else found).cpu().numpy()
        return descriptors

    return run


def _first_line(reason: Exception) -> str:
    return (str(reason).splitlines() or [type(reason).__name__])[0]
