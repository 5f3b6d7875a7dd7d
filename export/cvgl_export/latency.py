"""How long an engine takes for an image."""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cvgl.engines.onnxruntime import OnnxEngine
from cvgl_train.models.base import CrossViewModel, View

from .descriptors import Floats
from .running import Run, torch_runner
from .tiles import ParityTiles

__all__ = ["Latency", "latency", "onnx_latency", "processor", "torch_latency"]


@dataclass(frozen=True)
class Latency:
    """Of single images, one after another.

    Args:
        p50_ms, p99_ms: milliseconds within which half and 99 % of the runs ended.
        runs: how many were timed, after a warm-up.
        engine: what ran.
        machine: on what.
    """

    p50_ms: float
    p99_ms: float
    runs: int
    engine: str
    machine: str


def latency(
    run: Run, images: Floats, *, engine: str, machine: str | None = None, runs: int = 50, warm_up: int = 5
) -> Latency:
    """Time an engine.

    Args:
        run: the engine; must not return before it is done.
        images: (B, 3, H, W) what every run is given.
        engine: its name, for people.
        machine: what it ran on; this machine's processor without.
        runs, warm_up: timed runs, and those before them.
    """
    for _ in range(warm_up):
        run(images)
    times = np.empty(max(runs, 1))
    for i in range(len(times)):
        start = time.perf_counter()
        run(images)
        times[i] = time.perf_counter() - start
    middle, late = (float(1e3 * np.percentile(times, share)) for share in (50, 99))
    return Latency(middle, late, len(times), engine, machine or processor())


def torch_latency(model: CrossViewModel, tiles: ParityTiles, view: View, *, runs: int = 50) -> Latency:
    """PyTorch's for one image of a view, on the model's device."""
    device = next(model.parameters()).device
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    engine = f"PyTorch {torch.__version__}, {device.type}, {torch.get_num_threads()} threads"
    return latency(torch_runner(model, view), tiles.batch(view, 0, 1), engine=engine, machine=where, runs=runs)


def onnx_latency(
    path: str | Path, tiles: ParityTiles, view: View, *, threads: int | None = None, runs: int = 50
) -> Latency:
    """ONNX Runtime's for one image of a view, or for as many as the file's batch has, as the SDK runs it on a CPU.

    Raises:
        ModelError: a file that is no embedding network.
    """
    engine = OnnxEngine(path, threads)
    images = tiles.batch(view, 0, 1).repeat(engine.batch or 1, axis=0)
    return latency(engine.run, images, engine=engine.description, runs=runs)


def processor() -> str:
    """This machine's processor, for people."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name") and ":" in line]
    return f"CPU {names[0] if names else platform.machine()}"
