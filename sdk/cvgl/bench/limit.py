"""What this machine can do at best, and how far each stage is from it.

Two ceilings are measured, with as many threads as the localiser uses: the rate of a large matrix product in single
precision, and the bandwidth of memory far beyond the caches. A stage's limit is the time that its least work takes at
these rates, whichever of arithmetic and memory takes longer (a roofline: Williams et al., CACM 2009). The work is
counted from shapes, for the method as it is; that another method may need less is not counted.

Not every loop can reach the rate of a matrix product: transforms and gathers of single pixels never do, so that a stage
at several times its limit may have little left to gain. And numpy's matrix product is no law of nature either: a stage
may come out faster than its limit by some percent.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cvgl import refine, register
from cvgl.correlate import REDUCTION
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.fix import Fix
from cvgl.frame import Frame
from cvgl.gallery.gallery import EXACT_UP_TO
from cvgl.geometry import camera_to_enu, wrap_degrees
from cvgl.localizer import Localizer

__all__ = ["Ceiling", "Work", "count_network", "distances", "measure_ceiling", "measure_here", "stage_work"]

# Beside other work the smaller one may be over before anybody interrupts it; left alone, the larger one is faster.
_GEMM_SIDES = (512, 1536)
_SECONDS = 0.7
# Arrays this many times the last cache's size, within bounds that every machine can hold three of.
_BEYOND_CACHE = 4
_LEAST_BYTES, _MOST_BYTES = 64 << 20, 256 << 20
# Arrays are moved and timed by pieces, one after the other, float32 numbers: a piece is over before it is interrupted,
# and no cache holds it when its turn comes again. The triad's two steps follow each other while the step is in a cache.
_PIECE, _STEP = 1 << 21, 1 << 15
_AVERAGED_PX = 4
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_CHILD = "import sys; from cvgl.bench.limit import measure_here; measure_here(int(sys.argv[1]))"
_CHILD_S = 120.0


@dataclass(frozen=True)
class Ceiling:
    """What the machine was seen to do at best.

    Args:
        threads: that took part.
        gflops: 10^9 single-precision additions and multiplications a second, in matrix products.
        read_gb_s, copy_gb_s, triad_gb_s: 10^9 bytes a second, read and written: the largest element, a copy, and
            a = b + s c as STREAM counts it (what a write reads of the old content is not counted).
        array_mb: size of each array that was moved.
    """

    threads: int
    gflops: float
    read_gb_s: float
    copy_gb_s: float
    triad_gb_s: float
    array_mb: float

    @property
    def gb_s(self) -> float:
        """The best of the three."""
        return max(self.read_gb_s, self.copy_gb_s, self.triad_gb_s)


@dataclass(frozen=True)
class Work:
    """The least that a stage has to do for one frame.

    Args:
        flop: additions and multiplications.
        bytes: to be read or written that no cache holds from before.
        counted: of what.
    """

    flop: float
    bytes: float
    counted: str


def measure_ceiling(threads: int) -> Ceiling:
    """Measure both ceilings, in a process of its own: the threads of numpy's library are fixed when it is loaded.

    Args:
        threads: to compute with.

    Raises:
        MissingDependencyError: numpy's matrix product or the process fails here.
    """
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, "1")}
    words = [sys.executable, "-c", _CHILD, str(threads)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=_CHILD_S, env=environment)
    except subprocess.TimeoutExpired:
        raise MissingDependencyError("the machine's ceiling cannot be measured: it takes too long") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise MissingDependencyError(f"the machine's ceiling cannot be measured: {said}")
    return Ceiling(threads=threads, **json.loads(done.stdout))


def measure_here(threads: int) -> None:
    """The other side of :func:`measure_ceiling`: prints the ceiling's fields as JSON."""
    # A product of its own for each thread, all at once, each at its best: a single one shared by all threads waits for
    # the slowest of them, and shows what else the machine does rather than what it can do.
    with ThreadPoolExecutor(threads) as executor:
        rates = [sum(executor.map(_product_rate, [side] * threads)) for side in _GEMM_SIDES]
    found = {"gflops": max(rates) / 1e9}
    size = _array_bytes()
    count = size // 4 // threads
    pieces = cycle([slice(start, start + _PIECE) for start in range(0, count - _PIECE + 1, _PIECE)])
    with ThreadPoolExecutor(threads) as executor:
        # Each thread fills its own part: where memory has several homes, it lies with who touched it first.
        one, two, three = (list(executor.map(lambda _: np.ones(count, np.float32), range(threads))) for _ in range(3))

        def triad(part: int, piece: slice) -> None:
            for start in range(piece.start, piece.stop, _STEP):
                step = slice(start, start + _STEP)
                target = three[part][step]
                np.multiply(two[part][step], np.float32(3.0), out=target)
                np.add(target, one[part][step], out=target)

        def rate(arrays: int, work: Callable[[int, slice], Any]) -> float:
            def move() -> None:
                piece = next(pieces)
                list(executor.map(lambda part: work(part, piece), range(threads)))

            return arrays * 4.0 * _PIECE * threads / _least_seconds(move)

        found["read_gb_s"] = rate(1, lambda part, piece: one[part][piece].max()) / 1e9
        found["copy_gb_s"] = rate(2, lambda part, piece: np.copyto(three[part][piece], one[part][piece])) / 1e9
        found["triad_gb_s"] = rate(3, triad) / 1e9
    print(json.dumps({name: round(value, 2) for name, value in found.items()} | {"array_mb": round(size / 1e6, 1)}))


def _product_rate(side: int) -> float:
    """Floating-point operations a second of a product of square matrices."""
    rng = np.random.default_rng(0)
    left, right = (rng.random((side, side), np.float32) for _ in range(2))
    product = np.empty_like(left)
    return 2.0 * side**3 / _least_seconds(lambda: np.matmul(left, right, out=product))


def count_network(network: Path, input_size: tuple[int, int]) -> tuple[float, float]:
    """Multiply-adds and bytes of weights (FP32) of an ONNX network for one image.

    ONNX Runtime tells the shapes of everything that it computes in a profile of one run, with its own rewriting of
    the graph turned off. Convolutions and matrix products are counted; the rest is small beside them.

    Args:
        network: the file, its hash checked before.
        input_size: (height, width) of the image.

    Raises:
        ModelError: the network does not run on the CPU.
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Weights that were packed for a kernel lose their shapes.
        options.add_session_config_entry("session.disable_prepacking", "1")
        options.enable_profiling = True
        options.profile_file_prefix = os.path.join(folder, "profile")
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(os.fspath(network), options, providers=["CPUExecutionProvider"])
            image = session.get_inputs()[0]
            batch = image.shape[0] if isinstance(image.shape[0], int) else 1
            session.run(None, {image.name: np.zeros((batch, 3, *input_size), np.float32)})
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        except Exception as reason:  # the runtime's own exceptions have no common base of their own
            raise ModelError(f"cannot be counted: {reason}", file=network) from reason
    macs, weights = 0.0, 0.0
    for event in events:
        told = event.get("args", {})
        kind = told.get("op_name")
        if event.get("cat") != "Node" or kind not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        first, second = (next(iter(entry.values())) for entry in told["input_type_shape"][:2])
        made = next(iter(told["output_type_shape"][0].values()))
        if kind == "Conv":
            macs += math.prod(made) * math.prod(second[1:])
        elif kind == "ConvTranspose":
            macs += math.prod(first) * math.prod(second[1:])
        else:  # each output is a sum over what the inputs have in common: a Gemm's may be either of its sides
            inner = first[-1] if kind == "MatMul" else math.prod(first) // made[0]
            macs += math.prod(made) * inner
        if kind != "MatMul" or len(second) == 2:
            weights += 4.0 * math.prod(second)
    return macs / batch, weights


def stage_work(localizer: Localizer, frame: Frame, fixes: Sequence[Fix]) -> dict[str, Work | str]:
    """The least work of each stage of ``locate`` for one frame without a prior.

    - ``rectify``: the frame is read once; for the colour and the grey view each, a sample for every pixel of the frame
      or of the view, whichever has more: one addition a channel where many are averaged, 8 flop where samples are
      interpolated.
    - ``embed``: the network's multiply-adds for every heading hypothesis; its weights are read once.
    - ``search``: up to 20 000 tiles the product with all descriptors, read once. The index beyond that visits as few
      as it can, and nothing is counted.
    - ``correlate``: Fourier transforms (5 N log2 N flop): one of the frame under each heading correction, one of each
      window of the basemap, and half a one back for each pair. How many windows there are follows from the answers'
      candidates; the median is taken.
    - ``register``: for every look, the same of each block of what the frame sees, and of the window around it.

    Args:
        localizer: the localiser, with the flight's camera.
        frame: a usable one.
        fixes: answers of the flight's frames.

    Returns:
        By stage, or the reason why nothing is counted.
    """
    work: dict[str, Work | str] = {}
    headings = 1 if frame.heading is not None else localizer.mission.settings.headings
    work["embed"] = _embed_work(localizer, headings)
    work["search"] = _search_work(localizer, headings)
    # The view that refinement makes of the frame, by refinement itself: its sizes are what is counted.
    camera, grey = localizer.camera.scaled_to(*frame.size), frame.grey()
    rotation = camera_to_enu(camera.mount, frame.heading or 0.0, frame.pitch or 0.0, frame.roll or 0.0)
    gsd = localizer.gallery.basemap.gsd
    view = refine.view_of(grey, camera, rotation, frame.height, frame.heading or 0.0, gsd, localizer.threads)
    work["rectify"] = _rectify_work(localizer, frame, view, headings)
    counts = [_windows(localizer, fix, headings) for fix in fixes if fix.candidates]
    if not counts:
        return {**work, **dict.fromkeys(("correlate", "register"), "no frame came so far")}
    views = statistics.median(count for count, _ in counts)
    windows = statistics.median(count for _, count in counts)
    work["correlate"] = _correlate_work(localizer, view, views, windows)
    work["register"] = _register_work(localizer, view, windows)
    return work


def distances(
    ceiling: Ceiling, work: dict[str, Work | str], stages_ms: dict[str, dict[str, float]]
) -> dict[str, dict[str, Any]]:
    """How many times its limit each stage takes.

    Args:
        ceiling: of the machine.
        work: of the stages.
        stages_ms: what they take, with ``p50``, as :func:`cvgl.bench.time_frames` gives it.

    Returns:
        By stage: ``limit_ms``, ``times`` (the median over the limit), ``bound`` ("compute" or "memory"), ``mflop``,
        ``mb`` and ``counted``; or ``why`` nothing was counted.
    """
    told: dict[str, dict[str, Any]] = {}
    for stage, spent in stages_ms.items():
        least = work.get(stage, "no arithmetic worth counting")
        if isinstance(least, str):
            told[stage] = {"why": least}
            continue
        compute, memory = least.flop / ceiling.gflops / 1e6, least.bytes / ceiling.gb_s / 1e6
        limit = max(compute, memory)
        told[stage] = {
            "limit_ms": round(limit, 4),
            "times": round(spent["p50"] / limit, 2),
            "bound": "compute" if compute > memory else "memory",
            "mflop": round(least.flop / 1e6, 2),
            "mb": round(least.bytes / 1e6, 3),
            "counted": least.counted,
        }
    return told


def _rectify_work(localizer: Localizer, frame: Frame, view: refine.View, headings: int) -> Work:
    seen = float(math.prod(frame.size))
    flop = 0.0
    for size, channels, times in (
        (localizer.model.views["query"].input_size, 3, headings),
        (view.patch.mask.shape, 1, 1),
    ):
        # As the native core does it: footprints of four pixels and more are averaged over whole pixels.
        averaged = seen / math.prod(size) >= _AVERAGED_PX**2
        flop += times * channels * max(seen, float(math.prod(size))) * (1 if averaged else 8)
    return Work(flop, float(frame.image.nbytes), "the frame read once, a sample for each of its pixels and view")


def _embed_work(localizer: Localizer, headings: int) -> Work | str:
    model = localizer.model
    if "CPU" not in model.runtime:
        return "not measured: the network runs on another device than the ceilings were measured on"
    view = model.views["query"]
    try:
        macs, weights = count_network(model.path / view.file, view.input_size)
    except ModelError as error:
        return f"not counted: {error.message}"
    pixels = 4.0 * 3 * math.prod(view.input_size)
    counted = f"{macs / 1e6:.0f} M multiply-adds" + (f", {headings} headings" if headings > 1 else "")
    return Work(2 * macs * headings, weights + headings * pixels, counted)


def _search_work(localizer: Localizer, headings: int) -> Work | str:
    tiles, size = len(localizer.gallery), localizer.gallery.manifest.dimension
    if tiles > EXACT_UP_TO:
        return "not counted: the index visits as few tiles as it can"
    counted = f"{tiles} tiles of {size} numbers, each read once"
    return Work(2.0 * headings * tiles * size, 4.0 * tiles * size, counted)


def _windows(localizer: Localizer, fix: Fix, headings: int) -> tuple[int, int]:
    """Heading hypotheses that refinement followed up, and windows of the basemap that it looked at."""
    stride, step = localizer.gallery.manifest.stride_m, 360.0 / headings
    order = list(dict.fromkeys(candidate.heading_deg for candidate in fix.candidates))[:5]
    near = [
        [c for c in fix.candidates if abs(wrap_degrees(c.heading_deg - heading)) <= 1.01 * step] for heading in order
    ]
    return len(order), sum(len(refine.merge(candidates, 1.1 * stride)) for candidates in near)


def _correlate_work(localizer: Localizer, view: refine.View, views: float, windows: float) -> Work:
    gsd, stride = localizer.gallery.basemap.gsd, localizer.gallery.manifest.stride_m
    side = view.third.mask.shape[0] + 2 * math.ceil(refine.REACH_STRIDES * stride / (gsd * REDUCTION))
    size, turns = cv2.getOptimalDFTSize(side), len(refine.TURNS_DEG)
    flop = _transforms_flop(size, there=turns * views + windows, back=turns * windows)
    counted = f"transforms of {size} x {size}: {windows:.0f} windows, {turns} turns"
    return Work(flop, windows * float(side * REDUCTION) ** 2, counted)


def _register_work(localizer: Localizer, view: refine.View, windows: float) -> Work:
    search, side = register.SEARCH_PX, register.block_side(view.short_px)
    glances = len(refine.TURNS_DEG) + min(localizer.mission.settings.refine_hypotheses, windows) - 1
    studies = min(refine.STUDIED, windows)
    flop, read = 0.0, 0.0
    for looks, patch, reduction in ((glances, view.half, 2), (studies, view.patch, 1)):
        block = side // reduction
        blocks = looks * float(np.count_nonzero(patch.mask)) / block**2
        size = cv2.getOptimalDFTSize(block + 2 * (search // reduction))
        flop += _transforms_flop(size, there=2 * blocks, back=blocks)
        read += looks * float(view.patch.mask.shape[0] + 2 * search) ** 2
    return Work(flop, read, f"transforms of blocks: {glances:.0f} looks at half the detail, {studies:.0f} at full")


def _transforms_flop(size: int, *, there: float, back: float) -> float:
    """Arithmetic of correlations by Fourier transforms of size x size.

    The complex field costs a whole transform; of the product only the real part is wanted, which is half the spectrum
    of two real images: 14 flop a frequency, and half a transform back.
    """
    pixels = float(size * size)
    transform = 5.0 * pixels * math.log2(pixels)
    return there * transform + back * (transform / 2 + 7.0 * pixels)


def _least_seconds(work: Callable[[], Any]) -> float:
    """The fastest of many: what else the machine does can only make it slower."""
    work()
    least, end = math.inf, time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - began)
    return least


def _array_bytes() -> int:
    """Size of arrays that no cache holds."""
    largest = 0
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii", errors="replace").strip()
        if text.endswith("K") and text[:-1].isdigit():
            largest = max(largest, int(text[:-1]) << 10)
    return min(max(_BEYOND_CACHE * largest, _LEAST_BYTES), _MOST_BYTES)
