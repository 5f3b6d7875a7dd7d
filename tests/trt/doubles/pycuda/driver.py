"""The calls of ``pycuda.driver`` that cvgl makes, over host memory, as strict as the real ones and a little stricter.

Work put on a stream is done when the stream is synchronised and not before, so that a missing wait shows. Whatever
needs a current context in the calling thread raises without one, also where pycuda would only print and leak: those
land in `faults`. Device memory has addresses of its own and is gone when it is freed. What plays a kernel is put into
`kernels`.

The part of the driver's own library that captures graphs is `GraphLibrary`.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np

faults: list[str] = []
"""What went wrong where nothing can be raised."""

retained: list[Context] = []
"""Primary contexts that were not given back."""

integrated = False
"""Whether the GPU shares its memory with the CPU."""

devices = 1

kernels: dict[str, Callable[..., None]] = {}
"""What plays the kernels of every module: called with grid, block and the bytes of the arguments."""

refused_image = ""
"""What the driver says of a module that it does not load."""

_local = threading.local()
_memory: dict[int, np.ndarray] = {}
_streams: weakref.WeakValueDictionary[int, Stream] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class Error(Exception):
    """pycuda's base of all its errors."""


class LogicError(Error):
    """A wrong call."""


class device_attribute:
    INTEGRATED = 18


class host_alloc_flags:
    PORTABLE, DEVICEMAP, WRITECOMBINED = 1, 2, 4


def reset(*, shared: bool = False) -> None:
    """As after a start, on a GPU with or without memory of its own."""
    global integrated, refused_image
    integrated, refused_image = shared, ""
    kernels.clear()
    faults.clear()
    retained.clear()
    _memory.clear()
    _streams.clear()


def live() -> dict[str, int]:
    """What has not been given back."""
    return {"memory": len(_memory), "streams": len(_streams)}


def depth() -> int:
    """Contexts on this thread's stack."""
    return len(_stack())


def memory(address: int, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """What lies at a device address, for what plays a kernel."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    for start, block in _memory.items():
        if start <= address and address + count <= start + block.size:
            return block[address - start : address - start + count].view(dtype).reshape(shape)
    raise LogicError(f"illegal memory access at {address}")


def blocks() -> list[tuple[int, np.ndarray]]:
    """Every piece of memory that the device sees: its address and its bytes."""
    return list(_memory.items())


def enqueue(handle: int, work: Callable[[], None]) -> None:
    """Put a kernel on the stream of that handle."""
    _streams[handle].put(work)


def init(flags: int = 0) -> None:
    if not devices:
        raise Error("cuInit failed: no CUDA-capable device is detected")


def get_version() -> tuple[int, int, int]:
    return (12, 6, 0)


def get_driver_version() -> int:
    return 12080


class Device:
    def __init__(self, index: int) -> None:
        self._index = index

    @staticmethod
    def count() -> int:
        return devices

    def name(self) -> str:
        return "Double"

    def compute_capability(self) -> tuple[int, int]:
        return (8, 7)

    def get_attribute(self, attribute: int) -> int:
        if attribute != device_attribute.INTEGRATED:
            raise LogicError("attribute")
        return int(integrated)

    def retain_primary_context(self) -> Context:
        retained.append(Context(self._index))
        return retained[-1]


class Context:
    def __init__(self, index: int) -> None:
        self.index = index

    def push(self) -> None:
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        if not _stack():
            raise LogicError("cannot pop non-current context")
        _stack().pop()

    def detach(self) -> None:
        if not _stack() or _stack()[-1] is not self:
            faults.append("a context that is not current was detached")
        _stack().remove(self)
        retained.remove(self)


class Stream:
    handle = 0

    def __init__(self, flags: int = 0) -> None:
        _current("Stream")
        if flags != 1:
            faults.append("a stream that waits for the default stream")
        self.handle = 0x7F00_0000_0000 + next(_numbers)
        self.capturing: list[Callable[[], None]] | None = None
        self.work: list[Callable[[], None]] = []
        _streams[self.handle] = self

    def put(self, work: Callable[[], None]) -> None:
        (self.work if self.capturing is None else self.capturing).append(work)

    def synchronize(self) -> None:
        _current("Stream.synchronize")
        if self.capturing is not None:
            raise LogicError("operation not permitted when stream is capturing")
        while self.work:
            self.work.pop(0)()

    def __del__(self) -> None:
        if not self.handle:  # it was refused
            return
        _ended("stream")
        if self.work:
            faults.append("a stream with work under way was destroyed")


class Event:
    def __init__(self, flags: int = 0) -> None:
        _current("Event")
        self.reached = False
        self._stream: Stream | None = None

    def record(self, stream: Stream) -> Event:
        self._stream = stream
        stream.put(lambda: setattr(self, "reached", True))
        return self

    def synchronize(self) -> Event:
        if self._stream is None:
            raise LogicError("an event that was never recorded")
        self._stream.synchronize()
        return self

    def time_till(self, other: Event) -> float:
        if not (self.reached and other.reached):
            raise LogicError("device not ready")
        return 0.25


class DeviceAllocation:
    def __init__(self, size: int) -> None:
        self.address: int | None = 0x1000_0000_0000 + next(_numbers) * (1 << 32)
        _memory[self.address] = np.full(size, 0xAB, np.uint8)

    def __int__(self) -> int:
        if self.address is None:
            raise LogicError("freed")
        return self.address

    def free(self) -> None:
        _current("DeviceAllocation.free")
        del _memory[int(self)]
        self.address = None

    def __del__(self) -> None:
        if self.address is not None:
            _ended("device memory")
            _memory.pop(self.address, None)


class PagelockedHostAllocation:
    """What the base of a page-locked array is."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, flags: int) -> None:
        dtype = np.dtype(dtype)
        self._bytes = np.full(int(np.prod(shape)) * dtype.itemsize, 0xCD, np.uint8)
        self._flags = flags
        self._address = 0x2000_0000_0000 + next(_numbers) * (1 << 32)
        _memory[self._address] = self._bytes
        self.__array_interface__ = {
            "shape": shape,
            "typestr": dtype.str,
            "data": (self._bytes.ctypes.data, False),
            "version": 3,
        }

    def get_device_pointer(self) -> int:
        if not self._flags & host_alloc_flags.DEVICEMAP:
            raise LogicError("not mapped")
        return self._address

    def __del__(self) -> None:
        _ended("page-locked memory")
        _memory.pop(self._address, None)


class Module:
    def __init__(self, image: bytes) -> None:
        self._image = image

    def get_function(self, name: str) -> Function:
        _current("Module.get_function")
        if name not in kernels:
            raise LogicError("cuModuleGetFunction failed: named symbol not found")
        return Function(self, name)

    def __del__(self) -> None:
        _ended("a module")


class Function:
    num_regs, local_size_bytes = 56, 0

    def __init__(self, module: Module, name: str) -> None:
        self._module, self._name = weakref.ref(module), name
        self._format: str | None = None

    def prepare(self, arg_types: Any, texrefs: Any = None) -> Function:
        self._format = "".join(arg_types)
        return self

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, ...], stream: Stream | None, *args: Any, shared_size: int = 0
    ) -> None:
        _current("Function.prepared_async_call")
        if self._module() is None:
            raise LogicError("cuLaunchKernel failed: invalid resource handle")
        if stream is None:
            raise LogicError("a launch on the default stream")
        if len(block) != 3 or not 0 < np.prod(block) <= 1024 or block[2] > 64:
            raise LogicError(f"cuLaunchKernel failed: invalid argument: block {block}")
        if not (0 < grid[0] < 1 << 31 and all(0 < side < 1 << 16 for side in grid[1:])) or len(grid) > 3:
            raise LogicError(f"cuLaunchKernel failed: invalid argument: grid {grid}")
        packed, name = struct.pack(self._format or "", *args), self._name
        stream.put(lambda: kernels[name](tuple(grid), tuple(block), packed))


def module_from_buffer(buffer: bytes, options: Any = (), message_handler: Any = None) -> Module:
    _current("module_from_buffer")
    if not isinstance(buffer, bytes):
        raise TypeError("a bytes-like object is required")
    if refused_image:
        raise LogicError(f"cuModuleLoadDataEx failed: {refused_image} - ")
    return Module(buffer)


def mem_alloc(size: int) -> DeviceAllocation:
    _current("mem_alloc")
    return DeviceAllocation(size)


def pagelocked_empty(shape: tuple[int, ...], dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
    _current("pagelocked_empty")
    return np.asarray(PagelockedHostAllocation(tuple(shape), dtype, mem_flags))


def memcpy_htod_async(dest: int, src: np.ndarray, stream: Stream | None = None) -> None:
    _copy(dest, src, stream, lambda device, host: device.__setitem__(slice(None), host))


def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Stream | None = None) -> None:
    _copy(src, dest, stream, lambda device, host: host.__setitem__(slice(None), device))


def _copy(address: int, host: np.ndarray, stream: Stream | None, move: Callable[[Any, Any], None]) -> None:
    _current("memcpy")
    if stream is None:
        raise LogicError("a copy on the default stream")
    if not host.flags.c_contiguous:
        raise BufferError("ndarray is not contiguous")
    if not isinstance(_root(host), PagelockedHostAllocation):
        faults.append("an asynchronous copy of memory that is not page-locked")
    memory(address, host.shape, host.dtype)
    stream.put(lambda: move(memory(address, host.shape, host.dtype), host))


def _root(array: Any) -> Any:
    while isinstance(array, np.ndarray) and array.base is not None:
        array = array.base
    return array


def _stack() -> list[Context]:
    if not hasattr(_local, "stack"):
        _local.stack = []
    return _local.stack


def _current(what: str) -> None:
    if not _stack():
        raise LogicError(f"{what}: no currently active context?")


def _ended(what: str) -> None:
    if not _stack():
        faults.append(f"{what} was given back without a current context")


class GraphLibrary:
    """Stream capture as ``libcuda.so.1`` offers it, over these streams; ``refuse`` makes a call of that name fail."""

    def __init__(self, refuse: str = "", missing: str = "") -> None:
        self.refuse, self.missing = refuse, missing
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.launches = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == self.missing:
            raise AttributeError(name)
        function = _Function(getattr(type(self), "do_" + name), self, name)
        setattr(self, name, function)
        return function

    def do_cuStreamBeginCapture_v2(self, stream: int, mode: int) -> int:
        found = _streams[stream]
        if found.work or mode not in (0, 1, 2):
            return 1
        found.capturing = []
        return 0

    def do_cuStreamEndCapture(self, stream: int, out: Any) -> int:
        found = _streams[stream]
        captured, found.capturing = found.capturing, None
        if captured is None:
            return 1
        number = next(_numbers)
        self.graphs[number] = captured
        out._obj.value = number
        return 0

    def do_cuGraphInstantiateWithFlags(self, out: Any, graph: Any, flags: int) -> int:
        number = next(_numbers)
        self.executables[number] = list(self.graphs[graph.value])
        out._obj.value = number
        return 0

    def do_cuGraphLaunch(self, executable: int, stream: int) -> int:
        for work in self.executables[executable]:
            _streams[stream].put(work)
        self.launches += 1
        return 0

    def do_cuGraphExecDestroy(self, executable: int) -> int:
        del self.executables[executable]
        return 0

    def do_cuGraphDestroy(self, graph: Any) -> int:
        del self.graphs[graph.value]
        return 0

    def do_cuGetErrorName(self, result: int, out: Any) -> int:
        out._obj.value = b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED" if result == 900 else b"CUDA_ERROR_INVALID_VALUE"
        return 0


class _Function:
    """A function of a library, as ctypes shows it; its arguments are converted as ctypes would convert them."""

    argtypes: list[Any] | None = None
    restype: Any = None

    def __init__(self, function: Callable[..., int], library: GraphLibrary, name: str) -> None:
        self._function, self._library, self._name = function, library, name

    def __call__(self, *arguments: Any) -> int:
        if self.argtypes is None or self.restype is not ctypes.c_int or len(arguments) != len(self.argtypes):
            raise TypeError(f"{self._name}: argument types were not declared")
        for kind, argument in zip(self.argtypes, arguments, strict=True):
            kind.from_param(argument)
        if self._name != "cuGetErrorName":
            _current(self._name)
        if self._name == self._library.refuse:
            if self._name == "cuStreamEndCapture":  # it ends all the same, with no graph
                _streams[arguments[0]].capturing = None
            return 900
        return self._function(self._library, *arguments)
