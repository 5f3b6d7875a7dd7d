"""Raw frames through the GPU's warp into an engine, on one stream; run by tests/sdk/test_warp_cuda.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as cuda
import pytest
import warp_on_host
from tensorrt_double import LENGTH, SIZE, World, expected

import cvgl.engines.cuda as ours
from cvgl.engines import RawFrame
from cvgl.engines import warp as warps
from cvgl.engines.sidecar import Sidecar, write_sidecar
from cvgl.engines.tensorrt import TensorRTEngine
from cvgl.errors import MissingDependencyError, ModelError
from cvgl.model import Model, read_manifest
from cvgl.native import warp_into
from cvgl_export.tensorrt import build_engine

SCALE, OFFSET = (1 / 51.0, 1 / 51.0, 1 / 51.0), (-2.5, -2.0, -1.5)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Any:
    try:
        return warp_on_host.compiled(tmp_path_factory.mktemp("warp"), fused=True)
    except FileNotFoundError as reason:
        pytest.skip(f"no C++ compiler: {reason}")


@pytest.fixture
def played(world: World, library: Any) -> World:
    """A TensorRT, and a GPU that warps."""
    world.profile = (1, 1, 6)
    cuda.kernels["cvgl_warp"] = warp_on_host.kernel(library, cuda)
    return world


@pytest.fixture
def engine_file(played: World, tmp_path: Path) -> Path:
    path = tmp_path / "embed.engine"
    path.write_bytes(played.plan)
    known = Sidecar(
        tensorrt=played.trt.__version__,
        cuda="12.6.0",
        driver="12.8",
        gpu="Double",
        compute_capability=(8, 7),
        hardware_compatibility="none",
        version_compatible=False,
        dla_core=None,
        tf32=False,
        plan_sha256=hashlib.sha256(played.plan).hexdigest(),
        plan_bytes=len(played.plan),
        source_sha256="0" * 64,
        fingerprint="f" * 64,
        views=("query",),
        input_size=(SIZE, SIZE),
        batch=(1, 1, 6),
        descriptor_size=LENGTH,
        precision="fp16",
        achieved={"fp16": 3},
        made_at="2026-01-01T00:00:00+00:00",
        made_with="cvgl",
    )
    write_sidecar(path, known)
    return path


def frame_of(count: int, seed: int = 0, size: tuple[int, int] = (120, 160)) -> RawFrame:
    rng = np.random.default_rng(seed)
    turns = rng.uniform(0, 2 * np.pi, count)
    maps = [np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 9.0]]) for t in turns]
    center = np.array([[1, 0, -3.5], [0, 1, -3.5], [0, 0, 1]])
    image = rng.integers(0, 256, (*size, 3), np.uint8)
    lens = (100.0, 101.0, 80.0, 60.0)
    return RawFrame(image, "bgr", np.array([m @ center for m in maps]).reshape(-1, 3, 3), lens, (), SCALE, OFFSET)


def on_host(frame: RawFrame) -> np.ndarray:
    tensor = np.empty((len(frame.maps), 3, SIZE, SIZE), np.float32)
    masks = np.empty((len(frame.maps), SIZE, SIZE), np.uint8)
    looks = (frame.scale, frame.offset, frame.channels)
    warp_into(tensor, masks, frame.image, frame.pixels, frame.maps, *frame.intrinsics, frame.distortion, *looks, 1)
    return tensor


def check(engine: TensorRTEngine, frame: RawFrame) -> None:
    found = engine.run_frame(frame)
    assert (found.dtype, found.shape) == (np.float32, (len(frame.maps), LENGTH))
    # A grey level is 1 / 51, and the pretended network multiplies by up to five.
    np.testing.assert_allclose(found, expected(on_host(frame)), atol=LENGTH / 51)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_any_number_of_headings(played: World, engine_file: Path, shared: bool, graphs: bool) -> None:
    kernel = cuda.kernels["cvgl_warp"]
    cuda.reset(shared=shared)
    cuda.kernels["cvgl_warp"] = kernel
    engine = TensorRTEngine(engine_file, graphs=graphs)
    assert engine.takes_frames and engine.description.endswith(", GPU warp")
    assert engine.run_frame(frame_of(0)).shape == (0, LENGTH)
    for turn, count in enumerate((1, 6, 16, 1, 2, 5, 3, 4, 16)):
        check(engine, frame_of(count, turn))
    images = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    np.testing.assert_array_equal(engine.run(images), expected(images))


def test_warp_and_network_are_one_graph(played: World, engine_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = cuda.GraphLibrary()
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    engine = TensorRTEngine(engine_file)
    check(engine, frame_of(1))
    runs, launches, live = played.names("IExecutionContext").count("execute_async_v3"), library.launches, cuda.live()
    for seed in range(1, 6):
        check(engine, frame_of(1, seed))
    assert played.names("IExecutionContext").count("execute_async_v3") == runs
    assert (library.launches, cuda.live()) == (launches + 5, live)
    assert len(library.executables) == 2  # and the one from the host's images
    assert engine.time_ms(1, frame_of(1)) == 0.25
    engine.close()
    assert (library.executables, cuda.live()) == ({}, {"memory": 0, "streams": 0})


def test_frames_of_another_size_replace_what_was_made_for_the_last(
    played: World, engine_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = cuda.GraphLibrary()
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    engine = TensorRTEngine(engine_file)
    check(engine, frame_of(1))
    live = cuda.live()
    for turn in range(6):
        size = (90, 130) if turn % 2 else (100, 100)
        check(engine, frame_of(1 + turn % 2, turn, size))
        check(engine, replace(frame_of(1, turn, size), pixels="rgb"))
        assert (cuda.live(), len(library.executables)) == (live, 2)
    check(engine, frame_of(1))


def test_a_frame_that_the_warp_refuses_leaves_the_engine_usable(played: World, engine_file: Path) -> None:
    engine = TensorRTEngine(engine_file)
    with pytest.raises(ValueError, match="singular"):
        engine.run_frame(replace(frame_of(1), maps=np.zeros((1, 3, 3))))
    check(engine, frame_of(2))


@pytest.mark.parametrize("why", ["not built", "another GPU"])
def test_without_the_kernel_frames_are_refused_and_images_taken(
    played: World, engine_file: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    def absent() -> bytes:
        raise MissingDependencyError("cvgl was built without nvcc")

    if why == "not built":
        monkeypatch.setattr(warps, "fat_binary", absent)
    else:
        monkeypatch.setattr(cuda, "refused_image", "no kernel image is available")
    engine = TensorRTEngine(engine_file)
    says = "built without nvcc" if why == "not built" else "no kernel image is available"
    assert not engine.takes_frames and f"no GPU warp: {engine.without_warp}" in engine.description
    assert says in engine.without_warp
    with pytest.raises(ModelError, match=says):
        engine.run_frame(frame_of(1))
    images = np.ones((1, 3, SIZE, SIZE), np.float32)
    np.testing.assert_array_equal(engine.run(images), expected(images))


def test_a_model_takes_frames_where_its_engine_does(played: World, tiny_bundle: Path) -> None:
    played.profile = None
    plain = Model.open(tiny_bundle, engine="onnxruntime")
    frame = frame_of(3)
    assert not plain.takes_frames()
    with pytest.raises(ModelError, match="takes no raw frames"):
        plain.embed_inputs(frame)
    fingerprint = Model(tiny_bundle, read_manifest(tiny_bundle), {}).fingerprint
    record: dict[str, Any] = {"fingerprint": fingerprint, "views": ("query", "reference"), "precision": "fp32"}
    build_engine(tiny_bundle / "embed.onnx", tiny_bundle / "embed.engine", **record)
    model = Model.open(tiny_bundle)
    assert model.takes_frames() and ", GPU warp (embed.engine fits this GPU)" in model.runtime
    found = model.embed_inputs(frame)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(found, plain.embed_inputs(on_host(frame)), atol=0.05)
