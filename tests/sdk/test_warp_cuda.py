"""The warp on a GPU: what is compiled, how it is launched, and that it gives what the host's warp gives.

Without a GPU the kernel's own source runs as a program of the host, in single precision as on the device, behind a
double of pycuda: arguments, addresses, graphs and arithmetic are the real ones, and only CUDA's compiler is left out.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cvgl import Localizer
from cvgl.camera import Camera
from cvgl.engines import RawFrame
from cvgl.engines import cuda as ours
from cvgl.engines import warp as warps
from cvgl.engines.cuda import Gpu, open_gpu
from cvgl.engines.warp import GpuWarp, fat_binary, load_warp
from cvgl.errors import MissingDependencyError
from cvgl.flight import Flight
from cvgl.geometry import Mount, camera_to_enu
from cvgl.lens import MODELS
from cvgl.native import gpu_warp_arguments, gpu_warp_head, warp_into
from cvgl.rectify import view_maps

Array = NDArray[Any]

ROOT = Path(__file__).resolve().parents[2]
DOUBLES = ROOT / "tests" / "trt" / "doubles"
ARCHITECTURES = ("86", "87", "89", "90", "101", "110", "120")
PIXELS = ("bgr", "rgb", "grey", "nv12", "yuyv")
LENSES = ((), (-0.12, 0.02, 0.0008, -0.0005), (-0.28, 0.09, -0.001, 0.0007, -0.01), (0.3, 0.1, 0, 0, 0.02, 0.5, 0.2, 0))

FISHEYES = ((), (-0.02, 0.01, -0.004, 0.0006), (0.08, -0.03, 0.01, -0.002))


def picture(pixels: str, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A frame with something everywhere, down to its last pixel."""
    shape = {"grey": (height, width), "nv12": (height * 3 // 2, width), "yuyv": (height, width, 2)}
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 9)).astype(np.float32)
    rows, columns = (np.arange(n) * 8 // n for n in (height, width))
    levels = np.tile(coarse[np.ix_(rows, columns)], (2, 1))[: shape.get(pixels, (height,))[0]]
    noise = rng.normal(0.0, 30.0, shape.get(pixels, (height, width, 3)))
    return np.clip(levels.reshape(*levels.shape, *[1] * (noise.ndim - 2)) + noise, 0, 255).astype(np.uint8)


def flight(seed: int, pixels: str, count: int = 1, side: int = 64) -> RawFrame:
    """A frame of a random camera at a random attitude, seen under some headings."""
    rng = np.random.default_rng(seed)
    width, height = (2 * int(n) for n in rng.integers(100, 1000, 2))
    focal = float(rng.uniform(0.5, 1.5)) * width
    distortion = LENSES[int(rng.integers(len(LENSES)))]
    model = MODELS[seed % 2]
    if model == "fisheye":
        distortion = FISHEYES[int(rng.integers(len(FISHEYES)))]
    camera = Camera(width, height, focal, focal * 1.01, width / 2 - 3.3, height / 2 + 2.1, distortion, model=model)
    above, start = float(rng.uniform(30, 500)), float(rng.uniform(0, 360))
    pitch, roll = rng.uniform(-25, 25, 2)
    turns = [camera_to_enu(Mount(), start + 360 * k / count, float(pitch), float(roll)) for k in range(count)]
    gsd = float(rng.uniform(0.3, 1.5)) * above * height / focal / side
    maps = view_maps(camera, turns, above, gsd, side)[1]
    lens = (camera.fx, camera.fy, camera.cx, camera.cy)
    scale, offset = (1 / 58.4, 1 / 57.1, 1 / 57.4), (-2.12, -2.04, -1.80)
    looks = (scale, offset, "rgb", model, 2.0 if seed % 3 else 1.2)
    return RawFrame(picture(pixels, height, width, seed), pixels, maps, lens, distortion, *looks)


def exact(pixels: str) -> RawFrame:
    """A frame whose warp has only numbers that single precision holds exactly."""
    maps = np.array([[[0, 1 / 64, -0.5], [-1 / 64, 0, 0.5], [0, 0, 1]], np.diag([1 / 32, 1 / 32, 1])])
    lens = (256.0, 256.0, 200.0, 150.0)
    return RawFrame(picture(pixels, 300, 400), pixels, maps, lens, (), (0.5, 0.25, 2.0), (-1.0, 0.5, 0.0), "bgr")


def on_host(frame: RawFrame, size: tuple[int, int], dtype: Any = np.float32) -> tuple[Array, Array]:
    """Tensor and masks from the host's warp, in double precision."""
    tensor, masks = np.empty((len(frame.maps), 3, *size), dtype), np.empty((len(frame.maps), *size), np.uint8)
    looks = (frame.scale, frame.offset, frame.channels, 1, frame.lens, frame.slant)
    warp_into(tensor, masks, frame.image, frame.pixels, frame.maps, *frame.intrinsics, frame.distortion, *looks)
    return tensor, masks


def on_gpu(frame: RawFrame, size: tuple[int, int], dtype: Any = np.float32) -> tuple[Array, Array]:
    """Tensor and masks from the GPU's."""
    gpu, count = open_gpu(), len(frame.maps)
    with gpu.active():
        out = gpu.buffer((count, 3, *size), dtype)
        kernel, stream = load_warp(gpu), gpu.stream()
        warp = GpuWarp(gpu, kernel, frame, size, count, out.address, dtype)
        warp.write(frame, frame.maps)
        warp.put(stream, count)
        out.download(stream, count)
        warp.masks.download(stream, count)
        stream.synchronize()
        found = out.host.copy(), warp.masks.host.copy()
        release(warp, kernel, out, stream)
    return found


def release(*things: Any) -> None:
    for thing in things:
        thing.free()


def levels_apart(frame: RawFrame, found: Array, expected: Array) -> Array:
    """Absolute differences in grey levels."""
    scale = np.array(frame.scale, np.float64)[:, None, None]
    return np.abs(found.astype(np.float64) - expected.astype(np.float64)) / scale


def check_alike(frame: RawFrame, size: tuple[int, int], dtype: Any = np.float32) -> None:
    (found, seen), (expected, known) = on_gpu(frame, size, dtype), on_host(frame, size, dtype)
    slack = 0.0 if dtype == np.float32 else np.spacing(np.abs(expected).max()) / min(frame.scale)
    assert (levels_apart(frame, found, expected) <= 1.0 + slack).mean() >= 0.999
    assert (seen == known).mean() >= 0.999


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Callable[[ModuleType, bool], Callable[..., None]]:
    """Makes the kernel as a program of the host; with fused multiplication and addition, as on a GPU, or without."""
    spec = importlib.util.spec_from_file_location("warp_on_host", DOUBLES / "warp_on_host.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("warp")
    try:
        libraries = [module.compiled(folder, fused=fused) for fused in (False, True)]
    except FileNotFoundError as reason:
        pytest.skip(f"no C++ compiler: {reason}")
    return lambda driver, fused: module.kernel(libraries[fused], driver)


@pytest.fixture
def driver(
    monkeypatch: pytest.MonkeyPatch, play: Callable[[ModuleType, bool], Callable[..., None]]
) -> Iterator[ModuleType]:
    """The double in the place of ``pycuda.driver``, with the kernel in it."""
    names = ("pycuda", "pycuda.driver")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(DOUBLES)
        import pycuda.driver as double
    for name in names:
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    monkeypatch.setattr(ours, "_gpus", {})
    monkeypatch.setattr(warps, "fat_binary", lambda: b"a fat binary")
    double.reset()
    double.kernels["cvgl_warp"] = play(double, True)
    yield double
    ours._gpus.clear()
    assert (double.faults, double.depth(), double.live()) == ([], 0, {"memory": 0, "streams": 0})


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_exact_numbers_give_the_same_bits(
    driver: ModuleType, play: Callable[[ModuleType, bool], Callable[..., None]], pixels: str, dtype: Any
) -> None:
    driver.kernels["cvgl_warp"] = play(driver, False)
    frame = exact(pixels)
    (found, seen), (expected, known) = on_gpu(frame, (50, 70), dtype), on_host(frame, (50, 70), dtype)
    if pixels in ("nv12", "yuyv"):
        # Their conversion to colours is inexact, and the host's compiler fuses multiplications and additions in it.
        spacing = np.abs(np.spacing(expected)) + (dtype == np.float32) * np.float32(1e-4)
        assert (np.abs(found.astype(np.float64) - expected.astype(np.float64)) <= spacing).all()
    else:
        np.testing.assert_array_equal(found.view(np.uint8), expected.view(np.uint8))
    np.testing.assert_array_equal(seen, known)
    assert 0.2 < (known != 0).mean() < 0.8


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("seed", range(8))
def test_single_precision_is_within_a_grey_level(driver: ModuleType, pixels: str, seed: int) -> None:
    check_alike(flight(seed, pixels, count=1 + seed % 3), (64, 64), np.float16 if seed == 7 else np.float32)


def frame_after_frame(gpu: Gpu) -> None:
    """Several frames through one captured graph: whatever changes between them must not be in the graph."""
    first, size = flight(3, "bgr", count=2), (64, 64)
    with gpu.active():
        out, kernel, stream = gpu.buffer((4, 3, *size)), load_warp(gpu), gpu.stream()
        warp = GpuWarp(gpu, kernel, first, size, 4, out.address)
        warp.write(first, first.maps)
        graph = stream.capture(lambda: warp.put(stream, 4))
        for seed, count in ((11, 2), (12, 3), (13, 1)):
            frame = replace(
                first,
                image=picture("bgr", *first.image.shape[:2], seed),
                maps=np.stack([first.maps[0] @ np.diag([1 + k / 8, 1, 1]) for k in range(count)]),
                scale=(1 / seed, 1.0, 0.5),
            )
            out.host[:] = -7.0
            out.upload(stream, 4)
            stream.synchronize()
            warp.write(frame, frame.maps)
            graph.launch(stream)
            out.download(stream, 4)
            stream.synchronize()
            assert (levels_apart(frame, out.host[:count], on_host(frame, size)[0]) <= 1.0).mean() >= 0.999
            assert (out.host[count:] == -7.0).all()
        graph.free()
        release(warp, kernel, out, stream)


@pytest.mark.parametrize("shared", [False, True])
def test_a_graph_warps_what_was_written_last(driver: ModuleType, monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    monkeypatch.setattr(driver, "integrated", shared)
    monkeypatch.setattr(ours, "_driver_library", driver.GraphLibrary)
    frame_after_frame(open_gpu())


def test_frames_of_another_size_or_format_do_not_fit(driver: ModuleType) -> None:
    gpu, frame = open_gpu(), flight(0, "bgr")
    with gpu.active():
        out, kernel = gpu.buffer((1, 3, 8, 8)), load_warp(gpu)
        warp = GpuWarp(gpu, kernel, frame, (8, 8), 1, out.address)
        assert not warp.fits(replace(frame, pixels="rgb"))
        assert not warp.fits(replace(frame, image=frame.image[1:]))
        assert warp.fits(replace(frame, image=frame.image[::-1, ::-1]))
        release(warp, kernel, out)


def test_memory_that_is_too_small_is_found(driver: ModuleType) -> None:
    gpu, frame = open_gpu(), flight(0, "nv12", count=2)
    with gpu.active():
        out, kernel, stream = gpu.buffer((1, 3, 64, 64)), load_warp(gpu), gpu.stream()
        warp = GpuWarp(gpu, kernel, frame, (64, 64), 2, out.address)
        warp.write(frame, frame.maps)
        warp.put(stream, 2)
        with pytest.raises(driver.LogicError, match="illegal memory access: the output"):
            stream.synchronize()
        release(warp, kernel, out, stream)


def test_a_gpu_or_driver_that_the_fat_binary_does_not_fit_is_named(driver: ModuleType) -> None:
    driver.refused_image = "no kernel image is available for execution on the device"
    gpu = open_gpu()
    with (
        gpu.active(),
        pytest.raises(MissingDependencyError, match=r"not load: .* no kernel image"),
    ):
        load_warp(gpu)


def test_a_package_without_the_kernel_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(warps, "FOLDER", tmp_path)
    with pytest.raises(MissingDependencyError, match="built without nvcc"):
        fat_binary()


def arguments(**changes: Any) -> dict[str, Any]:
    staged = np.zeros(gpu_warp_head(2) + 30 * 40 * 3, np.uint8)
    image = staged[gpu_warp_head(2) :].reshape(30, 40, 3)
    made: dict[str, Any] = {"staged": staged, "address": 1 << 40, "image": image, "pixels": "bgr"}
    made |= {"maps": np.stack([np.eye(3), np.eye(3)]), "fx": 9.0, "fy": 9.0, "cx": 1.0, "cy": 2.0, "distortion": ()}
    made |= {"scale": (1, 1, 1), "offset": (0, 0, 0), "channels": "rgb", "out_h": 8, "out_w": 8, "half": False}
    return {**made, "out": 1 << 41, "mask": 1 << 42, **changes}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": np.zeros((30, 40, 3), np.uint8)}, "image: expected to lie in staged"),
        ({"staged": np.zeros(64, np.uint8)}, "image: expected to lie in staged"),
        ({"staged": np.zeros((64, 2), np.uint8)}, "staged: expected uint8, one dimension"),
        ({"maps": np.zeros((2, 3, 3))}, "singular"),
        ({"maps": np.eye(3)}, "maps: found shape"),
        ({"pixels": "grey"}, r"expected \(H, W\) of grey"),
        ({"channels": "gbr"}, "channels: found 'gbr'"),
        ({"scale": (1, 2)}, "scale: found 2"),
        ({"distortion": (0.1,)}, "distortion: found 1"),
        ({"out_w": 0}, "out_w: found 0"),
    ],
)
def test_arguments_that_the_kernel_must_never_see(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        gpu_warp_arguments(**arguments(**changes))


def test_the_frame_lies_behind_what_is_written() -> None:
    given = arguments()
    given["image"][:] = 77
    gpu_warp_arguments(**given)
    assert (given["staged"][gpu_warp_head(2) :] == 77).all()
    with pytest.raises(ValueError, match="behind the arguments and the maps"):
        gpu_warp_arguments(**{**given, "maps": np.stack([np.eye(3)] * 40)})
    for count in (0, 65536):
        with pytest.raises(ValueError, match="expected 1 to 65535"):
            gpu_warp_head(count)


def nvcc() -> str:
    """CUDA's compiler, or the test ends here."""
    found = shutil.which("nvcc", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin")
    if found is None:
        pytest.skip("no nvcc: the CUDA source cannot be compiled here")
    return found


def named_here() -> list[str]:
    """Those of the named architectures that this nvcc knows."""
    listed = subprocess.run([nvcc(), "--list-gpu-arch"], capture_output=True, text=True, check=True).stdout
    return [name for name in ARCHITECTURES if f"compute_{name}\n" in listed]


def contents(fat: bytes) -> list[tuple[str, str]]:
    """What a fat binary holds: (kind, architecture), by its headers."""
    magic, _, head, size = struct.unpack_from("<IHHQ", fat)
    assert (magic, head + size) == (0xBA55ED50, len(fat))
    found, at = [], head
    while at < len(fat):
        kind, _, head, size = struct.unpack_from("<HHIQ", fat, at)
        found.append(({1: "ptx", 2: "elf"}[kind], str(struct.unpack_from("<I", fat, at + 28)[0])))
        at += head + size
    return found


def cuobjdump() -> str | None:
    """NVIDIA's own reader of fat binaries: the toolkit has one, and so does Triton."""
    triton = importlib.util.find_spec("triton")
    beside = Path(triton.origin).parent / "backends/nvidia/bin" if triton is not None and triton.origin else ""
    return shutil.which("cuobjdump", path=f"{os.environ.get('PATH', '')}:/usr/local/cuda/bin:{beside}")


@pytest.mark.slow
def test_cmake_compiles_it_for_every_named_gpu(tmp_path: Path) -> None:
    expected = named_here()
    if shutil.which("cmake") is None or importlib.util.find_spec("nanobind") is None:
        pytest.skip("no cmake or no nanobind")
    settings = ["-DCVGL_CUDA=ON", f"-DCVGL_NVCC={nvcc()}", f"-DPython_EXECUTABLE={sys.executable}"]
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(tmp_path), *settings],
        ["cmake", "--build", str(tmp_path), "--target", "warp_fatbin"],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    fat = tmp_path / "warp.fatbin"
    assert contents(fat.read_bytes()) == [("elf", name) for name in expected] + [("ptx", "75")]
    dump = cuobjdump()
    if dump is not None:
        listed = subprocess.run([dump, "--list-elf", "--list-ptx", fat], capture_output=True, text=True).stdout
        for name in (*(f"sm_{architecture}.cubin" for architecture in expected), "sm_75.ptx"):
            assert re.search(rf"\.{re.escape(name)}\b", listed), listed


@pytest.mark.slow
def test_it_needs_neither_slow_memory_nor_double_precision(tmp_path: Path) -> None:
    source, out = str(ROOT / "sdk" / "native" / "warp.cu"), tmp_path / "warp"
    options = ["-std=c++17", "-O3", "-allow-unsupported-compiler", "-o", str(out)]
    subprocess.run([nvcc(), "-ptx", source, *options], check=True, capture_output=True)
    # GPUs of desktops and Jetsons do 64 operations in single precision in the time of one in double.
    assert re.findall(r"\S*\.f64\S*", out.read_text()) == []
    code = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in named_here()]
    command = [nvcc(), "-fatbin", source, *options, *code, "-Xptxas", "-v", "--threads", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    said = re.findall(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", done.stderr)
    assert said == [("0", "0", "0")] * len(code), done.stderr


def test_the_installed_fat_binary_is_whole() -> None:
    try:
        fat = fat_binary()
    except MissingDependencyError as reason:
        pytest.skip(reason.message)
    assert {kind for kind, _ in contents(fat)} == {"elf", "ptx"}
    assert b"cvgl_warp" in fat


@pytest.fixture
def real_gpu() -> Gpu:
    """A GPU that the installed fat binary runs on."""
    if importlib.util.find_spec("pycuda") is None:
        pytest.skip("pycuda is not installed: no GPU to test on")
    try:
        gpu = open_gpu()
        with gpu.active():
            load_warp(gpu).free()
    except MissingDependencyError as reason:
        pytest.skip(str(reason))
    return gpu


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("seed", range(8))
def test_on_a_real_gpu_it_is_within_a_grey_level(real_gpu: Gpu, pixels: str, seed: int) -> None:
    check_alike(flight(seed, pixels, count=1 + seed % 3), (64, 64), np.float16 if seed == 7 else np.float32)


def test_on_a_real_gpu_it_uses_no_slow_memory(real_gpu: Gpu) -> None:
    with real_gpu.active():
        kernel = load_warp(real_gpu)
        assert (kernel.local_bytes, 0 < kernel.registers <= 128) == (0, True)
        kernel.free()


def test_on_a_real_gpu_a_graph_warps_what_was_written_last(real_gpu: Gpu) -> None:
    frame_after_frame(real_gpu)


@pytest.mark.parametrize("version", ["10.3.0", "10.13.3.9", "11.4.0.106"])
def test_into_an_engine_with_the_genuine_bindings(
    version: str, check_with_tensorrt: Callable[[str, str], None]
) -> None:
    check_with_tensorrt(version, "check_frame.py")


class WarpsItself:
    """An engine that takes raw frames, and another one's network."""

    takes_frames = True

    def __init__(self, engine: Any) -> None:
        self._engine, self.frames = engine, 0
        self.description, self.input_size = engine.description, engine.input_size
        self.descriptor_size, self.batch = engine.descriptor_size, engine.batch

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        raise AssertionError("images were made on the host")

    def run_frame(self, frame: RawFrame) -> NDArray[np.float32]:
        self.frames += 1
        return np.asarray(self._engine.run(on_host(frame, self.input_size)[0]))


@pytest.mark.parametrize("heading", ["known", "unknown"])
def test_the_localiser_hands_raw_frames_to_an_engine_that_takes_them(mission: Path, town: Path, heading: str) -> None:
    localizer = Localizer.open(mission)
    frame = list(Flight.open(town / "flight"))[3].load()
    if heading == "unknown":
        frame = replace(frame, heading=None)
    expected = localizer.locate(frame)
    engines = localizer.model._engines
    engines["query"] = engine = WarpsItself(engines["query"])
    found = localizer.locate(frame)
    assert engine.frames == 1
    np.testing.assert_equal(asdict(replace(found, timings_ms={})), asdict(replace(expected, timings_ms={})))
