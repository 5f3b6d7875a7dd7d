"""The images on which an export is proven: tiles, a view of each, and which belong together."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cvgl_train.data.base import DatasetError
from cvgl_train.models.base import View, ViewInput

__all__ = ["COUNT", "Images", "Masks", "ParityTiles", "Progress", "Wanted", "image_key"]

Images = NDArray[np.uint8]
Masks = NDArray[np.bool_]

Progress = Callable[[int, int], None]
"""Called with the number done and the number in all."""

COUNT = 500


@dataclass(frozen=True)
class Wanted:
    """What tiles are made for, wherever they come from.

    Args:
        query, reference: input of each view.
        count: of tiles, at most. A source that has more draws some.
        seed: same seed, same tiles.
        progress: told how many tiles are made.

    Raises:
        DatasetError: a count below 2.
    """

    query: ViewInput
    reference: ViewInput
    count: int = COUNT
    seed: int = 0
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 2:
            raise DatasetError(
                "too few tiles to prove anything on", field="count", found=self.count, expected="2 or more"
            )

    @property
    def inputs(self) -> dict[View, ViewInput]:
        """Input of each view by its name."""
        return {"query": self.query, "reference": self.reference}

    def tell(self, done: int, total: int) -> None:
        """Report progress, to whoever asked for it."""
        if self.progress is not None:
            self.progress(done, total)


@dataclass(frozen=True, eq=False)
class ParityTiles:
    """References, queries made of them, and each query's true reference. Images are RGB at their view's input size.

    Args:
        query: (Q, h, w, 3) uint8.
        reference: (R, h, w, 3) uint8, no two alike.
        truth: (Q,) index of each query's reference.
        names: (R,) of the references, for people.
        inputs: what the images of each view become before the network.
        source: where the images are from, for people.
        query_mask, reference_mask: (Q, h, w), (R, h, w) pixels that were seen; None where all were. Others enter the
            network as exactly 0, as `cvgl.model` has it in flight.
        duplicates: images left out since they were equal to another.

    Raises:
        DatasetError: fewer than two references, equal ones, or arrays that do not fit each other.
    """

    query: Images
    reference: Images
    truth: NDArray[np.int64]
    names: tuple[str, ...]
    inputs: dict[View, ViewInput]
    source: str
    query_mask: Masks | None = None
    reference_mask: Masks | None = None
    duplicates: int = 0

    def __post_init__(self) -> None:
        for view, images, mask in (
            ("query", self.query, self.query_mask),
            ("reference", self.reference, self.reference_mask),
        ):
            wanted = self.inputs[view]  # type: ignore[index]
            shape = (len(images), wanted.height, wanted.width, 3)
            if images.shape != shape or images.dtype != np.uint8:
                raise DatasetError(
                    "not the view's images", field=view, found=f"{images.dtype} {images.shape}", expected=str(shape)
                )
            if mask is not None and mask.shape != shape[:3]:
                raise DatasetError("does not fit the images", field=f"{view}_mask", found=mask.shape)
        if len(self.truth) != len(self.query) or len(self.names) != len(self.reference):
            raise DatasetError(
                "does not fit the images",
                field="truth, names",
                found=(len(self.truth), len(self.names)),
                expected=f"{len(self.query)}, {len(self.reference)}",
            )
        if len(self.truth) and not 0 <= self.truth.min() <= self.truth.max() < len(self.reference):
            raise DatasetError("no such reference", field="truth", expected=f"0 to {len(self.reference) - 1}")
        if len({image_key(image) for image in self.reference}) < len(self.reference):
            raise DatasetError("two tiles are equal", field="reference")
        if len(self.reference) < 2 or len(self.query) < 1:
            raise DatasetError(
                "too few tiles to prove anything on: a search among one always finds it",
                field="tiles",
                found=len(self.reference),
                expected="two or more that differ",
            )

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.query)

    def __repr__(self) -> str:
        return f"ParityTiles({len(self.query)} queries, {len(self.reference)} references, {self.source})"

    def images(self, view: View) -> Images:
        """(N, h, w, 3) uint8 of a view."""
        return self.query if view == "query" else self.reference

    def mask(self, view: View) -> Masks | None:
        """(N, h, w) of a view, or None."""
        return self.query_mask if view == "query" else self.reference_mask

    def batch(self, view: View, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """(B, 3, h, w) normalised input of the images from `start` up to `stop`."""
        wanted = self.inputs[view]
        scale = (1 / (255 * np.array(wanted.std))).astype(np.float32)
        mean = (255 * np.array(wanted.mean)).astype(np.float32)
        values = (self.images(view)[start:stop].astype(np.float32) - mean) * scale
        mask = self.mask(view)
        if mask is not None:
            values *= mask[start:stop, ..., None]
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all pixels, masks and the truth: two proofs with the same one were made on the same tiles."""
        digest = hashlib.sha256()
        for part in (self.query, self.reference, self.truth, self.query_mask, self.reference_mask):
            if part is not None:
                digest.update(f"{part.dtype}{part.shape}".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
        return digest.hexdigest()


def image_key(image: Images) -> bytes:
    """The same for equal images of one size alone."""
    return hashlib.sha256(image.tobytes()).digest()
