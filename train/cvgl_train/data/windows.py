"""Satellite tiles that are windows of a raster, read when they are needed, and which tile a position belongs to."""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import CvglError, GalleryError, MapError
from cvgl.gallery.build import plan_grid
from cvgl.geo import LocalFrame
from cvgl.imagery import MapSource

from .base import CrossViewSet, DatasetError, ImageSource

__all__ = [
    "Area",
    "MapWindow",
    "Mosaic",
    "MosaicWindow",
    "Piece",
    "as_dataset_error",
    "map_tiles",
    "need_pixels",
    "need_positive",
    "open_map",
    "open_rgb",
    "positioned_set",
]

# As the gallery has it: a tile at the map's rim may be half empty and say little about its place.
_LEAST_VALID = 0.6
_SURVEY_PER_TILE = 16
# Sides fall on pixels of the map, so tiles that are meant to touch may share a sliver of ground.
_TOUCHING = 0.02

_kept = threading.local()


def as_dataset_error(reason: CvglError) -> DatasetError:
    """What the SDK says of a map or a flight, as a dataset's error."""
    return DatasetError(
        reason.message, file=reason.file, field=reason.field, found=reason.found, expected=reason.expected
    )


def need_positive(value: float, name: str) -> float:
    """The value, if it is a finite number above 0. Raises DatasetError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (math.isfinite(value) and value > 0):
        raise DatasetError("not usable", field=name, found=value, expected="a number above 0")
    return float(value)


def need_pixels(value: int, name: str) -> int:
    """The value, if it is a whole number above 0. Raises DatasetError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise DatasetError("not usable", field=name, found=value, expected="a whole number above 0")
    return value


def _kept_open(path: Path, how: Callable[[Path], Any]) -> Any:
    """A file that stays open for the next window of it: in this thread and process only, since GDAL shares neither."""
    files: dict[tuple[int, Path, int], Any] = _kept.__dict__.setdefault("files", {})
    # With its time, since another file may come to stand there.
    key = os.getpid(), path, path.stat().st_mtime_ns if path.exists() else 0
    if key not in files:
        files[key] = how(path)
    return files[key]


# Maps with a georeference.


def open_map(path: Path) -> MapSource:
    """A map, kept open for this thread.

    Raises:
        DatasetError: what `MapSource.open` raises as MapError.
    """
    try:
        source: MapSource = _kept_open(path, MapSource.open)
    except MapError as reason:
        raise as_dataset_error(reason) from reason
    return source


@dataclass(frozen=True)
class MapWindow:
    """A square window of a map.

    Args:
        path: of the map.
        west, north: its corner in metres of the map's local frame.
        size_m: its side on the ground.
        px: its side as an image.
    """

    path: Path
    west: float
    north: float
    size_m: float
    px: int

    @property
    def name(self) -> str:
        """The map's name and the window's centre in it, metres east and north."""
        half = self.size_m / 2
        return f"{self.path.name}@{self.west + half:.1f},{self.north - half:.1f}"

    def read(self) -> NDArray[np.uint8]:
        """(px, px, 3) RGB, black where the map has no data."""
        try:
            return open_map(self.path).read(self.west, self.north, self.px, self.px, self.size_m / self.px)[0]
        except MapError as reason:
            raise as_dataset_error(reason) from reason


def map_tiles(
    path: Path, bounds: tuple[float, float, float, float], tile_m: float, stride_m: float, tile_px: int
) -> tuple[list[MapWindow], NDArray[np.float64]]:
    """The tiles that a gallery of that part of a map would have, and their centres.

    Args:
        path: of the map.
        bounds: (west, south, east, north) that the centres cover, metres of the map's local frame.
        tile_m, stride_m: side of a tile and distance between two, metres.
        tile_px: side of a tile, pixels.

    Returns:
        Tiles of which 60 % or more have data, from the north-west, row by row; (N, 2) easting and northing.

    Raises:
        DatasetError: unusable sizes, or no such tile.
    """
    need_pixels(tile_px, "tile_px")
    try:
        grid = plan_grid(bounds, tile_m, stride_m, tile_px)
        # How much of each tile has data is told by one coarse look at all of them: reading each would read the map.
        step = tile_m / _SURVEY_PER_TILE
        stride = grid.stride_px * grid.gsd_m
        width, height = (math.ceil(((count - 1) * stride + tile_m) / step) for count in (grid.columns, grid.rows))
        valid = open_map(path).read(grid.west, grid.north, width, height, step)[1]
    except (GalleryError, MapError) as reason:
        raise as_dataset_error(reason) from reason
    tiles, centres = [], []
    for row in range(grid.rows):
        for column in range(grid.columns):
            top, left = (round(number * stride / step) for number in (row, column))
            if valid[top : top + _SURVEY_PER_TILE, left : left + _SURVEY_PER_TILE].mean() >= _LEAST_VALID:
                easting, northing = grid.centre(column, row)
                tiles.append(MapWindow(path, easting - tile_m / 2, northing + tile_m / 2, tile_m, tile_px))
                centres.append((easting, northing))
    if not tiles:
        raise DatasetError(
            f"no tile of which {_LEAST_VALID:.0%} has data",
            file=path,
            field="tile_m",
            found=tile_m,
            expected="a size that fits the map",
        )
    return tiles, np.array(centres, np.float64)


# Images without one, perhaps in several files.


@dataclass(frozen=True)
class Piece:
    """A file of a mosaic, and the pixel of the mosaic at which it begins."""

    path: Path
    column: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class Mosaic:
    """A large image, in one file or in several that join without overlap.

    Args:
        pieces: the files.
        width, height: of the whole, pixels.
    """

    pieces: tuple[Piece, ...]
    width: int = field(init=False)
    height: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", max(piece.column + piece.width for piece in self.pieces))
        object.__setattr__(self, "height", max(piece.row + piece.height for piece in self.pieces))

    @classmethod
    def of(cls, rows: Sequence[Sequence[Path]]) -> Mosaic:
        """From the files of each row, west to east, the northern row first.

        Raises:
            DatasetError: a file that is no RGB image of 8 bits, or files whose sides do not fit together.
        """
        pieces: list[Piece] = []
        top, widths = 0, []
        for paths in rows:
            left, heights = 0, []
            for path in paths:
                height, width = open_rgb(path).shape
                pieces.append(Piece(path, left, top, width, height))
                left += width
                heights.append(height)
                if height != heights[0]:
                    raise DatasetError(
                        "does not join its neighbour", file=path, field="height", found=height, expected=str(heights[0])
                    )
            widths.append(left)
            if left != widths[0]:
                raise DatasetError(
                    "does not join the row above",
                    file=paths[-1],
                    field="width",
                    found=f"{left} with those before it",
                    expected=str(widths[0]),
                )
            top += heights[0]
        return cls(tuple(pieces))


def open_rgb(path: Path) -> Any:
    """An image that rasterio reads, kept open for this thread.

    Raises:
        DatasetError: absent, unreadable, not three bands of 8 bits.
    """
    return _kept_open(path, _open_rgb)


def _open_rgb(path: Path) -> Any:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            dataset = rasterio.open(path)
    except (RasterioError, RasterioIOError) as reason:
        raise DatasetError(f"not readable as an image: {reason}", file=path) from reason
    if dataset.count < 3 or any(kind != "uint8" for kind in dataset.dtypes[:3]):
        found = f"{dataset.count} of {dataset.dtypes[0]}"
        dataset.close()
        raise DatasetError("not an RGB image", file=path, field="bands", found=found, expected="3 of uint8")
    return dataset


@dataclass(frozen=True)
class MosaicWindow:
    """A window of a mosaic, brought to a square.

    Args:
        mosaic: the image.
        column, row, width, height: of the window, pixels.
        px: side of the result.
        label: its name.
    """

    mosaic: Mosaic
    column: int
    row: int
    width: int
    height: int
    px: int
    label: str

    @property
    def name(self) -> str:
        return self.label

    def read(self) -> NDArray[np.uint8]:
        """(px, px, 3) RGB, each pixel the mean of what it covers."""
        from rasterio.errors import RasterioError, RasterioIOError
        from rasterio.windows import Window

        whole = np.zeros((self.height, self.width, 3), np.uint8)
        for piece in self.mosaic.pieces:
            left, top = max(self.column, piece.column), max(self.row, piece.row)
            right = min(self.column + self.width, piece.column + piece.width)
            bottom = min(self.row + self.height, piece.row + piece.height)
            if left >= right or top >= bottom:
                continue
            window = Window(left - piece.column, top - piece.row, right - left, bottom - top)
            try:
                part = open_rgb(piece.path).read([1, 2, 3], window=window)
            except (RasterioError, RasterioIOError) as reason:
                raise DatasetError(f"damaged, or not readable here: {reason}", file=piece.path) from reason
            target = np.s_[top - self.row : bottom - self.row, left - self.column : right - self.column]
            whole[target] = part.transpose(1, 2, 0)
        shrinks = self.px <= min(self.width, self.height)
        return np.asarray(
            cv2.resize(whole, (self.px, self.px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
        )


# Which tile belongs to a position.


@dataclass(frozen=True)
class Area:
    """Queries with positions over tiles of one map.

    Args:
        local: of the positions.
        tile_m: side of a tile.
        queries, query_places: images and (Q, 2) easting and northing of what they show.
        query_heights: (Q,) metres.
        references, centres: tiles and (R, 2) easting and northing of their centres.
    """

    local: LocalFrame
    tile_m: float
    queries: Sequence[ImageSource]
    query_places: NDArray[np.float64]
    query_heights: NDArray[np.float64]
    references: Sequence[ImageSource]
    centres: NDArray[np.float64]


def positioned_set(name: str, split: str, areas: Sequence[Area], root: Path) -> CrossViewSet:
    """A set in which a query matches the tile whose centre is nearest; tiles that overlap that one are semi-positives.

    A query that lies in no tile is left out: nothing in the gallery shows its place. A class is a matched tile.

    Args:
        root: for the error.

    Raises:
        DatasetError: no query lies in a tile.
    """
    queries: list[ImageSource] = []
    references: list[ImageSource] = []
    matches: list[NDArray[np.int64]] = []
    semi: list[NDArray[np.int64]] = []
    places: list[NDArray[np.float64]] = []
    centres: list[NDArray[np.float64]] = []
    heights: list[float] = []
    for area in areas:
        first = len(references)
        references += area.references
        centres.append(np.column_stack(area.local.to_wgs84(area.centres[:, 0], area.centres[:, 1])))
        for query, place, height in zip(area.queries, area.query_places, area.query_heights, strict=True):
            found = _match(place, area.centres, area.tile_m)
            if found is None:
                continue
            queries.append(query)
            matches.append(found[0] + first)
            semi.append(found[1] + first)
            heights.append(float(height))
            places.append(np.hstack(area.local.to_wgs84(*place)))
    if not queries:
        raise DatasetError(
            "no query lies in a tile", file=root, found=sum(len(area.queries) for area in areas), expected="one or more"
        )
    used, query_labels = np.unique([int(indices[0]) for indices in matches], return_inverse=True)
    reference_labels = np.full(len(references), -1, np.int64)
    reference_labels[used] = np.arange(len(used))
    return CrossViewSet(
        name,
        split,
        queries,
        references,
        matches,
        query_labels.astype(np.int64),
        reference_labels,
        semi,
        np.array(places),
        np.concatenate(centres),
        "wgs84",
        np.array(heights),
    )


def _match(
    place: NDArray[np.float64], centres: NDArray[np.float64], tile_m: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Indices of the nearest tile and of those that overlap it; None where no tile has the place in it."""
    best = int(np.argmin(((centres - place) ** 2).sum(axis=1)))
    if np.abs(centres[best] - place).max() > tile_m / 2:
        return None
    overlapping = np.abs(centres - centres[best]).max(axis=1) < tile_m * (1 - _TOUCHING)
    overlapping[best] = False
    return np.array([best], np.int64), np.flatnonzero(overlapping).astype(np.int64)
