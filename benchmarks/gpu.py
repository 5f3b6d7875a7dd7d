"""On a machine with an NVIDIA GPU: what the warp costs beside the network, and whether it gives what the host's gives.

    cvgl-export MODEL.cvgl --out MODEL --engine MODEL/embed.engine     # once, where TensorRT is
    python benchmarks/gpu.py --model MODEL

The network runs by TensorRT where the bundle has an engine for this GPU. Else PyTorch runs the architecture of the same
name, of random weights, in half precision as one CUDA graph: the arithmetic is the same, the kernels are not the best.

GPU times are taken between events on one stream, every part in turn in each round, so that what else happens falls on
all of them alike. `upload` copies the raw frame from page-locked memory, `warp` is the kernel alone, `whole` is both
and the network as flight runs them; on a GPU with memory of its own the upload is bound by the bus, and a network that
is given finished patches instead has left that work to the CPU. Latency is what a caller waits by the clock.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, run_app, slug, write_record

from cvgl.bench import machine
from cvgl.bench.spread import spread
from cvgl.camera import Camera
from cvgl.engines import RawFrame
from cvgl.engines.choose import choose_engine
from cvgl.engines.cuda import Gpu, Kernel, open_gpu
from cvgl.engines.tensorrt import TensorRTEngine
from cvgl.engines.warp import GpuWarp, load_warp
from cvgl.errors import MissingDependencyError
from cvgl.geometry import Mount, camera_to_enu
from cvgl.model import Model, View, read_manifest
from cvgl.native import warp_into
from cvgl.rectify import view_maps

BASE = ROOT / "sdk" / "cvgl" / "models" / "cvgl-nano.cvgl"
# Pixel format, width and height of the frame.
FRAMES = (("bgr", 2000, 1125), ("nv12", 1920, 1080), ("bgr", 4000, 3000))
HEADINGS = (1, 16)
ASKED = 1.3  # of warp and network beside the network
ROUNDS, AGREEING = 200, 40

Parts = dict[str, Callable[[], float]]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    model: Annotated[Path, typer.Option(help="Bundle, with a TensorRT engine or without.")] = BASE,
    rounds: Annotated[int, typer.Option(help="Measurements of each part.")] = ROUNDS,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = ROOT / "benchmarks" / "results",
) -> None:
    """Measure the warp, the network and both, and write them as gpu-NAME.json and .md."""
    gpu = open_gpu()
    with gpu.active():
        kernel = load_warp(gpu)
        used = {"registers": kernel.registers, "local_bytes": kernel.local_bytes}
    view = Model(model, read_manifest(model), {}).views["query"]
    fingerprint = Model(model, read_manifest(model), {}).fingerprint
    engine, why = choose_engine(model / view.file, views=("query",), fingerprint=fingerprint)
    network = engine if isinstance(engine, TensorRTEngine) else _Torch(gpu, read_manifest(model)["architecture"], view)
    rows = []
    for pixels, width, height in FRAMES:
        for headings in HEADINGS:
            frame = _frame(view, pixels, width, height, headings)
            if isinstance(network, TensorRTEngine):
                with _parts_of_engine(gpu, kernel, network, frame, headings) as parts:
                    row = _measure(parts, rounds)
                row |= _latency(network, frame, rounds)
            else:
                with network.parts(kernel, frame, headings) as parts:
                    row = _measure(parts, rounds)
            rows.append({"frame": f"{width} x {height} {pixels}", "headings": headings, **row})
            print(
                {name: value["p50"] for name, value in row["gpu_ms"].items()}, rows[-1]["frame"], headings, flush=True
            )
    data = {
        "made": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit(),
        "command": f"python benchmarks/gpu.py --rounds {rounds}",
        "machine": machine(),
        "gpu": vars(gpu.info),
        "kernel": used,
        "network": {"model": str(read_manifest(model)["name"]), "runs by": network.description, "why": why},
        "rounds": rounds,
        "asked": ASKED,
        "rows": rows,
        "agreement": _agreement(gpu, kernel, view),
    }
    with gpu.active():
        kernel.free()
    write_record(out, f"gpu-{slug(gpu.info.name)}", data, _page(data))


class _Torch:
    """The architecture in PyTorch, as one CUDA graph over memory that the warp writes to."""

    def __init__(self, gpu: Gpu, architecture: str, view: View) -> None:
        if importlib.util.find_spec("torch") is None:
            raise MissingDependencyError("no TensorRT engine for this GPU, and no PyTorch", expected="one of both")
        import torch

        from cvgl_train.registry import create_model

        if not torch.cuda.is_available():
            raise MissingDependencyError("no TensorRT engine for this GPU, and this PyTorch has no CUDA")
        self._torch, self._gpu, self._view = torch, gpu, view
        self._module = create_model(architecture).eval().half().cuda()
        self.description = f"PyTorch {torch.__version__}, half precision, CUDA graph, random weights"

    @contextmanager
    def parts(self, kernel: Kernel, frame: RawFrame, headings: int) -> Iterator[Parts]:
        torch, gpu, size = self._torch, self._gpu, self._view.input_size
        images = torch.zeros((headings, 3, *size), device="cuda")
        with gpu.active():
            stream = gpu.stream()
            warp = GpuWarp(gpu, kernel, frame, size, headings, images.data_ptr())
            warp.write(frame, frame.maps)
        own = torch.cuda.ExternalStream(stream.handle)
        own.wait_stream(torch.cuda.current_stream())
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.stream(own):
            self._module(images.half(), "query")  # what is prepared once must not be captured
            own.synchronize()
            with torch.cuda.graph(graph, stream=own):
                self._module(images.half(), "query")

        def network() -> None:
            with torch.cuda.stream(own):
                graph.replay()

        def whole() -> None:
            warp.put(stream, headings)
            network()

        def timed(work: Callable[[], None]) -> Callable[[], float]:
            def measure() -> float:
                with gpu.active():
                    return stream.time_ms(work)

            return measure

        works = {"upload": lambda: warp.upload(stream), "warp": lambda: warp.launch(stream, headings)}
        yield {name: timed(work) for name, work in {**works, "network": network, "whole": whole}.items()}
        own.synchronize()
        with gpu.active():
            warp.free()


@contextmanager
def _parts_of_engine(
    gpu: Gpu, kernel: Kernel, engine: TensorRTEngine, frame: RawFrame, headings: int
) -> Iterator[Parts]:
    """What flight launches, and the warp by itself in memory of its own."""
    with gpu.active():
        stream = gpu.stream()
        images = gpu.buffer((headings, 3, *engine.input_size))
        warp = GpuWarp(gpu, kernel, frame, engine.input_size, headings, images.address)
        warp.write(frame, frame.maps)
        warp.put(stream, headings)
        stream.synchronize()

    def alone(work: Callable[[], None]) -> float:
        with gpu.active():
            return stream.time_ms(work)

    yield {
        "upload": lambda: alone(lambda: warp.upload(stream)),
        "warp": lambda: alone(lambda: warp.launch(stream, headings)),
        "network": lambda: engine.time_ms(headings),
        "whole": lambda: engine.time_ms(headings, frame),
    }
    with gpu.active():
        for held in (warp, images, stream):
            held.free()


def _measure(parts: Parts, rounds: int) -> dict[str, Any]:
    """GPU milliseconds of every part, and the ratios of each round."""
    for _ in range(20):
        for part in parts.values():
            part()
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, part in parts.items():
            times[name].append(part())
    taken = {name: np.array(values) for name, values in times.items()}
    ratios = {
        "warp and network": (taken["warp"] + taken["network"]) / taken["network"],
        "whole": taken["whole"] / taken["network"],
    }
    return {
        "gpu_ms": {name: spread(values) for name, values in taken.items()},
        "times the network": {name: spread(values) for name, values in ratios.items()},
    }


def _latency(engine: TensorRTEngine, frame: RawFrame, rounds: int) -> dict[str, Any]:
    """Milliseconds that a caller waits: for raw frames through one graph, and for patches made on the host."""
    count, size = len(frame.maps), engine.input_size
    tensor, masks = np.empty((count, 3, *size), np.float32), np.empty((count, *size), np.uint8)

    def on_host() -> None:
        _warp_on_host(frame, tensor, masks)
        engine.run(tensor)

    works = {"frame on the GPU": lambda: engine.run_frame(frame), "warp on the host": on_host}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(rounds + 10):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn >= 10:
                times[name].append(1000 * (time.perf_counter() - start))
    return {"latency_ms": {name: spread(values) for name, values in times.items()}}


def _agreement(gpu: Gpu, kernel: Kernel, view: View) -> dict[str, Any]:
    """Grey levels between the GPU's warp and the host's, over random cameras, attitudes and frames."""
    away: list[NDArray[np.float64]] = []
    seen: list[NDArray[np.bool_]] = []
    for seed in range(AGREEING):
        rng = np.random.default_rng(seed)
        pixels = ("bgr", "rgb", "grey", "nv12", "yuyv")[seed % 5]
        width, height = (2 * int(n) for n in rng.integers(160, 1000, 2))
        frame = _frame(view, pixels, width, height, 2, seed)
        size = view.input_size
        tensor, masks = np.empty((2, 3, *size), np.float32), np.empty((2, *size), np.uint8)
        _warp_on_host(frame, tensor, masks)
        with gpu.active():
            stream, out = gpu.stream(), gpu.buffer((2, 3, *size))
            warp = GpuWarp(gpu, kernel, frame, size, 2, out.address)
            warp.write(frame, frame.maps)
            warp.put(stream, 2)
            out.download(stream, 2)
            warp.masks.download(stream, 2)
            stream.synchronize()
            scale = np.array(frame.scale)[:, None, None]
            away.append((np.abs(out.host.astype(np.float64) - tensor) / scale).ravel())
            seen.append((warp.masks.host == masks).ravel())
            for held in (warp, out, stream):
                held.free()
    levels, same = np.concatenate(away), np.concatenate(seen)
    return {
        "frames": AGREEING,
        "within a grey level": float((levels <= 1.0).mean()),
        "same mask": float(same.mean()),
        "p99.99 grey levels": float(np.percentile(levels, 99.99)),
        "most grey levels": float(levels.max()),
    }


def _warp_on_host(frame: RawFrame, tensor: NDArray[np.float32], masks: NDArray[np.uint8]) -> None:
    looks = (frame.scale, frame.offset, frame.channels)
    warp_into(tensor, masks, frame.image, frame.pixels, frame.maps, *frame.intrinsics, frame.distortion, *looks, 0)


def _frame(view: View, pixels: str, width: int, height: int, headings: int, seed: int = 0) -> RawFrame:
    """A tilted camera with a lens, which sees a little more than the network's input."""
    rng = np.random.default_rng(seed)
    shapes = {"grey": (height, width), "nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}
    image = rng.integers(0, 256, shapes.get(pixels, (height, width, 3)), np.uint8)
    focal, above, side = 0.8 * width, 120.0, view.input_size[0]
    camera = Camera(width, height, focal, focal, width / 2, height / 2, (-0.12, 0.02, 0.0008, -0.0005, 0.002))
    pitch, roll = (float(angle) for angle in rng.uniform(-10, 10, 2))
    turns = [camera_to_enu(Mount(), 20.0 + 360.0 * k / headings, pitch, roll) for k in range(headings)]
    maps = view_maps(camera, turns, above, 0.9 * above * min(width, height) / focal / side, side)[1]
    lens = (camera.fx, camera.fy, camera.cx, camera.cy)
    scale, offset = view.normalisation
    frame = RawFrame(image, pixels, maps, lens, camera.distortion, scale, offset, view.channels)
    return replace(frame, maps=np.ascontiguousarray(frame.maps))


def _page(data: dict[str, Any]) -> str:
    gpu, agreement = data["gpu"], data["agreement"]
    major, minor = gpu["compute_capability"]
    lines = [
        f"# The warp on the GPU: {gpu['name']}",
        "",
        f"{data['made']}, commit {data['commit']}. Compute capability {major}.{minor}, driver for CUDA "
        f"{gpu['driver']}, {'memory shared with the CPU' if gpu['integrated'] else 'memory of its own'}. "
        f"{data['machine']['processor']}, {data['machine']['cores']} cores.",
        f"Made by `{data['command']}`; the JSON file beside this one has every digit.",
        "",
        f"Network: {data['network']['model']} by {data['network']['runs by']} ({data['network']['why']}).",
        f"The kernel uses {data['kernel']['registers']} registers and {data['kernel']['local_bytes']} bytes of local "
        "memory a thread.",
        "",
        f"GPU milliseconds, medians of {data['rounds']}; asked of warp and network: at most {data['asked']} times the "
        "network. `whole` includes the upload of the raw frame.",
        "",
        "| frame | headings | upload | warp | network | whole | warp and network / network | whole / network |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in data["rows"]:
        parts = " | ".join(f"{row['gpu_ms'][name]['p50']:.3f}" for name in ("upload", "warp", "network", "whole"))
        ratios = row["times the network"].values()
        shown = " | ".join(f"{r['p50']:.2f} ({r['p50_low']:.2f} to {r['p50_high']:.2f})" for r in ratios)
        lines.append(f"| {row['frame']} | {row['headings']} | {parts} | {shown} |")
    if any("latency_ms" in row for row in data["rows"]):
        lines += ["", "Latency by the clock, milliseconds, p50 (p95):", ""]
        lines += ["| frame | headings | frame on the GPU | warp on the host |", "|---|---:|---:|---:|"]
        for row in data["rows"]:
            shown = " | ".join(f"{taken['p50']:.2f} ({taken['p95']:.2f})" for taken in row["latency_ms"].values())
            lines.append(f"| {row['frame']} | {row['headings']} | {shown} |")
    lines += [
        "",
        f"Against the host's warp in double precision, {agreement['frames']} random frames of noise: "
        f"{100 * agreement['within a grey level']:.3f} % of the values within a grey level (asked: 99.9 %), 99.99 % "
        f"within {agreement['p99.99 grey levels']:.3f}, at most {agreement['most grey levels']:.2f}; "
        f"{100 * agreement['same mask']:.3f} % of the mask the same.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_app(app)
