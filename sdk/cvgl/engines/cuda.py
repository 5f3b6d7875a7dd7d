"""CUDA as engines need it, through pycuda: the primary context, buffers allocated once, a stream, graphs, kernels.

The *primary* context is the one that the CUDA runtime itself uses, and with it TensorRT, ONNX Runtime and PyTorch; a
second context would not see their memory. pycuda keeps a stack of contexts per thread and aborts the process where a
thread ends with something on it, so contexts are only ever current inside :meth:`Gpu.active`, and everything here that
touches the GPU must be called inside it.

Thread safety: a `Gpu` may be shared between threads. Buffers, streams, graphs and kernels are for one thread at a time.

pycuda knows nothing of CUDA graphs. Its streams are handles of the driver API, so capture is done with the six calls of
that API, straight from the driver's library.
"""

from __future__ import annotations

import ctypes
import importlib
import platform
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import MissingDependencyError

__all__ = ["Buffer", "CudaError", "Gpu", "GpuInfo", "Graph", "Kernel", "Stream", "how_to_install_pycuda", "open_gpu"]

_JETSON = Path("/etc/nv_tegra_release")
# Neither constant has a name in pycuda. Work on a non-blocking stream does not wait for the default stream.
_STREAM_NON_BLOCKING = 1
# Capture that other threads' allocations do not break.
_CAPTURE_THREAD_LOCAL = 1

_gpus: dict[int, Gpu] = {}
_gpus_lock = threading.Lock()


class CudaError(RuntimeError):
    """A call of the CUDA driver failed; engines say of which file, and raise that."""


@dataclass(frozen=True)
class GpuInfo:
    """What a GPU is.

    Args:
        index: of the device, as CUDA counts.
        name: as the driver calls it.
        compute_capability: (major, minor).
        integrated: shares its memory with the CPU, as on Jetson.
        cuda: version of CUDA that pycuda was built with.
        driver: newest version of CUDA that the driver serves.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    integrated: bool
    cuda: str
    driver: str


def open_gpu(index: int = 0) -> Gpu:
    """The GPU of that number; its primary context is retained once per process.

    Raises:
        MissingDependencyError: no pycuda, no driver, or no such GPU.
    """
    with _gpus_lock:
        if index not in _gpus:
            _gpus[index] = Gpu(_import_pycuda(), index)
        return _gpus[index]


def how_to_install_pycuda() -> str:
    """What to type on this platform."""
    if _JETSON.exists():
        return "sudo apt install nvidia-jetpack python3-dev && CUDA_ROOT=/usr/local/cuda pip install pycuda"
    return "pip install pycuda (it compiles: an NVIDIA driver, the CUDA toolkit and a C++ compiler must be there)"


class Gpu:
    """One GPU through its primary context. Use :func:`open_gpu`."""

    def __init__(self, driver: Any, index: int) -> None:
        self._cuda = driver
        self._graphs: _GraphApi | None = None
        try:
            driver.init()
            count = driver.Device.count()
        except driver.Error as reason:
            raise MissingDependencyError(f"no usable NVIDIA GPU: {reason}") from reason
        if not 0 <= index < count:
            raise MissingDependencyError(
                "no such GPU", field="device", found=index, expected=f"0 to {count - 1}" if count else "a GPU"
            )
        device = driver.Device(index)
        major, minor = device.compute_capability()
        self.info = GpuInfo(
            index=index,
            name=device.name(),
            compute_capability=(int(major), int(minor)),
            integrated=bool(device.get_attribute(driver.device_attribute.INTEGRATED)),
            cuda=".".join(str(part) for part in driver.get_version()),
            driver=_driver_version(driver.get_driver_version()),
        )
        self._context = device.retain_primary_context()
        # Left to itself, pycuda would destroy the context as if it were one of its own, and complain that it cannot.
        # Finalizers run in reverse: those of engines, which need the context, come first.
        weakref.finalize(self, _release, self._context)

    @contextmanager
    def active(self) -> Iterator[None]:
        """Make the primary context current in this thread until the block ends."""
        self._context.push()
        try:
            yield
        finally:
            self._cuda.Context.pop()

    def stream(self) -> Stream:
        """A new stream, which does not wait for the default one."""
        return Stream(self._cuda, self._graph_api)

    def buffer(self, shape: tuple[int, ...], dtype: Any = np.float32, *, copied: bool = False) -> Buffer:
        """A new pair of host and device memory; one piece of mapped memory on an integrated GPU.

        Args:
            shape, dtype: of the host array.
            copied: a pair also on an integrated GPU, which does not cache what is mapped: for what is read out of
                order or more than once.
        """
        return Buffer(self._cuda, shape, np.dtype(dtype), self.info.integrated and not copied)

    def kernel(self, image: bytes, name: str) -> Kernel:
        """A function of a fat binary, a cubin or PTX; pycuda's error where none of it fits this GPU and driver."""
        return Kernel(self._cuda, image, name)

    def failure(self) -> tuple[type[Exception], ...]:
        """What calls of this module raise where CUDA fails."""
        return (CudaError, self._cuda.Error)

    def _graph_api(self) -> _GraphApi:
        if self._graphs is None:
            self._graphs = _GraphApi()
        return self._graphs


class Buffer:
    """A page-locked host array and its twin on the device.

    Attributes:
        host: (shape) array, written and read by the CPU.
        address: of the twin, on the device.
        mapped: both are the same memory, and nothing needs to be copied.
    """

    host: NDArray[Any]

    def __init__(self, driver: Any, shape: tuple[int, ...], dtype: np.dtype[Any], mapped: bool) -> None:
        self._cuda, self.mapped = driver, mapped
        self._device: Any = None
        if mapped:
            self.host = driver.pagelocked_empty(shape, dtype, mem_flags=driver.host_alloc_flags.DEVICEMAP)
            self.address = int(self.host.base.get_device_pointer())  # type: ignore[union-attr]
        else:
            self.host = driver.pagelocked_empty(shape, dtype)
            self._device = driver.mem_alloc(self.host.nbytes)
            self.address = int(self._device)

    def upload(self, stream: Stream, count: int) -> None:
        """Copy the first ``count`` rows to the device, in the stream's order."""
        if not self.mapped:
            self._cuda.memcpy_htod_async(self.address, self.host[:count], stream.raw)

    def download(self, stream: Stream, count: int) -> None:
        """Copy the first ``count`` rows to the host, in the stream's order."""
        if not self.mapped:
            self._cuda.memcpy_dtoh_async(self.host[:count], self.address, stream.raw)

    def free(self) -> None:
        """Give both back; nothing may be under way with them."""
        self.address = 0
        if self._device is not None:
            self._device.free()
            self._device = None
        # pycuda frees page-locked memory with the last array that shows it.
        self.host = np.empty(0, self.host.dtype)


class Kernel:
    """A function that runs on the GPU. Its arguments are device addresses.

    Attributes:
        registers: that one thread uses.
        local_bytes: of slow memory that one thread uses because registers do not do.
    """

    def __init__(self, driver: Any, image: bytes, name: str) -> None:
        # The function is only valid as long as its module.
        self._module = driver.module_from_buffer(image)
        self._function = self._module.get_function(name)
        self.registers = int(self._function.num_regs)
        self.local_bytes = int(self._function.local_size_bytes)

    def launch(self, stream: Stream, grid: tuple[int, int, int], block: tuple[int, int, int], *addresses: int) -> None:
        """Put it on a stream: ``grid`` blocks of ``block`` threads."""
        self._function.prepare("P" * len(addresses))
        self._function.prepared_async_call(grid, block, stream.raw, *addresses)

    def free(self) -> None:
        """Give it back; it must not be under way."""
        self._function = self._module = None


class Stream:
    """An order of work on the GPU.

    Attributes:
        raw: pycuda's stream.
        handle: the driver's, as TensorRT takes it.
    """

    def __init__(self, driver: Any, graphs: Callable[[], _GraphApi]) -> None:
        self._cuda, self._graphs = driver, graphs
        self.raw = driver.Stream(_STREAM_NON_BLOCKING)
        self.handle = int(self.raw.handle)

    def synchronize(self) -> None:
        """Wait until all of it is done; other Python threads run meanwhile."""
        self.raw.synchronize()

    def time_ms(self, work: Callable[[], None]) -> float:
        """Milliseconds that the GPU takes for what ``work`` puts on this stream."""
        start, end = self._cuda.Event(), self._cuda.Event()
        start.record(self.raw)
        work()
        end.record(self.raw)
        end.synchronize()
        return float(start.time_till(end))

    def capture(self, work: Callable[[], None]) -> Graph:
        """Record what ``work`` puts on this stream, without doing it.

        Raises:
            CudaError: something in it cannot be captured. The stream is usable afterwards.
        """
        api = self._graphs()
        api.begin(self.handle)
        try:
            work()
        except BaseException:
            # A stream must leave capture, whatever happened, or it is lost.
            api.abandon(self.handle)
            raise
        return Graph(api, api.end(self.handle))

    def free(self) -> None:
        """Give the stream back."""
        self.raw = None


class Graph:
    """Recorded work, launched as one call. It reads and writes the addresses that it was recorded with."""

    def __init__(self, api: _GraphApi, executable: int) -> None:
        self._api, self._executable = api, executable

    def launch(self, stream: Stream) -> None:
        """Put it on a stream."""
        self._api.launch(self._executable, stream.handle)

    def free(self) -> None:
        """Give it back; it must not be under way."""
        if self._executable:
            self._api.destroy(self._executable)
            self._executable = 0


class _GraphApi:
    """Stream capture of the CUDA driver API (cuda.h, 11.4 and later), each call checked."""

    def __init__(self, library: Any = None) -> None:
        if library is None:
            try:
                library = _driver_library()
            except OSError as reason:
                raise CudaError(f"the CUDA driver's library does not load: {reason}") from reason
        self._library = library
        handle, out = ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)
        self._begin = self._function("cuStreamBeginCapture_v2", handle, ctypes.c_int)
        self._end = self._function("cuStreamEndCapture", handle, out)
        self._instantiate = self._function("cuGraphInstantiateWithFlags", out, handle, ctypes.c_ulonglong)
        self._launch = self._function("cuGraphLaunch", handle, handle)
        self._destroy_executable = self._function("cuGraphExecDestroy", handle)
        self._destroy_graph = self._function("cuGraphDestroy", handle)
        self._name = self._function("cuGetErrorName", ctypes.c_int, ctypes.POINTER(ctypes.c_char_p))

    def begin(self, stream: int) -> None:
        self._check("cuStreamBeginCapture", self._begin(stream, _CAPTURE_THREAD_LOCAL))

    def end(self, stream: int) -> int:
        """Handle of the executable graph."""
        graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
        self._check("cuStreamEndCapture", self._end(stream, ctypes.byref(graph)))
        try:
            self._check("cuGraphInstantiate", self._instantiate(ctypes.byref(executable), graph, 0))
        finally:
            self._destroy_graph(graph)
        return int(executable.value or 0)

    def abandon(self, stream: int) -> None:
        """End a capture that failed: its error is already known, and so is not looked at."""
        graph = ctypes.c_void_p()
        if self._end(stream, ctypes.byref(graph)) == 0 and graph.value:
            self._destroy_graph(graph)

    def launch(self, executable: int, stream: int) -> None:
        self._check("cuGraphLaunch", self._launch(executable, stream))

    def destroy(self, executable: int) -> None:
        self._check("cuGraphExecDestroy", self._destroy_executable(executable))

    def _function(self, name: str, *arguments: Any) -> Any:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise CudaError(f"the CUDA driver has no {name}: it is older than 11.4") from None
        function.argtypes, function.restype = list(arguments), ctypes.c_int
        return function

    def _check(self, call: str, result: int) -> None:
        if result != 0:
            name = ctypes.c_char_p()
            self._name(result, ctypes.byref(name))
            raise CudaError(f"{call}: {(name.value or b'unknown error').decode()} ({result})")


def _driver_library() -> Any:
    return ctypes.CDLL("libcuda.so.1")


def _release(context: Any) -> None:
    """Give the primary context back; pycuda does that in the thread that took it, or where it is current."""
    context.push()
    context.detach()


def _import_pycuda() -> Any:
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as reason:
        where = f"{platform.system()} {platform.machine()}"
        raise MissingDependencyError(
            f"pycuda is not usable here ({where}): {reason}; install: {how_to_install_pycuda()}"
        ) from reason


def _driver_version(number: int) -> str:
    """12060 -> 12.6."""
    return f"{number // 1000}.{number % 1000 // 10}"
