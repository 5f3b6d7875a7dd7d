"""Everything that can be verified of a gallery without the map and the model it came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.errors import GalleryError
from cvgl.files import check_files
from cvgl.gallery.axes import along, axes_name
from cvgl.gallery.fit import ask
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.index import load_index
from cvgl.gallery.manifest import BASEMAP, BASEMAP_TILES, DESCRIPTORS, OVERVIEW, TILES, Layer, read_manifest
from cvgl.gallery.recall import AT, DISTURBED, Measured, found_shares

if TYPE_CHECKING:
    from cvgl.model import Model

__all__ = ["check_gallery"]

# Of galleries that do not say what theirs was: built with ef 64, which finds 0.93 of 56 644 tiles.
_LEAST_RECALL = 0.8
# Other queries than the index was built by.
_SEED = 25
_UNIT = 0.01
_CHUNK = 4096


def check_gallery(
    path: str | Path, model: Model | None = None, progress: Callable[[str], None] | None = None
) -> Measured:
    """Verify hashes, of files and of blocks, tables, images, and the indices against exact search.

    Args:
        path: the gallery.
        model: the one it should belong to.
        progress: called with the name of each part that was found right.

    Returns:
        Recall at 20 of the worst index, measured again with queries that it was not built by: its tiles, disturbed.

    Raises:
        GalleryError: names the part that is off.
    """
    said: Callable[[str], None] = progress or (lambda part: None)
    manifest = read_manifest(path)
    said("manifest.json")
    check_files(manifest.path, manifest.files, GalleryError, progress=said)
    gallery = Gallery.open(path, model)
    for name in manifest.files:
        gallery.verified(name)
    for layer in manifest.layers:
        _check_tiles(gallery, layer)
    said("tile table")
    _check_descriptors(gallery)
    said("descriptors")
    if manifest.version > 1:
        _check_basemap(gallery)
        said("basemap")
    _check_overview(gallery)
    said("overview")
    recall = min((_check_index(gallery, number) for number in range(len(manifest.layers))), key=lambda one: one.recall)
    said("index")
    for number, layer in enumerate(manifest.layers):
        if layer.tree is not None:
            gallery.tree(np.asarray(gallery.descriptors[layer.first : layer.first + 1], np.float32), 1, number)
            said(f"tree of layer {number}")
    return recall


def _check_tiles(gallery: Gallery, layer: Layer) -> None:
    file = gallery.path / TILES
    tiles = gallery.tiles[layer.first : layer.stop]
    west, south, east, north = gallery.bounds
    inside = (tiles >= (west - 1e-6, south - 1e-6)) & (tiles <= (east + 1e-6, north + 1e-6))
    if not inside.all():  # not a number compares as outside
        worst = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise GalleryError(
            "a tile lies outside of the map",
            file=file,
            field=f"tile {layer.first + worst}",
            found=tiles[worst].tolist(),
        )
    eastward, southward = np.diff(tiles[:, 0]), -np.diff(tiles[:, 1])
    if ((southward < 0) | ((southward == 0) & (eastward <= 0))).any():
        raise GalleryError("not in rows from north to south and west to east", file=file)
    if gallery.table["valid"].max() > 100:
        raise GalleryError("more than all of a tile has data", file=file, field="valid")


def _check_descriptors(gallery: Gallery) -> None:
    for start in range(0, len(gallery), _CHUNK):
        rows = np.asarray(gallery.descriptors[start : start + _CHUNK], np.float32)
        lengths = np.linalg.norm(rows, axis=1)
        wrong = np.flatnonzero(~(np.abs(lengths - 1) < _UNIT))
        if len(wrong):
            raise GalleryError(
                "a descriptor is not of unit length",
                file=gallery.path / DESCRIPTORS,
                field=f"tile {start + wrong[0]}",
                found=float(lengths[wrong[0]]),
            )


def _check_basemap(gallery: Gallery) -> None:
    numbers = np.load(gallery.path / BASEMAP_TILES, allow_pickle=False)
    named, count = numbers[numbers >= 0], gallery.manifest.basemap_tiles
    if not np.array_equal(np.sort(named), np.arange(count)):
        raise GalleryError("does not name every tile once", file=gallery.path / BASEMAP_TILES)
    tiles = np.load(gallery.path / BASEMAP, mmap_mode="r", allow_pickle=False)
    empty = next((number for number, tile in enumerate(tiles) if not tile.any()), None)
    if empty is not None:
        raise GalleryError("a tile is empty", file=gallery.path / BASEMAP, field=f"tile {empty}")


def _check_overview(gallery: Gallery) -> None:
    file, place = gallery.path / OVERVIEW, gallery.manifest.overview
    image = cv2.imdecode(np.fromfile(file, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.shape[:2] != (place.height, place.width):
        raise GalleryError(
            "not the image that the manifest says",
            file=file,
            found=None if image is None else image.shape[:2],
            expected=f"{place.height} x {place.width}",
        )


def _check_indexed(gallery: Gallery, layer: Layer) -> None:
    """The index must hold each tile's descriptor under its number."""
    index = load_index(None, gallery.path / layer.index, layer.axes or gallery.manifest.dimension, layer.count)
    axes = np.load(gallery.path / axes_name(layer.index), allow_pickle=False) if layer.axes else None
    for start in range(0, layer.count, _CHUNK):
        numbers = np.arange(start, min(start + _CHUNK, layer.count))
        try:
            held = np.asarray(index.get_items(numbers, return_type="numpy"))
        except RuntimeError as reason:
            raise GalleryError(f"lacks a tile: {reason}", file=gallery.path / layer.index) from reason
        rows = np.asarray(gallery.descriptors[layer.first + numbers], np.float32)
        expected = rows if axes is None else along(rows, axes, True)
        wrong = np.flatnonzero((np.abs(held - expected) > 1e-6).any(axis=1))
        if len(wrong):
            raise GalleryError(
                "holds another descriptor than the table has",
                file=gallery.path / layer.index,
                field=f"tile {layer.first + start + wrong[0]}",
            )


def _check_index(gallery: Gallery, number: int) -> Measured:
    layer = gallery.manifest.layers[number]
    _check_indexed(gallery, layer)

    def rows(which: Any) -> NDArray[np.float32]:
        start = layer.first
        chosen = slice(start + which.start, start + which.stop) if isinstance(which, slice) else start + which
        return np.asarray(gallery.descriptors[chosen], np.float32)

    questions = ask(rows, layer.count, _SEED)
    k = min(AT, layer.count)
    shares = found_shares(lambda queries: gallery.approximate(queries, k, number)[1], questions.queries, questions.kth)
    found = Measured.of(questions.kind, questions.similarity, shares)
    least = _least_recall(layer)
    if found.high < least:
        raise GalleryError(
            "the index misses too much",
            file=gallery.path / layer.index,
            field=f"recall at {k}",
            found=found.recall,
            expected=f"at least {least}",
        )
    return found


def _least_recall(layer: Layer) -> float:
    """What an index has to reach: what it reached for such queries when it was built."""
    measured = () if layer.recall is None else layer.recall.measured
    return next((one.low for one in measured if one.queries == DISTURBED), _LEAST_RECALL)
