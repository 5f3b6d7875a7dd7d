"""A gallery's files, read block by block, each block verified before anything sees it.

Reads go through the file descriptor into memory of our own rather than through a memory map: what was verified is then
what is used, and a disk that fails in flight raises an error instead of ending the process.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import GalleryError

__all__ = ["BLOCKS", "BLOCK_BYTES", "NpyWriter", "Part", "PartArray", "block_digests", "check_npy_head", "open_parts"]

BLOCKS = "blocks.sha256"
"""SHA-256 of every block of every other part, 32 bytes each: parts in the order of their names, blocks in theirs."""

# One tile of the basemap. Larger ones would make the first search near a prior read more than it needs.
BLOCK_BYTES = 1 << 16
_DIGEST = 32
_READ_AT_ONCE = 64
_HASHED_AT_ONCE = 4
_NPY_MAGIC = b"\x93NUMPY\x01\x00"


class Part:
    """A file of which any range can be had, verified. Safe for several threads.

    The first block is the header of an array (``head`` bytes), if it has one; the others have ``BLOCK_BYTES``, the last
    one what is left.

    Args:
        path: of the file, which is opened here and stays open: another one that replaces it later is not seen.
        size: bytes, as the manifest has it.
        head: bytes of the first block; 0 if all are alike.
        digests: SHA-256 of its blocks, one after the other.

    Raises:
        GalleryError: the file is absent, of another size, or its list of blocks is.
    """

    def __init__(self, path: Path, size: int, head: int, digests: bytes) -> None:
        self.path, self.size, self.head = path, size, head
        self._digests = digests
        try:
            self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as reason:
            raise _unreadable(path, reason) from reason
        weakref.finalize(self, os.close, self._descriptor)
        found = os.fstat(self._descriptor).st_size
        if found != size:
            raise GalleryError("truncated or altered", file=path, field="bytes", found=found, expected=str(size))
        if len(digests) != _DIGEST * count_blocks(size, head):
            raise GalleryError("another number of blocks than its list has", file=path, field="blocks")

    @property
    def block_count(self) -> int:
        """Number of blocks."""
        return len(self._digests) // _DIGEST

    def span(self, block: int) -> tuple[int, int]:
        """First byte of a block, and the first one after it."""
        if self.head:
            if block == 0:
                return 0, self.head
            block -= 1
        start = self.head + block * BLOCK_BYTES
        return start, min(start + BLOCK_BYTES, self.size)

    def fetch(self, first: int, last: int) -> bytes:
        """The bytes of blocks ``first`` to ``last``, both included.

        Raises:
            GalleryError: a block is not what it was when the gallery was built, or cannot be read.
        """
        start, stop = self.span(first)[0], self.span(last)[1]
        try:
            data = os.pread(self._descriptor, stop - start, start)
        except OSError as reason:
            raise _unreadable(self.path, reason) from reason
        if len(data) != stop - start:
            raise GalleryError(
                "truncated", file=self.path, field="bytes", found=start + len(data), expected=str(self.size)
            )
        view = memoryview(data)
        for block in range(first, last + 1):
            begin, end = self.span(block)
            digest = hashlib.sha256(view[begin - start : end - start]).digest()
            if digest != self._digests[block * _DIGEST : (block + 1) * _DIGEST]:
                raise GalleryError(
                    "altered",
                    file=self.path,
                    field="sha256",
                    found=f"{digest.hex()[:16]} in bytes {begin} to {end}",
                    expected=self._digests[block * _DIGEST : (block + 1) * _DIGEST].hex()[:16],
                )
        return data

    def verify(self) -> None:
        """Verify the whole file, several blocks at a time; nothing of it is kept.

        Raises:
            GalleryError: as :meth:`fetch`.
        """
        starts = range(0, self.block_count, _READ_AT_ONCE)
        with ThreadPoolExecutor(min(_HASHED_AT_ONCE, os.cpu_count() or 1)) as executor:
            for _ in executor.map(
                lambda first: len(self.fetch(first, min(first + _READ_AT_ONCE, self.block_count) - 1)), starts
            ):
                pass

    def same_file(self) -> str:
        """A name under which libraries open the very file that was verified, where the system has such names."""
        name = f"/proc/self/fd/{self._descriptor}"
        return name if os.path.exists(name) else str(self.path)


class PartArray:
    """An ``.npy`` part as an array of rows, of which those are read that are asked for, once. Safe for several threads.

    Memory is reserved for all of it, which costs nothing until rows are read.

    Args:
        part: the file.
        dtype: of the array.
        shape: of the array; the first axis is that of the rows.

    Raises:
        GalleryError: the file's header says otherwise, or is altered.
    """

    def __init__(self, part: Part, dtype: Any, shape: tuple[int, ...]) -> None:
        self._part = part
        self.dtype, self.shape, self.ndim = np.dtype(dtype), tuple(shape), len(shape)
        check_npy_head(part, self.dtype, self.shape)
        self._bytes = np.empty(part.size - part.head, np.uint8)
        self._rows = self._bytes.view(self.dtype).reshape(self.shape)
        self._row_bytes = self.dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        # Without its header: block i of the data is block i + 1 of the file.
        self._ready = np.zeros(part.block_count - 1, bool)
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self._bytes.nbytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        """Rows by number, slice, array of numbers or mask; further axes are not indexed here."""
        count = len(self)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(count)
            if step > 0:
                self._need_range(start, stop)
            else:
                self._need_range(0, count)
        else:
            chosen = np.asarray(rows)
            numbers = np.flatnonzero(chosen) if chosen.dtype == np.bool_ else chosen.astype(np.int64).reshape(-1)
            self._need(np.where(numbers < 0, numbers + count, numbers))
        return np.asarray(self._rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        self._need_range(0, len(self))
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self._rows.astype(dtype)
        return self._rows.copy() if copy else self._rows

    def _need(self, rows: NDArray[np.int64]) -> None:
        if len(rows) == 0:
            return
        if rows.min() < 0 or rows.max() >= len(self):
            raise IndexError(f"row outside of 0..{len(self) - 1}")
        first = rows * self._row_bytes // BLOCK_BYTES
        last = (rows * self._row_bytes + self._row_bytes - 1) // BLOCK_BYTES
        # By a mask: numpy.unique loads masked arrays at its first call, which takes longer than a first search.
        wanted = np.zeros(len(self._ready), bool)
        # Rows are at most a few blocks long.
        for step in range(int((last - first).max()) + 1):
            wanted[np.minimum(first + step, last)] = True
        self._read(np.flatnonzero(wanted))

    def _need_range(self, start: int, stop: int) -> None:
        if start < stop:
            first, last = start * self._row_bytes // BLOCK_BYTES, (stop * self._row_bytes - 1) // BLOCK_BYTES
            self._read(np.arange(first, last + 1))

    def _read(self, blocks: NDArray[np.int64]) -> None:
        if self._ready[blocks].all():
            return
        with self._lock:
            missing = blocks[~self._ready[blocks]]
            runs = np.split(missing, np.flatnonzero(np.diff(missing) != 1) + 1)
            pieces = [
                (int(run[at]), int(run[min(at + _READ_AT_ONCE, len(run)) - 1]))
                for run in runs
                for at in range(0, len(run), _READ_AT_ONCE)
            ]
            if len(pieces) < _HASHED_AT_ONCE:
                for piece in pieces:
                    self._fill(*piece)
            else:
                with ThreadPoolExecutor(min(_HASHED_AT_ONCE, os.cpu_count() or 1)) as executor:
                    list(executor.map(lambda piece: self._fill(*piece), pieces))

    def _fill(self, first: int, last: int) -> None:
        data = self._part.fetch(first + 1, last + 1)
        self._bytes[first * BLOCK_BYTES : first * BLOCK_BYTES + len(data)] = np.frombuffer(data, np.uint8)
        # Only now: other threads read without asking for the lock.
        self._ready[first : last + 1] = True


class NpyWriter:
    """An ``.npy`` file that grows row by row, so that neither all of it is in memory nor a full disk a crash.

    A context manager. Rows are counted; the header says at the end how many there are.

    Args:
        path: of the file, which must not be there.
        dtype: of the array.
        row: shape of one row.
    """

    def __init__(self, path: Path, dtype: Any, row: tuple[int, ...]) -> None:
        self._dtype, self._row, self.count = np.dtype(dtype), tuple(row), 0
        self._file = open(path, "xb")  # noqa: SIM115 (closed by __exit__)
        self._file.write(npy_header(self._dtype, (0, *self._row)))

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        if rows.shape[1:] != self._row:
            raise ValueError(f"rows of {rows.shape[1:]} to a file of {self._row}")
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)
        self.count += len(rows)

    def __enter__(self) -> NpyWriter:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if error[0] is None:
                self._file.seek(0)
                self._file.write(npy_header(self._dtype, (self.count, *self._row)))
                self._file.flush()
                os.fsync(self._file.fileno())
        finally:
            self._file.close()


def npy_header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """The header of an ``.npy`` file of format 1.0; its length does not depend on the number of rows."""
    text = repr({"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape})
    # Twenty digits for the number of rows, and all of it a multiple of 64.
    room = len(text) - len(str(shape[0])) + 20 + len(_NPY_MAGIC) + 2 + 1
    length = -(-room // 64) * 64 - len(_NPY_MAGIC) - 2
    return _NPY_MAGIC + length.to_bytes(2, "little") + text.ljust(length - 1).encode("latin1") + b"\n"


def npy_head(start: bytes) -> int:
    """Bytes of the header of an ``.npy`` file that begins so; 0 if it is no such file."""
    if not start.startswith(_NPY_MAGIC):
        return 0
    return len(_NPY_MAGIC) + 2 + int.from_bytes(start[len(_NPY_MAGIC) : len(_NPY_MAGIC) + 2], "little")


def check_npy_head(part: Part, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    """Hold an array's header against what the manifest says.

    Raises:
        GalleryError: another type or shape.
    """
    expected = npy_header(dtype, shape)
    fits = part.size - len(expected) == dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if part.head != len(expected) or not fits or part.fetch(0, 0) != expected:
        raise GalleryError(
            "another array than the manifest's", file=part.path, field="shape", expected=f"{dtype} {shape}"
        )


def count_blocks(size: int, head: int) -> int:
    """Blocks of a file."""
    return (1 if head else 0) + -(-(size - head) // BLOCK_BYTES)


def block_digests(path: Path) -> tuple[dict[str, Any], bytes]:
    """What a manifest says of a file (bytes, sha256, head), and the SHA-256 of its blocks, in one reading."""
    whole = hashlib.sha256()
    digests = bytearray()
    with open(path, "rb") as file:
        head = npy_head(file.read(len(_NPY_MAGIC) + 2))
        file.seek(0)
        if head:
            start = file.read(head)
            whole.update(start)
            digests += hashlib.sha256(start).digest()
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
            digests += hashlib.sha256(block).digest()
        size = file.tell()
    return {"bytes": size, "sha256": whole.hexdigest(), "head": head}, bytes(digests)


def open_parts(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> dict[str, Part]:
    """All parts of a gallery but the list of blocks, which is read and verified here.

    Raises:
        GalleryError: a part is absent, truncated, or the list of blocks is altered.
    """
    path, entry = folder / BLOCKS, files[BLOCKS]
    try:
        digests = path.read_bytes()
    except OSError as reason:
        raise _unreadable(path, reason) from reason
    if len(digests) != entry["bytes"]:
        raise GalleryError(
            "truncated or altered", file=path, field="bytes", found=len(digests), expected=str(entry["bytes"])
        )
    found = hashlib.sha256(digests).hexdigest()
    if found != entry["sha256"]:
        raise GalleryError("altered", file=path, field="sha256", found=found[:16], expected=entry["sha256"][:16])
    parts, at = {}, 0
    for name in sorted(set(files) - {BLOCKS}):
        size, head = files[name]["bytes"], files[name]["head"]
        length = _DIGEST * count_blocks(size, head)
        parts[name] = Part(folder / name, size, head, digests[at : at + length])
        at += length
    if at != len(digests):
        raise GalleryError("lists other blocks than the parts have", file=path, field="bytes", found=len(digests))
    return parts


def _unreadable(path: Path, reason: OSError) -> GalleryError:
    if isinstance(reason, FileNotFoundError):
        return GalleryError("a file of the manifest is absent", file=path)
    return GalleryError(f"not readable: {reason.strerror}", file=path)
