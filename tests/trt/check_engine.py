"""Running engines over the genuine bindings of one TensorRT version; run by tests/sdk/test_tensorrt_engine.py."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pycuda.driver as cuda
import pytest
from tensorrt_double import LENGTH, SIZE, World, expected

import cvgl.engines.cuda as ours
from cvgl.engines.sidecar import Sidecar, read_sidecar, write_sidecar
from cvgl.engines.tensorrt import TensorRTEngine, platform_here
from cvgl.errors import MissingDependencyError, ModelError


def sidecar_of(world: World, **changes: Any) -> Sidecar:
    known = replace(
        read_sidecar(Path(__file__).parents[1] / "sample.engine"),
        tensorrt=world.trt.__version__,
        gpu="Double",
        plan_sha256=hashlib.sha256(world.plan).hexdigest(),
        plan_bytes=len(world.plan),
        views=("query",),
        input_size=(SIZE, SIZE),
        batch=(1, 1, 6),
        descriptor_size=LENGTH,
    )
    return replace(known, **changes)


@pytest.fixture
def engine_file(world: World, tmp_path: Path) -> Path:
    world.profile = (1, 1, 6)
    path = tmp_path / "embed.engine"
    path.write_bytes(world.plan)
    write_sidecar(path, sidecar_of(world))
    return path


def images(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3, SIZE, SIZE)).astype(np.float32)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("graphs", [False, True])
def test_any_number_of_images(world: World, engine_file: Path, shared: bool, graphs: bool) -> None:
    cuda.reset(shared=shared)
    engine = TensorRTEngine(engine_file, graphs=graphs)
    assert (engine.batch, engine.input_size, engine.descriptor_size) == (None, (SIZE, SIZE), LENGTH)
    for count in (1, 4, 0, 6, 2, 17, 3, 5, 1, 4, 5, 3):
        batch = images(count, count)
        found = engine.run(batch)
        assert (found.dtype, found.shape) == (np.float32, (count, LENGTH))
        np.testing.assert_array_equal(found, expected(batch))
    several = {3, 5} | (set() if graphs else {1, 4, 6, 2})
    assert set(engine.without_graph) == {size for size in (1, 2, 3, 4, 5, 6) if size in several}


def test_results_are_the_callers_own(world: World, engine_file: Path) -> None:
    engine = TensorRTEngine(engine_file)
    first = engine.run(images(2, 1))
    kept = first.copy()
    engine.run(images(2, 2))
    np.testing.assert_array_equal(first, kept)


def test_images_of_any_layout(world: World, engine_file: Path) -> None:
    engine = TensorRTEngine(engine_file)
    batch = images(4).transpose(0, 1, 3, 2)[::-1]
    np.testing.assert_array_equal(engine.run(batch), expected(np.ascontiguousarray(batch)))


def test_a_fixed_batch(world: World, engine_file: Path) -> None:
    world.profile, world.batch = (4, 4, 4), 4
    write_sidecar(engine_file, sidecar_of(world, batch=(4, 4, 4)))
    engine = TensorRTEngine(engine_file)
    assert engine.batch == 4
    for count in (4, 1, 7):
        np.testing.assert_array_equal(engine.run(images(count)), expected(images(count)))
    assert world.names("ICudaEngine").count("create_execution_context") == 1


def test_each_graph_has_a_context_of_its_own(world: World, engine_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = cuda.GraphLibrary()
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    engine = TensorRTEngine(engine_file)
    assert engine.description == f"TensorRT {world.trt.__version__}, Double, CUDA graph, GPU warp"
    for count in (1, 2, 3, 1, 2, 3, 1):
        engine.run(images(count))
    assert world.names("ICudaEngine").count("create_execution_context") == 3
    # One run before each capture and one inside it: everything after that is a launch.
    assert world.names("IExecutionContext").count("execute_async_v3") == 6
    assert (len(library.executables), library.graphs, library.launches) == (3, {}, 8)
    engine.close()
    assert library.executables == {}


@pytest.mark.parametrize(
    ("library", "says"),
    [
        (cuda.GraphLibrary(refuse="cuStreamBeginCapture_v2"), "cuStreamBeginCapture: CUDA_ERROR_STREAM_CAPTURE"),
        (
            cuda.GraphLibrary(refuse="cuStreamEndCapture"),
            "cuStreamEndCapture: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED (900)",
        ),
        (cuda.GraphLibrary(refuse="cuGraphInstantiateWithFlags"), "cuGraphInstantiate: CUDA_ERROR_STREAM_CAPTURE"),
        (cuda.GraphLibrary(missing="cuGraphInstantiateWithFlags"), "no cuGraphInstantiateWithFlags: it is older than"),
    ],
)
def test_where_capture_fails_it_runs_without_and_says_why(
    world: World, engine_file: Path, monkeypatch: pytest.MonkeyPatch, library: Any, says: str
) -> None:
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    engine = TensorRTEngine(engine_file)
    for count in (1, 3, 1):
        np.testing.assert_array_equal(engine.run(images(count)), expected(images(count)))
    assert says in engine.description
    assert says in engine.without_graph[3]
    assert library.graphs == {}


def test_tensorrt_refusing_capture_is_no_failure(
    world: World, engine_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = cuda.GraphLibrary.do_cuStreamBeginCapture_v2

    def begin(library: Any, stream: int, mode: int) -> int:
        world.runs = False
        return genuine(library, stream, mode)

    def end(library: Any, stream: int, out: Any) -> int:
        world.runs = True
        cuda._streams[stream].capturing = None
        return 901

    monkeypatch.setattr(cuda.GraphLibrary, "do_cuStreamBeginCapture_v2", begin)
    monkeypatch.setattr(cuda.GraphLibrary, "do_cuStreamEndCapture", end)
    engine = TensorRTEngine(engine_file)
    np.testing.assert_array_equal(engine.run(images(2)), expected(images(2)))
    assert engine.without_graph == dict.fromkeys((1, 2), "TensorRT does not run it: enqueue failed")


def test_one_engine_serves_many_threads(world: World, engine_file: Path) -> None:
    engine = TensorRTEngine(engine_file)
    wrong: list[Any] = []

    def work(seed: int) -> None:
        try:
            for turn in range(20):
                batch = images(1 + (seed + turn) % 5, seed * 100 + turn)
                np.testing.assert_array_equal(engine.run(batch), expected(batch))
            if cuda.depth():
                wrong.append("a context is left on the stack")
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closed_in_another_thread_and_then_used(world: World, engine_file: Path) -> None:
    engine = TensorRTEngine(engine_file)
    assert cuda.live() == {"memory": 4, "streams": 1}
    thread = threading.Thread(target=engine.close)
    thread.start()
    thread.join()
    assert cuda.live() == {"memory": 0, "streams": 0}
    engine.close()
    with pytest.raises(ModelError, match=r"embed\.engine: the engine was closed"):
        engine.run(images(1))


def test_time_is_that_of_the_gpu(world: World, engine_file: Path) -> None:
    assert TensorRTEngine(engine_file).time_ms(4) == 0.25


def test_a_failure_while_flying_is_one_of_ours(world: World, engine_file: Path) -> None:
    engine = TensorRTEngine(engine_file, graphs=False)
    world.runs = False
    with pytest.raises(ModelError, match=r"embed\.engine: CUDA fails: TensorRT does not run it: enqueue failed"):
        engine.run(images(1))
    world.runs = True
    np.testing.assert_array_equal(engine.run(images(1)), expected(images(1)))


@pytest.mark.parametrize("shape", [(2, 3, SIZE, SIZE + 1), (3, SIZE, SIZE), (1, 1, SIZE, SIZE)])
def test_wrong_images_are_named(world: World, engine_file: Path, shape: tuple[int, ...]) -> None:
    engine = TensorRTEngine(engine_file)
    with pytest.raises(ModelError, match="batch: wrong images"):
        engine.run(np.zeros(shape, np.float32))


def test_nothing_unchecked_reaches_tensorrt(world: World, engine_file: Path) -> None:
    for change, says in (
        ({"tensorrt": "9.9.9"}, "built for another version of TensorRT"),
        ({"compute_capability": (8, 6)}, "built for another GPU"),
        ({"plan_bytes": 3}, "truncated or altered"),
        ({"plan_sha256": "0" * 64}, "altered"),
    ):
        write_sidecar(engine_file, sidecar_of(world, **change))
        with pytest.raises(ModelError, match=says):
            TensorRTEngine(engine_file)
    write_sidecar(engine_file, sidecar_of(world))
    with pytest.raises(ModelError, match="fingerprint: built from another model"):
        TensorRTEngine(engine_file, fingerprint="e" * 64)
    for place in range(0, len(world.plan), 37):
        whole = bytearray(world.plan)
        whole[place] ^= 1
        engine_file.write_bytes(whole)
        with pytest.raises(ModelError, match="plan_sha256: altered"):
            TensorRTEngine(engine_file)
        engine_file.write_bytes(world.plan[:place])
        with pytest.raises(ModelError, match="plan_bytes: truncated"):
            TensorRTEngine(engine_file)
    assert (world.loaded, world.calls) == ([], [])
    engine_file.write_bytes(world.plan)
    TensorRTEngine(engine_file, fingerprint="f" * 64)
    assert world.loaded == [world.plan]


def test_a_plan_that_is_another_than_its_sidecar_says(world: World, engine_file: Path) -> None:
    for change, field in (({"descriptor_size": 6}, "descriptors"), ({"input_size": (SIZE, 9)}, "images")):
        write_sidecar(engine_file, sidecar_of(world, **change))
        with pytest.raises(ModelError, match=f"{field}: the plan is another than its sidecar's"):
            TensorRTEngine(engine_file)
    write_sidecar(engine_file, sidecar_of(world, batch=(1, 7, 7)))
    world.profile = (2, 7, 7)
    with pytest.raises(ModelError, match="images: TensorRT refuses the shape"):
        TensorRTEngine(engine_file)
    world.outputs = [*world.outputs, ("more", world.trt.DataType.FLOAT, (1,))]
    with pytest.raises(ModelError, match="not an embedding network"):
        TensorRTEngine(engine_file)
    world.loads = False
    with pytest.raises(ModelError, match="does not load it: Serialization assertion failed"):
        TensorRTEngine(engine_file)


def test_only_a_version_compatible_plan_may_bring_code(world: World, engine_file: Path) -> None:
    TensorRTEngine(engine_file)
    assert world.called("Runtime", "engine_host_code_allowed") == []
    write_sidecar(engine_file, sidecar_of(world, version_compatible=True, dla_core=1))
    TensorRTEngine(engine_file)
    assert world.called("Runtime", "engine_host_code_allowed") == [(True,)]
    assert world.called("Runtime", "DLA_core") == [(1,)]


def test_here(world: World) -> None:
    here = platform_here()
    assert (here.tensorrt, here.gpu, here.compute_capability) == (world.trt.__version__, "Double", (8, 7))
    with pytest.raises(MissingDependencyError, match="device: no such GPU"):
        platform_here(1)
