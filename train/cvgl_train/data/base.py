"""What every dataset is to the rest of the house: queries, references, and which belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import CvglError

__all__ = ["CrossViewSet", "DatasetError", "ImageFile", "ImageSource", "labels_of"]


class DatasetError(CvglError, ValueError):
    """A dataset that is not there, or not of its official shape."""


class ImageSource(Protocol):
    """One image of a dataset, read when it is needed."""

    @property
    def name(self) -> str:
        """Unique in its dataset and stable: for tables and pictures."""

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB. Raises DatasetError where it cannot be read."""


@dataclass(frozen=True)
class ImageFile:
    """An image that is a file of its own.

    Args:
        path: any format OpenCV reads.
        name: by default the path's last three components.
    """

    path: Path
    label: str = ""

    @property
    def name(self) -> str:
        return self.label or "/".join(self.path.parts[-3:])

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) RGB, as it lies in the file: published trees have no EXIF rotation to undo."""
        import cv2

        image = cv2.imread(str(self.path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is None:
            reason = "not readable as an image" if self.path.exists() else "no such image"
            raise DatasetError(reason, file=self.path)
        return np.ascontiguousarray(image[..., ::-1])


@dataclass(frozen=True)
class CrossViewSet:
    """Queries and references of one split, and which belong together.

    Args:
        name: of the dataset.
        split: "train", "test" or as the dataset calls it.
        queries, references: images; a reference without a query is a distractor, which makes the search harder.
        matches: per query, the indices of its true references (at least one, the best first; see `unmatched`).
        semi: per query, indices that are neither true nor false (VIGOR's semi-positives, neighbouring tiles): no
            negatives in training; false in R@K, as published, and left out of the hit rate. None: there are none.
        query_labels, reference_labels: (Q,), (R,) class numbers 0..K-1 for losses and samplers by class; -1 for a
            distractor. Datasets of pairs number their pairs.
        query_positions, reference_positions: (Q, 2), (R, 2) where known: latitude and longitude in degrees (WGS84), or
            easting and northing in metres.
        frame: which of the two.
        query_heights: (Q,) flying height or distance, metres, where known.
        unmatched: queries may have no true reference. Such a set is made to be `reversed`: there they are the
            distractors, as in the galleries of drone images that satellite images search.
    """

    name: str
    split: str
    queries: Sequence[ImageSource]
    references: Sequence[ImageSource]
    matches: Sequence[NDArray[np.int64]]
    query_labels: NDArray[np.int64]
    reference_labels: NDArray[np.int64]
    semi: Sequence[NDArray[np.int64]] | None = None
    query_positions: NDArray[np.float64] | None = None
    reference_positions: NDArray[np.float64] | None = None
    frame: Literal["wgs84", "metres"] = "wgs84"
    query_heights: NDArray[np.float64] | None = None
    unmatched: bool = False

    def __post_init__(self) -> None:
        sizes = (len(self.queries), len(self.references))
        for field, value, size in (
            ("matches", self.matches, sizes[0]),
            ("query_labels", self.query_labels, sizes[0]),
            ("reference_labels", self.reference_labels, sizes[1]),
            ("semi", self.semi, sizes[0]),
            ("query_positions", self.query_positions, sizes[0]),
            ("reference_positions", self.reference_positions, sizes[1]),
            ("query_heights", self.query_heights, sizes[0]),
        ):
            if value is not None and len(value) != size:
                raise DatasetError("does not fit the images", field=field, found=len(value), expected=str(size))
        if not self.unmatched and not all(len(indices) for indices in self.matches):
            raise DatasetError("a query without a true reference", field="matches")

    @property
    def classes(self) -> int:
        """Number of classes K."""
        return int(max(self.query_labels.max(initial=-1), self.reference_labels.max(initial=-1))) + 1

    def select(self, queries: NDArray[np.int64]) -> CrossViewSet:
        """Only those queries, against all references."""

        def pick(values: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
            return None if values is None else values[queries]

        return replace(
            self,
            queries=[self.queries[i] for i in queries],
            matches=[self.matches[i] for i in queries],
            semi=None if self.semi is None else [self.semi[i] for i in queries],
            query_labels=self.query_labels[queries],
            query_positions=pick(self.query_positions),
            query_heights=pick(self.query_heights),
        )

    def reversed(self) -> CrossViewSet:
        """The other direction, satellite to drone: references that have a query become the queries.

        The networks' views stay what they were: see `cvgl_train.evaluation`, which embeds before it turns round.
        """
        wanted = _turned(self.matches, len(self.references))
        kept = np.array([i for i, found in enumerate(wanted) if len(found)], np.int64)
        semi = None if self.semi is None else _turned(self.semi, len(self.references))
        return CrossViewSet(
            self.name,
            self.split,
            [self.references[i] for i in kept],
            self.queries,
            [wanted[i] for i in kept],
            self.reference_labels[kept],
            self.query_labels,
            None if semi is None else [semi[i] for i in kept],
            None if self.reference_positions is None else self.reference_positions[kept],
            self.query_positions,
            self.frame,
        )


def _turned(lists: Sequence[NDArray[np.int64]], size: int) -> list[NDArray[np.int64]]:
    turned: list[list[int]] = [[] for _ in range(size)]
    for query, indices in enumerate(lists):
        for index in indices:
            turned[int(index)].append(query)
    return [np.array(found, np.int64) for found in turned]


def labels_of(names: Sequence[str]) -> dict[str, int]:
    """Class number of each name, in sorted order, as torchvision's ImageFolder (which the authors use) counts."""
    return {name: number for number, name in enumerate(sorted(set(names)))}
