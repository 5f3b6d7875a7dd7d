"""The module over pycuda: on a double that is stricter than the real one, and on the real one where there is a GPU."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cvgl.engines import cuda as ours
from cvgl.engines.cuda import CudaError, how_to_install_pycuda, open_gpu
from cvgl.errors import MissingDependencyError

DOUBLES = Path(__file__).resolve().parents[1] / "trt" / "doubles"


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The double in the place of ``pycuda.driver``."""
    names = ("pycuda", "pycuda.driver")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.MonkeyPatch.context() as path:
        path.syspath_prepend(DOUBLES)
        import pycuda.driver as double
    for name in names:  # again, so that whatever a test does to them is undone
        monkeypatch.setitem(sys.modules, name, sys.modules.pop(name))
    monkeypatch.setattr(ours, "_gpus", {})
    double.reset()
    yield double
    assert (double.faults, double.depth()) == ([], 0)


def test_the_gpu_is_described_and_opened_once(driver: ModuleType) -> None:
    gpu = open_gpu()
    assert gpu is open_gpu(0)
    assert gpu.info == ours.GpuInfo(0, "Double", (8, 7), False, "12.6.0", "12.8")


@pytest.mark.parametrize("shared", [False, True])
def test_what_goes_up_comes_down(driver: ModuleType, shared: bool) -> None:
    driver.reset(shared=shared)
    gpu = open_gpu()
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    with gpu.active():
        stream, buffer = gpu.stream(), gpu.buffer((3, 4))
        assert (buffer.mapped, buffer.host.shape, buffer.host.dtype) == (shared, (3, 4), np.float32)
        buffer.host[:] = values
        buffer.upload(stream, 2)
        driver.enqueue(stream.handle, lambda: np.negative(driver.memory(buffer.address, (2, 4)), out=twin))
        twin = driver.memory(buffer.address, (2, 4))
        buffer.download(stream, 2)
        assert driver.live()["memory"] == (1 if shared else 2)
        stream.synchronize()
        np.testing.assert_array_equal(buffer.host, np.concatenate([-values[:2], values[2:]]))
        buffer.free()
        stream.free()
    assert driver.live() == {"memory": 0, "streams": 0}


def test_the_context_is_current_inside_alone_and_in_every_thread(driver: ModuleType) -> None:
    gpu = open_gpu()
    with pytest.raises(driver.Error, match="no currently active context"):
        gpu.stream()
    seen = []

    def work() -> None:
        with gpu.active(), gpu.active():
            seen.append(driver.depth())
            gpu.stream().free()
        seen.append(driver.depth())

    for turn in (threading.Thread(target=work), threading.Thread(target=work)):
        turn.start()
        turn.join()
    with pytest.raises(ZeroDivisionError), gpu.active():
        _ = 1 / 0
    assert (seen, driver.depth()) == ([2, 0, 2, 0], 0)


def test_a_graph_does_again_what_was_recorded(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    library = driver.GraphLibrary()
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    gpu = open_gpu()
    done: list[int] = []
    with gpu.active():
        stream = gpu.stream()
        graph = stream.capture(lambda: driver.enqueue(stream.handle, lambda: done.append(1)))
        stream.synchronize()
        assert (done, library.graphs) == ([], {})
        for _ in range(3):
            graph.launch(stream)
        stream.synchronize()
        assert done == [1, 1, 1]
        graph.free()
        graph.free()
        stream.free()
    assert library.executables == {}


@pytest.mark.parametrize("call", ["cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags"])
def test_a_capture_that_fails_says_so_and_leaves_the_stream_usable(
    driver: ModuleType, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    library = driver.GraphLibrary(refuse=call)
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    gpu = open_gpu()
    done: list[int] = []
    with gpu.active():
        stream = gpu.stream()
        with pytest.raises(CudaError, match=r"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED \(900\)"):
            stream.capture(lambda: driver.enqueue(stream.handle, lambda: done.append(1)))
        driver.enqueue(stream.handle, lambda: done.append(2))
        stream.synchronize()
        stream.free()
    assert (done, library.graphs) == ([2], {})


def test_what_fails_inside_a_capture_ends_it(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    library = driver.GraphLibrary()
    monkeypatch.setattr(ours, "_driver_library", lambda: library)
    gpu = open_gpu()
    with gpu.active():
        stream = gpu.stream()
        with pytest.raises(ZeroDivisionError):
            stream.capture(lambda: 1 // 0)
        stream.synchronize()
        stream.free()
    assert library.graphs == {}


def test_no_driver_library_and_an_old_one(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Any:
        raise OSError("libcuda.so.1: cannot open shared object file")

    gpu = open_gpu()
    with gpu.active():
        stream = gpu.stream()
        monkeypatch.setattr(ours, "_driver_library", absent)
        with pytest.raises(CudaError, match=r"libcuda\.so\.1: cannot open"):
            stream.capture(lambda: None)
        monkeypatch.setattr(ours, "_driver_library", lambda: driver.GraphLibrary(missing="cuGraphLaunch"))
        with pytest.raises(CudaError, match=r"no cuGraphLaunch: it is older than 11\.4"):
            stream.capture(lambda: None)
        stream.free()


def test_the_context_is_given_back_with_the_gpu_in_any_thread(driver: ModuleType) -> None:
    gpu = open_gpu()
    assert len(driver.retained) == 1
    ours._gpus.clear()
    held = [gpu]
    del gpu
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert driver.retained == []


def test_time_is_measured_on_the_stream(driver: ModuleType) -> None:
    gpu = open_gpu()
    done: list[int] = []
    with gpu.active():
        stream = gpu.stream()
        assert stream.time_ms(lambda: driver.enqueue(stream.handle, lambda: done.append(1))) == 0.25
        stream.free()
    assert done == [1]


def test_missing_things_are_named(driver: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingDependencyError, match=r"device: no such GPU \(found 1, expected 0 to 0\)"):
        open_gpu(1)
    monkeypatch.setattr(driver, "devices", 0)
    with pytest.raises(MissingDependencyError, match="no usable NVIDIA GPU: cuInit failed"):
        open_gpu()
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingDependencyError) as caught:
        open_gpu()
    assert how_to_install_pycuda() in str(caught.value)
    assert caught.value.exit_status == 3


def test_the_double_notices_what_pycuda_would_only_print(driver: ModuleType) -> None:
    gpu = open_gpu()
    with gpu.active():
        stream, buffer = gpu.stream(), gpu.buffer((2, 2))
        with pytest.raises(driver.LogicError, match="illegal memory access"):
            driver.memory(buffer.address, (3, 2))
        with pytest.raises(driver.LogicError, match="default stream"):
            driver.memcpy_htod_async(buffer.address, buffer.host)
        address = buffer.address
        driver.memcpy_htod_async(address, np.zeros((2, 2), np.float32), stream.raw)
        stream.synchronize()
        buffer.free()
        with pytest.raises(driver.LogicError, match="illegal memory access"):
            driver.memory(address, (1,))
        other = gpu.stream()
    del other
    stream.free()
    assert driver.faults == [
        "an asynchronous copy of memory that is not page-locked",
        "stream was given back without a current context",
        "stream was given back without a current context",
    ]
    driver.faults.clear()


@pytest.mark.skipif(importlib.util.find_spec("pycuda") is None, reason="pycuda is not installed: no GPU to test on")
def test_on_a_real_gpu() -> None:
    try:
        gpu = open_gpu()
    except MissingDependencyError as error:
        pytest.skip(str(error))
    values = np.random.default_rng(0).normal(size=(4, 1000)).astype(np.float32)
    with gpu.active():
        stream, buffer = gpu.stream(), gpu.buffer(values.shape)

        def there_and_back() -> None:
            buffer.upload(stream, 3)
            buffer.download(stream, 3)

        buffer.host[:] = values
        graph = stream.capture(there_and_back)
        for turn in range(3):
            buffer.host[:] = values + turn
            graph.launch(stream)
            stream.synchronize()
            np.testing.assert_array_equal(buffer.host, values + turn)
        assert stream.time_ms(lambda: graph.launch(stream)) > 0
        graph.free()
        buffer.free()
        stream.free()
