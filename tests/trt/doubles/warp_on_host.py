"""The GPU's warp, compiled for the host from the same file, as a kernel of the double of pycuda."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["compiled", "kernel"]

_HERE = Path(__file__).resolve().parent
_NATIVE = _HERE.parents[2] / "sdk" / "native"
_OPTIONS = ("-std=c++17", "-O1", "-march=native", "-shared", "-fPIC")


class _Index(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


class _Piece(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint64), ("bytes", ctypes.c_uint64), ("host", ctypes.c_void_p))


def compiled(folder: Path, *, fused: bool) -> Any:
    """The library, compiled into a folder.

    Args:
        folder: for the library.
        fused: multiplication and addition in one rounding where the processor can, as on a GPU.

    Raises:
        FileNotFoundError: no C++ compiler.
        RuntimeError: it does not compile.
    """
    library = folder / f"warp_on_host{int(fused)}.so"
    compiler = (os.environ.get("CXX") or sysconfig.get_config_var("CXX") or "c++").split()[0]
    contract = "-ffp-contract=" + ("fast" if fused else "off")
    command = [compiler, *_OPTIONS, contract, f"-I{_NATIVE}", str(_HERE / "warp_on_host.cpp"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return ctypes.CDLL(str(library))


def kernel(library: Any, driver: Any) -> Callable[..., None]:
    """What plays ``cvgl_warp`` in ``driver.kernels``."""
    run = library.run_cvgl_warp
    run.argtypes = [ctypes.c_uint64, _Index, _Index, ctypes.POINTER(_Piece), ctypes.c_int]
    run.restype = ctypes.c_char_p

    def play(grid: tuple[int, ...], block: tuple[int, ...], arguments: bytes) -> None:
        (address,) = struct.unpack("P", arguments)
        blocks = driver.blocks()
        pieces = (_Piece * len(blocks))(*(_Piece(at, b.size, b.ctypes.data) for at, b in blocks))
        wrong = run(address, _Index(*grid), _Index(*block), pieces, len(blocks))
        if wrong is not None:
            raise driver.LogicError(f"illegal memory access: {wrong.decode()}")

    return play
