"""The warp from a raw frame to the network's input beside OpenCV and numpy: how well, and how fast at the same quality.

    python benchmarks/warp.py            # everything
    python benchmarks/warp.py --quick    # an impression: one size of frame, few rounds

Three questions. How far is the warp from its own definition in float64 (the resampler of tests/sdk/test_warp.py)? How
far are it and every OpenCV chain from 256 samples a pixel, on pictures with detail up to the pixel grid's limit? And
how long does each take: the peer is the fastest OpenCV chain whose error is no larger than ours. The samples are of
Lanczos' interpolation: neither ours, which takes a pixel for a square, nor the peers', which draw lines between pixels,
so that neither is judged by itself. Chains are timed in turn on the same poses; ratios are of medians, with bootstrap
intervals over the paired calls.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import cv2
import numpy as np
import typer
from numpy.typing import NDArray
from record import ROOT, commit, on_machine, run_app, write_record

from cvgl.bench import machine
from cvgl.bench.peers_timing import interleave, ratio
from cvgl.camera import Camera
from cvgl.geometry import Mount, camera_to_enu
from cvgl.native import warp_into
from cvgl.rectify import warp_to_input
from cvgl.versions import versions

Array = NDArray[Any]

OURS = "cvgl"
FRAMES = ((2000, 1125), (4000, 2250))
INPUTS = (128, 224, 384)
HEIGHT_M = 120.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SCALE = tuple(1 / (255 * value) for value in STD)
OFFSET = tuple(-mean / value for mean, value in zip(MEAN, STD, strict=True))
TRUTH_SAMPLES = 16

app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Pose:
    """One view: the map from output pixels to the frame, and the rotation that made it."""

    rotation: Array
    to_frame: Array


Chain = Callable[[Array, Pose, int], tuple[Array, Array]]
"""Frame (H, W, 3) BGR, pose and size to the network's input (1, 3, size, size) and mask."""


def camera_of(width: int, height: int) -> Camera:
    """A camera of 70 degrees across without distortion, which spares the peers their undistortion."""
    return Camera.from_field_of_view(width, height, 70.0)


def gsd_of(camera: Camera, size: int) -> float:
    """m/px at which the network's input is as wide as the frame's short side, seen level."""
    return HEIGHT_M * camera.height / camera.fy / size


def poses(camera: Camera, size: int, count: int) -> list[Pose]:
    """Headings all around, attitudes of an aircraft at work."""
    rng = np.random.default_rng(5)
    gsd, half = gsd_of(camera, size), (size - 1) / 2
    found = []
    for _ in range(count):
        rotation = camera_to_enu(Mount(), rng.uniform(0, 360), *rng.normal(0.0, 3.0, 2))
        ray = rotation @ camera.rays(camera.center)[0]
        east, north = ray[:2] / -ray[2] * HEIGHT_M
        ground = np.array([[gsd, 0, east - half * gsd], [0, -gsd, north + half * gsd], [0, 0, -HEIGHT_M]])
        lens = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1.0]])
        found.append(Pose(rotation, lens @ rotation.T @ ground))
    return found


def ours(camera: Camera, threads: int) -> Chain:
    """As `Localizer.locate` calls it: into memory that is there."""
    memory: dict[int, tuple[Array, Array]] = {}

    def run(frame: Array, pose: Pose, size: int) -> tuple[Array, Array]:
        if size not in memory:
            memory[size] = np.empty((1, 3, size, size), np.float32), np.empty((1, size, size), np.uint8)
        gsd = gsd_of(camera, size)
        warp_to_input(
            frame, camera, [pose.rotation], HEIGHT_M, gsd, size, SCALE, OFFSET, out=memory[size], threads=threads
        )
        return memory[size]

    return run


def normalised(patch: Array, mask: Array) -> tuple[Array, Array]:
    """A BGR patch as numpy normalises it, in one pass for each of multiplication, addition and mask."""
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in (SCALE, OFFSET))
    batch = np.empty((1, 3, *mask.shape), np.float32)
    np.multiply(patch[..., ::-1].transpose(2, 0, 1), scale, out=batch[0])
    batch += offset
    batch *= mask > 0
    return batch, mask[None]


def seen(frame: Array, pose: Pose, size: int) -> Array:
    """255 where the camera sees the ground: by the frame's outline, which is quicker than to warp a white frame."""
    height, width = frame.shape[:2]
    corners = np.array([[-0.5, -0.5], [width - 0.5, -0.5], [width - 0.5, height - 0.5], [-0.5, height - 0.5]])
    outline = cv2.perspectiveTransform(corners[None], np.linalg.inv(pose.to_frame))[0]
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, np.round(outline * 16).astype(np.int32), 255, shift=4)
    return mask


def opencv(share: float, times: int) -> Chain:
    """A chain of OpenCV and numpy.

    Args:
        share: of the footprint to which the part of the frame that is looked at is reduced by INTER_AREA, by a whole
            factor, before it is warped; 0 not to reduce it.
        times: how much finer than the input the frame is warped to, bilinearly, before INTER_AREA averages that.
    """

    def run(frame: Array, pose: Pose, size: int) -> tuple[Array, Array]:
        height, width = frame.shape[:2]
        to_frame = pose.to_frame
        end = size - 0.5
        corners = np.array([[[-0.5, -0.5], [end, -0.5], [end, end], [-0.5, end]]])
        outline = cv2.perspectiveTransform(corners, to_frame)[0]
        factor = int(share * np.sqrt(cv2.contourArea(outline.astype(np.float32))) / size)
        picture = frame
        if factor > 1:
            left, top = np.clip(np.floor(outline.min(axis=0)) - factor, 0, (width, height)).astype(int)
            right, bottom = np.clip(np.ceil(outline.max(axis=0)) + factor, 0, (width, height)).astype(int)
            columns, rows = (right - left) // factor, (bottom - top) // factor
            part = frame[top : top + rows * factor, left : left + columns * factor]
            picture = cv2.resize(part, (columns, rows), interpolation=cv2.INTER_AREA)
            to_frame = pixels_of(1 / factor, -left / factor, -top / factor) @ to_frame
        fine = to_frame @ pixels_of(1 / times)
        patch = cv2.warpPerspective(picture, fine, (times * size,) * 2, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        if times > 1:
            patch = cv2.resize(patch, (size, size), interpolation=cv2.INTER_AREA)
        return normalised(patch, seen(frame, pose, size))

    return run


def pixels_of(scale: float, x: float = 0.0, y: float = 0.0) -> Array:
    """(3, 3) from the pixels of one image to those of another whose pixels are 1 / scale of them wide.

    Args:
        x, y: of the first image's outer corner in the other's pixels.
    """
    middle = (scale - 1) / 2
    return np.array([[scale, 0, middle + x], [0, scale, middle + y], [0, 0, 1.0]])


PLAIN = "OpenCV bilinear (aliases)"
CHAINS: dict[str, Chain] = {
    PLAIN: opencv(0.0, 1),
    **{f"OpenCV {k} times finer, averaged": opencv(0.0, k) for k in (2, 3, 4, 6, 8)},
    **{
        f"OpenCV reduced to {share:g} of the footprint{f', {k} times finer, averaged' if k > 1 else ''}": opencv(
            share, k
        )
        for share in (1.0, 0.7, 0.5, 0.34)
        for k in (1, 2, 3, 4)
    },
}


def texture(width: int, height: int) -> Array:
    """Three channels of noise whose amplitude falls as one over the frequency, as natural pictures' does."""
    rng = np.random.default_rng(3)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    fall = 1 / np.maximum(np.hypot(fx, fy), 1 / 256)
    channels = []
    for _ in range(3):
        noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * fall, (height, width))
        channels.append(np.clip(128 + 50 * noise / noise.std(), 0, 255))
    return np.round(np.dstack(channels)).astype(np.uint8)


def rings(width: int, height: int) -> Array:
    """Rings whose frequency rises from the middle to the pixel grid's limit at the corners."""
    y, x = np.mgrid[:height, :width] - np.array([height / 2, width / 2])[:, None, None]
    r2 = x * x + y * y
    ring = np.round(127.5 + 127.5 * np.cos(np.pi * r2 / (2 * np.sqrt(r2.max())))).astype(np.uint8)
    return np.ascontiguousarray(np.repeat(ring[..., None], 3, axis=2))


def truth(frame: Array, pose: Pose, size: int) -> Array:
    """(size, size, 3) BGR of 256 samples a pixel."""
    v, u = np.mgrid[:size, :size].astype(float)
    offsets = (np.arange(TRUTH_SAMPLES) + 0.5) / TRUTH_SAMPLES - 0.5
    total = np.zeros((size, size, 3))
    exact = frame.astype(np.float32)
    for dv in offsets:
        for du in offsets:
            p = np.einsum("ij,j...->i...", pose.to_frame, np.stack([u + du, v + dv, np.ones_like(u)]))
            total += cv2.remap(exact, *(p[:2] / p[2]).astype(np.float32), cv2.INTER_LANCZOS4)
    return total / TRUTH_SAMPLES**2


def rms(answer: tuple[Array, Array], expected: Array) -> float:
    """Root mean square difference in grey levels where all is well inside the frame."""
    tensor, mask = answer
    scale, offset = (np.array(values, np.float32)[:, None, None] for values in (SCALE, OFFSET))
    grey = ((tensor[0] - offset) / scale)[::-1].transpose(1, 2, 0)
    inner = cv2.erode(np.pad(mask[0], 1), np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0
    return float(np.sqrt(np.mean((grey[inner] - expected[inner]) ** 2)))


def quality(
    camera: Camera, size: int, pictures: dict[str, Array], views: Sequence[Pose]
) -> dict[str, dict[str, float]]:
    """By chain and picture: RMS error over the views, grey levels."""
    chains = {OURS: ours(camera, 0), **CHAINS}
    errors: dict[str, dict[str, list[float]]] = {name: {picture: [] for picture in pictures} for name in chains}
    for picture, frame in pictures.items():
        for pose in views:
            expected = truth(frame, pose, size)
            for name, chain in chains.items():
                errors[name][picture].append(rms(chain(frame, pose, size), expected))
    return {name: {picture: float(np.mean(e)) for picture, e in row.items()} for name, row in errors.items()}


def overall(row: dict[str, float]) -> float:
    """One error over both pictures."""
    return float(np.sqrt(np.mean(np.square(list(row.values())))))


def as_good(errors: dict[str, dict[str, float]]) -> list[str]:
    """The OpenCV chains whose error is no larger than ours on either picture; else the one that is nearest."""
    own = errors[OURS]
    good = [name for name in CHAINS if all(errors[name][picture] <= own[picture] for picture in own)]
    return good or [min(CHAINS, key=lambda name: overall(errors[name]))]


def contest(
    camera: Camera,
    size: int,
    frame: Array,
    views: Sequence[Pose],
    errors: dict[str, dict[str, float]],
    threads: int,
    rounds: int,
) -> dict[str, Any]:
    """Ours, the bilinear chain and the fastest of those as good as ours."""
    cv2.setNumThreads(threads)
    good = as_good(errors)

    def racing(chains: dict[str, Chain]) -> dict[str, Callable[[Pose], Any]]:
        def call(chain: Chain) -> Callable[[Pose], Any]:
            return lambda pose: chain(frame, pose, size)[1][0, 0, 0]

        return {name: call(chain) for name, chain in chains.items()}

    timed = interleave(racing({name: CHAINS[name] for name in good}), views[:6], rounds=1, pause_s=0.0)
    fastest = min(timed, key=lambda name: float(np.median(timed[name].processor_ms)))
    chains = {OURS: ours(camera, threads), PLAIN: CHAINS[PLAIN], fastest: CHAINS[fastest]}
    timed = interleave(racing(chains), views, rounds=rounds, pause_s=0.002)
    rows = {}
    own = timed[OURS]
    for name, row in timed.items():
        by_wall, by_work = ratio(row.milliseconds, own.milliseconds), ratio(row.processor_ms, own.processor_ms)
        rows[name] = {
            "p50_ms": round(row.p50, 3),
            "least_ms": round(float(row.milliseconds.min()), 3),
            "processor_p50_ms": round(float(np.median(row.processor_ms)), 3),
            "times_ours": [round(value, 3) for value in (by_wall.value, by_wall.low, by_wall.high)],
            "times_our_work": [round(value, 3) for value in (by_work.value, by_work.low, by_work.high)],
        }
    return {"threads": threads, "as_good_as_ours": good, "fastest": fastest, "contestants": rows}


def identity(count: int) -> dict[str, Any]:
    """Ours against its definition in float64 over random cameras, attitudes, formats and sizes, on white noise."""
    tests = load_tests()
    rng = np.random.default_rng(11)
    differences: dict[str, list[Array]] = {}
    for _ in range(count):
        pixels = str(rng.choice(tests.FORMATS))
        size = (int(rng.integers(8, 40)), int(rng.integers(8, 80)))
        lens = (tests.BARREL, tests.RATIONAL, ())[int(rng.integers(3))]
        view = (rng.uniform(0.4, 20.0), rng.uniform(0, 360), rng.uniform(0, 50), rng.uniform(0, 360))
        image = tests.noise(int(rng.integers(1000)), tests.shape_of(pixels))
        h = tests.ground_map(*view, size)
        expected, sees = tests.reference(image, pixels, h, lens, size)
        out, mask = np.empty((1, 3, *size), np.float32), np.empty((1, *size), np.uint8)
        k = (tests.FX, tests.FY, tests.CX, tests.CY)
        warp_into(out, mask, image, pixels, h[None], *k, lens, (1.0,) * 3, (0.0,) * 3)
        both = (mask[0] == 255) & sees
        differences.setdefault(pixels, []).append(np.abs(out[0].transpose(1, 2, 0) - expected)[both].max(axis=1))
    table = {}
    for pixels in tests.FORMATS:
        all_of = np.concatenate(differences.get(pixels, [np.zeros(1)]))
        table[pixels] = {
            "pixels": len(all_of),
            "within_1_level": round(float((all_of <= 1.0).mean()), 6),
            "p999_levels": round(float(np.quantile(all_of, 0.999)), 3),
            "largest_levels": round(float(all_of.max()), 3),
        }
    return table


def load_tests() -> ModuleType:
    """The tests' module, which holds the resampler in float64."""
    spec = importlib.util.spec_from_file_location("cvgl_test_warp", ROOT / "tests" / "sdk" / "test_warp.py")
    if spec is None or spec.loader is None:
        raise typer.BadParameter("tests/sdk/test_warp.py is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@app.command()
def warp(
    out: Annotated[Path, typer.Option(help="Results go here.")] = ROOT / "benchmarks" / "results",
    rounds: Annotated[int, typer.Option(min=1, help="Over the poses of each contest.")] = 6,
    quick: Annotated[bool, typer.Option("--quick", help="An impression: one size of frame, few rounds.")] = False,
) -> None:
    """Measure identity, aliasing and time; about ten minutes on two cores."""
    about = machine()
    frames, rounds = (FRAMES[:1], min(rounds, 2)) if quick else (FRAMES, rounds)
    contests = []
    for width, height in frames:
        camera = camera_of(width, height)
        pictures = {"texture": texture(width, height), "rings": rings(width, height)}
        for size in INPUTS:
            print(f"{width} x {height} -> {size}", flush=True)
            errors = quality(camera, size, pictures, poses(camera, size, 2))
            views = poses(camera, size, 12)
            timed = [
                contest(camera, size, pictures["texture"], views, errors, threads, rounds)
                for threads in (1, 2)
                if threads <= (os.cpu_count() or 1)
            ]
            contests.append({"frame": [width, height], "input": size, "rms_grey": errors, "times": timed})
    result = {
        "format_version": 1,
        "benchmark": "warp",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {**about, "load_average_at_end": round(os.getloadavg()[0], 2)},
        "versions": versions(),
        "quick": quick,
        "identity": identity(60 if quick else 400),
        "contests": contests,
    }
    write_record(out, on_machine("warp-quick" if quick else "warp", about), result, as_markdown(result))


def as_markdown(result: dict[str, Any]) -> str:
    """The whole result as a page."""
    about = result["machine"]
    libraries = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    lines = [
        "# The warp beside OpenCV and numpy" + (" (a quick impression)" if result["quick"] else ""),
        "",
        f"{result['date'][:10]}, commit {result['commit']}, {about['processor']}, {about['cores']} cores. Load average:"
        f" {about['load_average']} at the start and {about['load_average_at_end']} at the end.",
        f"{libraries}. Made by `python benchmarks/warp.py`; every digit is in the JSON file beside this one.",
        "",
        "## Time at the same quality",
        "",
        "From a decoded BGR frame to the network's normalised input and its mask. The peer is the fastest chain of",
        "OpenCV and numpy whose error is no larger than ours on either picture below; where none is, the one that",
        "is nearest. In brackets the 95 % interval of a bootstrap over paired calls. Processor time is that of all",
        "threads together, which other programs on the machine hardly lengthen.",
        "",
        "| frame | input | threads | ours, ms | peer, ms | **peer / ours** | by processor time | bilinear alone / ours "
        "| our error | the peer's | the peer |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in result["contests"]:
        for timed in row["times"]:
            contestants = timed["contestants"]
            peer = contestants[timed["fastest"]]
            (value, low, high), (work, least, most) = peer["times_ours"], peer["times_our_work"]
            name = timed["fastest"]
            error, own = overall(row["rms_grey"][name]), overall(row["rms_grey"][OURS])
            lines.append(
                f"| {row['frame'][0]} x {row['frame'][1]} | {row['input']} | {timed['threads']} "
                f"| {contestants[OURS]['p50_ms']:.2f} | {peer['p50_ms']:.2f} "
                f"| **{value:.2f}** ({low:.2f} to {high:.2f}) | {work:.2f} ({least:.2f} to {most:.2f}) "
                f"| {contestants[PLAIN]['times_ours'][0]:.2f} "
                f"| {own:.2f} | {error:.2f} | {name} |"
            )
    columns = [f"{r['frame'][0]} -> {r['input']}, {p}" for r in result["contests"] for p in r["rms_grey"][OURS]]
    lines += [
        "",
        "## Aliasing",
        "",
        "RMS difference from 256 samples a pixel by Lanczos' interpolation, grey levels. Texture: noise that falls as",
        "one over the frequency, as natural pictures do; rings: frequencies up to the pixel grid's limit. (The peers",
        "round to whole levels, which alone is 0.29.)",
        "",
        f"| chain | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for name in result["contests"][0]["rms_grey"]:
        cells = [f"{error:.2f}" for row in result["contests"] for error in row["rms_grey"][name].values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "## Identity with float64",
        "",
        "The same definition by a plain resampler in float64, on white noise, over random cameras, lenses, attitudes,",
        "headings and sizes.",
        "",
        "| format | pixels | within 1 grey level | 99.9 % within | largest |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {row['pixels']} | {100 * row['within_1_level']:.3f} % | {row['p999_levels']:.2f} "
            f"| {row['largest_levels']:.2f} |"
            for name, row in result["identity"].items()
        ),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run_app(app)
