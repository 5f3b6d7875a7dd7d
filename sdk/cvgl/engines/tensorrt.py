"""TensorRT on an NVIDIA GPU: a plan that its sidecar vouches for, its own stream, captured CUDA graphs.

Written for the named-tensor API that TensorRT 10.3 to 11.4 share; nothing that 11 removed is asked for.
"""

from __future__ import annotations

import contextlib
import importlib
import platform
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.engines import RawFrame
from cvgl.engines.cuda import Buffer, CudaError, Gpu, Graph, Kernel, Stream, open_gpu
from cvgl.engines.sidecar import Platform, check_plan, read_sidecar
from cvgl.engines.warp import GpuWarp, load_warp
from cvgl.errors import MissingDependencyError, ModelError

__all__ = ["TensorRTEngine", "how_to_install_tensorrt", "import_tensorrt", "load_plan", "logger", "platform_here"]

_JETSON = Path("/etc/nv_tegra_release")
# Flight uses two sizes, one frame and one frame under all headings, and opening one more, from the host's memory. Each
# has its own context and its memory.
_MOST_CONTEXTS = 4
_ERROR, _WARNING = 1, 2


def import_tensorrt() -> Any:
    """The module ``tensorrt``.

    Raises:
        MissingDependencyError: it is not installed, or its libraries do not load.
    """
    try:
        return importlib.import_module("tensorrt")
    except (ImportError, OSError) as reason:
        raise MissingDependencyError(
            f"TensorRT is not usable here: {reason}; install: {how_to_install_tensorrt()}"
        ) from reason


def how_to_install_tensorrt() -> str:
    """What to type on this platform."""
    if _JETSON.exists():
        return "sudo apt install nvidia-jetpack (a virtual environment needs --system-site-packages to see it)"
    if platform.machine() in ("x86_64", "AMD64"):
        return "pip install tensorrt (needs an NVIDIA GPU and its driver)"
    return "see NVIDIA's packages for this platform; on Jetson it comes with JetPack"


def platform_here(device: int = 0) -> Platform:
    """What engines would run on here.

    Raises:
        MissingDependencyError: no TensorRT, no pycuda, or no such GPU.
    """
    trt, gpu = import_tensorrt(), open_gpu(device)
    return Platform(str(trt.__version__), gpu.info.name, gpu.info.compute_capability)


@lru_cache(maxsize=1)
def logger(trt: Any) -> Any:
    """The process's one logger, silent: TensorRT keeps the first it is given for good.

    It has ``take()``: the warnings and errors since it was last called, oldest first.
    """

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._lines: deque[tuple[int, str]] = deque(maxlen=200)

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= _WARNING:
                self._lines.append((int(severity), message.strip()))

        def take(self) -> list[str]:
            lines = []
            with contextlib.suppress(IndexError):  # another thread may take as well
                while self._lines:
                    severity, message = self._lines.popleft()
                    lines.append(message if severity <= _ERROR else f"warning: {message}")
            return lines

    return Log()


def load_plan(trt: Any, plan: bytes, file: Path, *, version_compatible: bool, dla_core: int | None) -> tuple[Any, Any]:
    """Deserialise a plan that was checked; the primary context must be current.

    Returns:
        The runtime, which must outlive the engine, and the engine.

    Raises:
        ModelError: TensorRT refuses it.
    """
    log = logger(trt)
    log.take()
    runtime = trt.Runtime(log)
    if version_compatible:
        # Such a plan carries the runtime of its own version, which is code.
        runtime.engine_host_code_allowed = True
    if dla_core is not None:
        runtime.DLA_core = dla_core
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ModelError(f"TensorRT {trt.__version__} does not load it: {_said(log)}", file=file)
    return runtime, engine


class TensorRTEngine:
    """One plan with one FP32 image input (B, 3, H, W) and one FP32 output (B, D).

    Safe to share between threads: calls wait for each other, since one execution context serves one at a time. Not
    to be used on both sides of a fork.

    Each of the first four batch sizes gets an execution context of its own and is captured as a CUDA graph, copies
    included: a graph stays valid only while nobody else uses the context that it was captured from. Other sizes share
    a context and run without a graph.

    `run` takes images from the host. `run_frame` takes a raw frame and makes the images on the GPU, in the memory that
    the network reads and in the same graph as it.

    Args:
        path: the plan; its sidecar must lie beside it.
        fingerprint: of the model that it must have been made from; None for any.
        device: index of the GPU.
        graphs: capture CUDA graphs.

    Attributes:
        description, input_size, descriptor_size, batch: see `cvgl.engines.Engine`.
        takes_frames: see `cvgl.engines.FrameEngine`.
        sidecar: what is known of the plan.
        without_graph: by batch size, why work of that size runs without a graph.
        without_warp: why it takes no raw frames; empty where it does.

    Raises:
        MissingDependencyError: no TensorRT, no pycuda, or no such GPU.
        ModelError: the plan is foreign, damaged or of another model, TensorRT refuses it, or it is not what its
            sidecar says.
    """

    def __init__(
        self, path: str | Path, *, fingerprint: str | None = None, device: int = 0, graphs: bool = True
    ) -> None:
        self.path = Path(path)
        self.sidecar = read_sidecar(self.path)
        if fingerprint is not None and self.sidecar.fingerprint != fingerprint:
            raise ModelError(
                "built from another model",
                file=self.path,
                field="fingerprint",
                found=self.sidecar.fingerprint[:12],
                expected=fingerprint[:12],
            )
        plan = check_plan(self.path, self.sidecar, platform_here(device))
        self.input_size = self.sidecar.input_size
        self.descriptor_size = self.sidecar.descriptor_size
        least, _, most = self.sidecar.batch
        self.batch = least if least == most else None
        self.without_graph: dict[int, str] = {}
        self._trt, self._gpu, self._graphs = import_tensorrt(), open_gpu(device), graphs
        self._lock = threading.Lock()
        held = self._held = _Held(self._gpu)
        # TensorRT's objects must be destroyed under their context, and before the interpreter takes it apart.
        self._finalizer = weakref.finalize(self, held.release)
        with self._at_work():
            held.runtime, held.engine = load_plan(
                self._trt,
                plan,
                self.path,
                version_compatible=self.sidecar.version_compatible,
                dla_core=self.sidecar.dla_core,
            )
            self._input, self._output = self._tensors()
            held.stream = self._gpu.stream()
            held.images = self._gpu.buffer((most, 3, *self.input_size))
            held.descriptors = self._gpu.buffer((most, self.descriptor_size))
            # The first run allocates and captures; it must not be the first frame's.
            held.images.host[:] = 0
            self._run(least)
            self.without_warp = ""
            try:
                held.kernel = load_warp(self._gpu)
            except MissingDependencyError as missing:
                self.without_warp = missing.message
            self.takes_frames = not self.without_warp
        self.description = f"TensorRT {self._trt.__version__}, {self._gpu.info.name}, "
        self.description += f"no CUDA graph: {self.without_graph[least]}" if self.without_graph else "CUDA graph"
        self.description += f", no GPU warp: {self.without_warp}" if self.without_warp else ", GPU warp"

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, H, W) normalised RGB to (B, D) descriptors; more than the plan's largest batch are done in turn.

        Raises:
            ModelError: images of another shape than the network's, TensorRT fails, or the engine was closed.
        """
        if batch.ndim != 4 or batch.shape[1:] != (3, *self.input_size):
            raise ModelError(
                "wrong images",
                file=self.path,
                field="batch",
                found=batch.shape,
                expected=f"(B, 3, {self.input_size[0]}, {self.input_size[1]})",
            )
        least, _, most = self.sidecar.batch
        descriptors = np.empty((len(batch), self.descriptor_size), np.float32)
        with self._at_work():
            for start in range(0, len(batch), most):
                images = batch[start : start + most]
                size = max(len(images), least)
                self._held.images.host[: len(images)] = images
                self._held.images.host[len(images) : size] = 0
                self._run(size)
                descriptors[start : start + most] = self._held.descriptors.host[: len(images)]
        return descriptors

    def run_frame(self, frame: RawFrame) -> NDArray[np.float32]:
        """Descriptors (B, D) of a raw frame under its B maps: warp and network, without a way back to the host.

        Raises:
            ModelError: there is no GPU warp here, TensorRT or CUDA fails, or the engine was closed.
            ValueError: an image, a map or numbers that the warp cannot use.
        """
        least, _, most = self.sidecar.batch
        descriptors = np.empty((len(frame.maps), self.descriptor_size), np.float32)
        with self._at_work():
            warp = self._warp_of(frame)
            for start in range(0, len(frame.maps), most):
                maps = frame.maps[start : start + most]
                warp.write(frame, maps)
                self._run(max(len(maps), least), warp)
                descriptors[start : start + most] = self._held.descriptors.host[: len(maps)]
        return descriptors

    def time_ms(self, size: int = 1, frame: RawFrame | None = None) -> float:
        """Milliseconds of GPU time, copies included, of one batch of ``size`` images, whatever they show.

        Args:
            size: of the batch.
            frame: with its warp, under the first ``size`` maps; None for images from the host.

        Raises:
            ModelError: TensorRT fails, or the engine was closed.
        """
        with self._at_work():
            warp = None
            if frame is not None:
                warp = self._warp_of(frame)
                warp.write(frame, frame.maps[:size])
            prepared = self._prepare(size, warp)
            return self._held.stream.time_ms(lambda: self._enqueue(prepared))

    def close(self) -> None:
        """Give the GPU's memory back, once calls under way are done; happens by itself with the last reference."""
        with self._lock:
            self._finalizer()

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """One caller at a time, with the primary context current, and CUDA's failures as ours."""
        with self._lock:
            if not self._finalizer.alive:
                raise ModelError("the engine was closed", file=self.path)
            with self._gpu.active():
                try:
                    yield
                except self._gpu.failure() as reason:
                    raise ModelError(f"CUDA fails: {reason}", file=self.path) from reason

    def _run(self, size: int, warp: GpuWarp | None = None) -> None:
        """From the host's images, or what the warp was given, to the host's descriptors; the context is current."""
        self._enqueue(self._prepare(size, warp))
        self._held.stream.synchronize()

    def _warp_of(self, frame: RawFrame) -> GpuWarp:
        """The warp of frames of this size and format; one of others goes, and with it the graphs that hold it."""
        held = self._held
        if held.kernel is None:
            raise ModelError(f"no GPU warp: {self.without_warp}", file=self.path)
        if held.warp is None or not held.warp.fits(frame):
            held.drop_warp()
            most = self.sidecar.batch[2]
            held.warp = GpuWarp(self._gpu, held.kernel, frame, self.input_size, most, held.images.address)
        return held.warp

    def _enqueue(self, prepared: _Prepared) -> None:
        if prepared.graph is not None:
            prepared.graph.launch(self._held.stream)
        else:
            self._put(prepared)

    def _put(self, prepared: _Prepared) -> None:
        held = self._held
        if prepared.warp is None:
            held.images.upload(held.stream, prepared.size)
        else:
            prepared.warp.put(held.stream, prepared.size)
        if not prepared.context.execute_async_v3(held.stream.handle):
            raise CudaError(f"TensorRT does not run it: {_said(logger(self._trt))}")
        held.descriptors.download(held.stream, prepared.size)

    def _prepare(self, size: int, warp: GpuWarp | None = None) -> _Prepared:
        """A context of this batch size, and its graph if it has one."""
        held = self._held
        found = held.prepared.get((size, warp))
        if found is not None:
            return found
        if len(held.prepared) < _MOST_CONTEXTS:
            prepared = _Prepared(size, self._new_context(size), warp)
            # TensorRT finishes its own preparations in the first run after a change of shape, which cannot be captured.
            self._put(prepared)
            held.stream.synchronize()
            if not self._graphs:
                self.without_graph[size] = "not asked for"
            else:
                try:
                    prepared.graph = held.stream.capture(lambda: self._put(prepared))
                except self._gpu.failure() as reason:
                    self.without_graph[size] = str(reason)
            held.prepared[size, warp] = prepared
            return prepared
        self.without_graph[size] = f"{_MOST_CONTEXTS} other batch sizes have theirs"
        if held.shared is None:
            held.shared = self._new_context(size)
        else:
            self._shape(held.shared, size)
        return _Prepared(size, held.shared, warp)

    def _new_context(self, size: int) -> Any:
        context = self._held.engine.create_execution_context()
        if context is None:
            raise ModelError(f"TensorRT gives no execution context: {_said(logger(self._trt))}", file=self.path)
        self._shape(context, size)
        for name, buffer in ((self._input, self._held.images), (self._output, self._held.descriptors)):
            if not context.set_tensor_address(name, buffer.address):
                raise ModelError(f"TensorRT refuses a buffer: {_said(logger(self._trt))}", file=self.path, field=name)
        return context

    def _shape(self, context: Any, size: int) -> None:
        shape = (size, 3, *self.input_size)
        if not context.set_input_shape(self._input, shape):
            raise ModelError(
                f"TensorRT refuses the shape: {_said(logger(self._trt))}",
                file=self.path,
                field=self._input,
                found=shape,
                expected=f"a batch from {self.sidecar.batch[0]} to {self.sidecar.batch[2]}",
            )

    def _tensors(self) -> tuple[str, str]:
        """Names of input and output; the plan must be what its sidecar says."""
        trt, engine = self._trt, self._held.engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(
                "not an embedding network",
                file=self.path,
                field="inputs, outputs",
                found=(inputs, outputs),
                expected="one of each",
            )
        expected = {inputs[0]: (3, *self.input_size), outputs[0]: (self.descriptor_size,)}
        for name, sizes in expected.items():
            kind, shape = engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))
            if kind != trt.DataType.FLOAT or shape[1:] != sizes:
                raise ModelError(
                    "the plan is another than its sidecar's",
                    file=self.path,
                    field=name,
                    found=f"{kind} {shape}",
                    expected=f"FLOAT (batch, {', '.join(map(str, sizes))})",
                )
        return inputs[0], outputs[0]


class _Prepared:
    """An execution context whose shapes and addresses are set for one batch size."""

    def __init__(self, size: int, context: Any, warp: GpuWarp | None) -> None:
        self.size, self.context, self.warp = size, context, warp
        self.graph: Graph | None = None

    def free(self) -> None:
        """Give graph and context back, in this order."""
        if self.graph is not None:
            self.graph.free()
        self.context = None


class _Held:
    """What lives on the GPU, and the order in which it must go."""

    runtime: Any
    engine: Any
    stream: Stream
    images: Buffer
    descriptors: Buffer

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.prepared: dict[tuple[int, GpuWarp | None], _Prepared] = {}
        self.shared: Any = None
        self.kernel: Kernel | None = None
        self.warp: GpuWarp | None = None

    def drop_warp(self) -> None:
        """Give the warp's memory back, and before it the graphs that read it; the context is current."""
        if self.warp is not None:
            for key in [key for key in self.prepared if key[1] is self.warp]:
                self.prepared.pop(key).free()
            self.warp.free()
            self.warp = None

    def release(self) -> None:
        """Graphs before contexts, contexts before the engine, all before the memory they use."""
        with self.gpu.active():
            self.drop_warp()
            for prepared in self.prepared.values():
                prepared.free()
            self.prepared.clear()
            self.shared = self.engine = self.runtime = None
            if self.kernel is not None:
                self.kernel.free()
            for name in ("images", "descriptors", "stream"):
                if hasattr(self, name):
                    getattr(self, name).free()


def _said(log: Any) -> str:
    """What TensorRT said last, for an error."""
    return "; ".join(log.take()[-3:]) or "it says nothing"
