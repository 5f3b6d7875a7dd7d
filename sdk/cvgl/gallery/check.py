"""Everything that can be verified of a gallery without the map and the model it came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cvgl.errors import GalleryError
from cvgl.files import check_files
from cvgl.gallery.gallery import Gallery
from cvgl.gallery.manifest import DESCRIPTORS, INDEX, OVERVIEW, TILES, read_manifest

if TYPE_CHECKING:
    from cvgl.model import Model

__all__ = ["check_gallery"]

_LEAST_RECALL = 0.95
_QUERIES = 200


def check_gallery(path: str | Path, model: Model | None = None, progress: Callable[[str], None] | None = None) -> float:
    """Verify hashes, tables, images, and the index against exact search.

    Args:
        path: the gallery.
        model: the one it should belong to.
        progress: called with the name of each part that was found right.

    Returns:
        Recall at 20 of the index for its own tiles, disturbed.

    Raises:
        GalleryError: names the part that is off.
    """
    said: Callable[[str], None] = progress or (lambda part: None)
    manifest = read_manifest(path)
    said("manifest.json")
    check_files(manifest.path, manifest.files, GalleryError, progress=said)
    gallery = Gallery.open(path, model)
    _check_tiles(gallery)
    said("tile table")
    _check_descriptors(gallery)
    said("descriptors")
    _check_overview(gallery)
    said("overview")
    recall = _check_index(gallery)
    said("index")
    return recall


def _check_tiles(gallery: Gallery) -> None:
    file = gallery.path / TILES
    tiles = np.asarray(gallery.tiles)
    west, south, east, north = gallery.bounds
    inside = (tiles >= (west - 1e-6, south - 1e-6)) & (tiles <= (east + 1e-6, north + 1e-6))
    if not inside.all():  # not a number compares as outside
        worst = int(np.flatnonzero(~inside.all(axis=1))[0])
        raise GalleryError(
            "a tile lies outside of the map", file=file, field=f"tile {worst}", found=tiles[worst].tolist()
        )
    eastward, southward = np.diff(tiles[:, 0]), -np.diff(tiles[:, 1])
    if ((southward < 0) | ((southward == 0) & (eastward <= 0))).any():
        raise GalleryError("not in rows from north to south and west to east", file=file)


def _check_descriptors(gallery: Gallery) -> None:
    lengths = np.concatenate(
        [
            np.linalg.norm(gallery.descriptors[start : start + 4096].astype(np.float32), axis=1)
            for start in range(0, len(gallery), 4096)
        ]
    )
    wrong = np.flatnonzero(~(np.abs(lengths - 1) < 0.01))
    if len(wrong):
        raise GalleryError(
            "a descriptor is not of unit length",
            file=gallery.path / DESCRIPTORS,
            field=f"tile {wrong[0]}",
            found=float(lengths[wrong[0]]),
        )


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


def _check_index(gallery: Gallery) -> float:
    rng = np.random.default_rng(0)
    chosen = np.sort(rng.choice(len(gallery), min(_QUERIES, len(gallery)), replace=False))
    queries = gallery.descriptors[chosen].astype(np.float32)
    # Half as long as the descriptor itself: about as far off as frames are.
    queries += rng.normal(0, 0.5 / np.sqrt(queries.shape[1]), queries.shape).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    recall = gallery.self_check(queries)
    if recall < _LEAST_RECALL:
        raise GalleryError(
            "the index misses too much",
            file=gallery.path / INDEX,
            field="recall at 20",
            found=round(recall, 3),
            expected=f"at least {_LEAST_RECALL}",
        )
    return recall
