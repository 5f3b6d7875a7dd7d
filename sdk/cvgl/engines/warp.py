"""The warp on the GPU: a raw frame under several maps, straight into the memory that a network reads."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.engines import RawFrame
from cvgl.engines.cuda import Buffer, Gpu, Kernel, Stream
from cvgl.errors import MissingDependencyError
from cvgl.native import FOLDER, gpu_warp_arguments, gpu_warp_head

__all__ = ["GpuWarp", "fat_binary", "load_warp"]

# Threads of a block, columns by rows: neighbours of the output read neighbouring source pixels, which caches like.
_BLOCK = (16, 8)


def fat_binary() -> bytes:
    """The compiled kernel for all GPUs that this package was built for.

    Raises:
        MissingDependencyError: the package was built without CUDA's compiler.
    """
    try:
        return (FOLDER / "warp.fatbin").read_bytes()
    except OSError as reason:
        raise MissingDependencyError(
            "cvgl was built without nvcc and has no GPU warp: install the CUDA toolkit, and then cvgl again"
        ) from reason


def load_warp(gpu: Gpu) -> Kernel:
    """The warp on a GPU, whose context is current.

    Raises:
        MissingDependencyError: the package was built without CUDA's compiler, or for other GPUs or drivers.
    """
    try:
        return gpu.kernel(fat_binary(), "cvgl_warp")
    except gpu.failure() as reason:
        raise MissingDependencyError(f"the GPU warp does not load: {reason}") from reason


class GpuWarp:
    """The warp of frames of one size and format, between fixed addresses, so that a CUDA graph can hold it.

    Frame, maps and all other arguments lie in one piece of page-locked memory and go up in one copy. Everything here
    must be called with the GPU's context current.

    Args:
        gpu: where it runs.
        kernel: from :func:`load_warp`.
        frame: one of those that will come.
        size: (height, width) of the network's input.
        most: maps at a time.
        out: device address of (most, 3, height, width) numbers.
        dtype: of those, float32 or float16.

    Attributes:
        masks: (most, height, width) uint8, on the device 255 where the camera sees the ground, else 0.
    """

    def __init__(
        self,
        gpu: Gpu,
        kernel: Kernel,
        frame: RawFrame,
        size: tuple[int, int],
        most: int,
        out: int,
        dtype: Any = np.float32,
    ) -> None:
        self._kernel, self._size, self._out, self._dtype = kernel, size, out, np.dtype(dtype)
        self._shape, self._pixels = frame.image.shape, frame.pixels
        head = gpu_warp_head(most)
        self._staged: Buffer = gpu.buffer((head + frame.image.size,), np.uint8, copied=True)
        self._image = self._staged.host[head:].reshape(self._shape)
        self.masks: Buffer = gpu.buffer((most, *size), np.uint8)

    def fits(self, frame: RawFrame) -> bool:
        """Whether the frame is one of those that this was made for."""
        return (frame.image.shape, frame.pixels) == (self._shape, self._pixels)

    def write(self, frame: RawFrame, maps: NDArray[np.float64]) -> None:
        """Put a frame and up to ``most`` maps where the next :meth:`put` takes them from.

        Raises:
            ValueError: a map is singular, or numbers are not usable.
        """
        np.copyto(self._image, frame.image)
        gpu_warp_arguments(
            self._staged.host,
            self._staged.address,
            self._image,
            self._pixels,
            maps,
            *frame.intrinsics,
            frame.distortion,
            frame.scale,
            frame.offset,
            frame.channels,
            *self._size,
            self._dtype == np.float16,
            self._out,
            self.masks.address,
            frame.lens,
            frame.slant,
        )

    def put(self, stream: Stream, count: int) -> None:
        """Warp what was written under its first ``count`` maps, in the stream's order."""
        self.upload(stream)
        self.launch(stream, count)

    def upload(self, stream: Stream) -> None:
        """Put what was written up to the GPU."""
        self._staged.upload(stream, len(self._staged.host))

    def launch(self, stream: Stream, count: int) -> None:
        """Warp what was put up last once more."""
        height, width = self._size
        grid = (-(-width // _BLOCK[0]), -(-height // _BLOCK[1]), count)
        self._kernel.launch(stream, grid, (*_BLOCK, 1), self._staged.address)

    def free(self) -> None:
        """Give the memory back; nothing may be under way with it."""
        # It shows the page-locked memory, which lives as long as the last array that does.
        del self._image
        self._staged.free()
        self.masks.free()
