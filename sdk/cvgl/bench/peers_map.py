"""The peer that searches everywhere: a frame's orientation field correlated with the whole map by FFT."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.errors import FrameError, MissionError
from cvgl.orientation import orientation_field
from cvgl.rectify import Patch

__all__ = ["Place", "WholeMap"]

_SIDES = (128, 192, 256, 384, 512, 576, 640, 768, 1024, 1536)
_TRIES = 5
_MOST_BYTES = 2e9


@dataclass(frozen=True)
class Place:
    """Where a peer puts the middle of a frame.

    Args:
        easting, northing: metres in the gallery's local tangent plane.
        score: of the peer's own kind; higher is surer.
    """

    easting: float
    northing: float
    score: float


@dataclass(frozen=True)
class _Block:
    """Spectra (side, side) of the real and of the imaginary part of the map's field, and where its surface begins."""

    row: int
    column: int
    real: NDArray[np.complex64]
    imaginary: NDArray[np.complex64]


class WholeMap:
    """A map, ready to be correlated with frames at every place: overlap-save with spectra that are made beforehand.

    Tuned as far as we know how to: single precision; the side of the blocks that is fastest on this machine; two
    headings in one inverse transform, since the correlation that counts is real; blocks shared among threads.

    Args:
        basemap: the map.
        template_px: side of the largest patch that will be searched for, pixels of the reduced map.
        reduction: by which the map is reduced, a whole number; 1 for all its detail.
        executor: threads to share the blocks among.

    Raises:
        MissionError: a size that is not positive, or a map whose spectra would take more than 2 GB.
    """

    def __init__(
        self, basemap: Basemap, template_px: int, *, reduction: int = 1, executor: Executor | None = None
    ) -> None:
        for field, value in (("template_px", template_px), ("reduction", reduction)):
            if value < 1:
                raise MissionError("not usable", field=field, found=value, expected="1 or more")
        self.basemap = basemap
        self.template_px = template_px
        self.reduction = reduction
        self._run = executor.map if executor is not None else map
        shape = [extent // reduction for extent in basemap.pixels.shape]
        self.side = _best_side(template_px, max(shape))
        need = 16 * self.side**2 * math.prod(math.ceil(extent / self._valid) for extent in shape)
        if need > _MOST_BYTES:
            raise MissionError(
                "too large for its spectra to be kept",
                field="map",
                found=f"{need / 1e9:.1f} GB",
                expected=f"at most {_MOST_BYTES / 1e9:g} GB",
            )
        self._blocks = self._transform()

    @property
    def memory_bytes(self) -> int:
        """Of the spectra."""
        return sum(block.real.nbytes + block.imaginary.nbytes for block in self._blocks)

    @property
    def _valid(self) -> int:
        """Places that a block answers, on each axis."""
        return self.side - self.template_px + 1

    def find(self, patches: Sequence[Patch]) -> Place | None:
        """The best place over all patches; None where the frame is featureless.

        Args:
            patches: the frame under several headings: grey, square, all of one size, at the reduced map's GSD.

        Raises:
            FrameError: the patches are larger than what this map was made ready for.
        """
        size = patches[0].mask.shape[0]
        if size > self.template_px:
            raise FrameError("a larger patch", field="patches", found=size, expected=f"at most {self.template_px}")
        fields = [orientation_field(patch.image, patch.mask) for patch in patches]
        norms = np.array([math.sqrt(float(np.vdot(field, field).real)) for field in fields], np.float32)
        if norms.min() == 0.0:
            return None
        spectra = list(self._run(self._template, [f / norm for f, norm in zip(fields, norms, strict=True)]))
        if len(spectra) % 2:
            spectra.append(spectra[-1])
        # (a + ib) holds the correlation of one heading in its real part, that of the next in its imaginary part.
        pairs = [
            (one[0] + 1j * other[0], one[1] + 1j * other[1])
            for one, other in zip(spectra[::2], spectra[1::2], strict=True)
        ]
        score, row, column = max(self._run(lambda block: self._best_of(block, pairs), self._blocks))
        # From the patch's outer corner to its middle, in pixels of the map as it is.
        x, y = ((at + size / 2) * self.reduction - 0.5 for at in (column, row))
        easting, northing = self.basemap.to_local(x, y)
        return Place(float(easting), float(northing), score)

    def _transform(self) -> list[_Block]:
        grey, known = self._reduced()
        field = orientation_field(grey, None if known.all() else known)
        # The frame's middle may lie anywhere on the map, its rim half a template beyond.
        before = self.template_px // 2
        valid = self._valid
        rows, columns = (math.ceil(extent / valid) for extent in field.shape)
        padded = np.zeros((rows * valid + self.template_px - 1, columns * valid + self.template_px - 1), np.complex64)
        padded[before : before + field.shape[0], before : before + field.shape[1]] = field

        def transform(corner: tuple[int, int]) -> _Block:
            row, column = corner
            part = padded[row : row + self.side, column : column + self.side]
            return _Block(row - before, column - before, _spectrum(part.real), _spectrum(part.imag))

        corners = [(row * valid, column * valid) for row in range(rows) for column in range(columns)]
        return list(self._run(transform, corners))

    def _reduced(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The map at its reduced detail, and 255 where all of a pixel is known."""
        pixels = np.asarray(self.basemap.pixels)
        height, width = (extent // self.reduction * self.reduction for extent in pixels.shape)
        pixels = pixels[:height, :width]
        known = np.where(pixels > 0, 255, 0).astype(np.uint8)
        if self.reduction == 1:
            return pixels, known
        size = (width // self.reduction, height // self.reduction)
        grey = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
        whole = cv2.resize(known, size, interpolation=cv2.INTER_AREA) == 255
        return grey, np.where(whole, 255, 0).astype(np.uint8)

    def _template(self, field: NDArray[np.complex64]) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
        padded = np.zeros((2, self.side, self.side), np.float32)
        padded[0, : field.shape[0], : field.shape[1]] = field.real
        padded[1, : field.shape[0], : field.shape[1]] = field.imag
        return np.conj(_spectrum(padded[0])), np.conj(_spectrum(padded[1]))

    def _best_of(
        self, block: _Block, pairs: Sequence[tuple[NDArray[np.complex64], NDArray[np.complex64]]]
    ) -> tuple[float, float, float]:
        """Height of a block's highest peak, and its row and column to a part of a pixel."""
        valid = self._valid
        best = (-math.inf, 0.0, 0.0)
        for real, imaginary in pairs:
            product = real * block.real
            product += imaginary * block.imaginary
            parts = product.view(np.float32).reshape(self.side, self.side, 2)
            both = cv2.dft(parts, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)[:valid, :valid]
            for surface in cv2.split(both):
                _, value, _, (x, y) = cv2.minMaxLoc(surface)
                if value > best[0]:
                    best = (value, block.row + y + _vertex(surface[:, x], y), block.column + x + _vertex(surface[y], x))
        return best


def _spectrum(part: NDArray[np.floating]) -> NDArray[np.complex64]:
    spectrum = cv2.dft(np.ascontiguousarray(part, np.float32), flags=cv2.DFT_COMPLEX_OUTPUT)
    return np.ascontiguousarray(spectrum).view(np.complex64)[..., 0]


def _vertex(line: NDArray[np.float32], at: int) -> float:
    """Where a parabola through a peak and its neighbours is highest, from the peak, pixels."""
    if not 0 < at < len(line) - 1:
        return 0.0
    before, here, after = (float(value) for value in line[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.0 if bend >= 0.0 else min(max((before - after) / (2 * bend), -0.5), 0.5)


def _best_side(template: int, map_px: int) -> int:
    """The side of a block whose inverse transform costs least for each place that it answers, on this machine."""
    costs: dict[int, float] = {}
    for side in _SIDES:
        if side < 1.2 * template:
            continue
        product = np.ones((side, side, 2), np.float32)
        least = math.inf
        for _ in range(_TRIES):
            began = time.perf_counter()
            cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_SCALE)
            least = min(least, time.perf_counter() - began)
        valid = side - template + 1
        # A map smaller than a block leaves the rest of the block idle.
        costs[side] = least * math.ceil(map_px / valid) ** 2
    return min(costs, key=costs.__getitem__) if costs else cv2.getOptimalDFTSize(2 * template)
