"""A gallery of many descriptors that no map had to be embedded for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cvgl.files import atomic_folder, write_json
from cvgl.gallery import Gallery
from cvgl.gallery.index import build_index
from cvgl.gallery.manifest import BASEMAP, BASEMAP_TILES, DESCRIPTORS, INDEX, OVERVIEW, TABLE, TILES, seal
from cvgl.gallery.write import hash_parts, write_tiles
from cvgl.manifest import MANIFEST

__all__ = ["synthetic_gallery"]

_SEED = 7


def synthetic_gallery(like: Gallery, count: int, work: Path) -> Gallery:
    """Descriptors clustered as real ones are: real tiles, each disturbed by as much as neighbouring tiles differ.

    Everything but descriptors, index and tile table is the other gallery's, which is of the newest format version, so
    that it opens and searches as any does; its tiles' places mean nothing. One that was made before is opened.

    Args:
        like: gives the real descriptors.
        count: how many.
        work: where it goes.
    """
    path = work / f"synthetic-{like.manifest.model_fingerprint[:12]}-{count}.gallery"
    if path.is_dir():
        return Gallery.open(path)
    rng = np.random.default_rng(_SEED)
    real = np.asarray(like.descriptors, np.float32)
    # Tiles come in rows, so that most tiles' next one is their neighbour.
    differ = float(np.median(np.linalg.norm(np.diff(real, axis=0), axis=1)))
    rows = real[rng.integers(0, len(real), count)]
    rows += rng.standard_normal(rows.shape, np.float32) * (differ / np.sqrt(real.shape[1]))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    stored = rows.astype(np.float16)
    with atomic_folder(path) as folder:
        for name in (BASEMAP, BASEMAP_TILES, OVERVIEW):
            shutil.copyfile(like.path / name, folder / name)
        write_tiles(folder, np.zeros(count, TABLE), [stored], rows.shape[1], "float16")
        build_index(
            folder / INDEX,
            lambda start, stop: stored[start:stop].astype(np.float32),
            count,
            rows.shape[1],
            lambda done: None,
        )
        layer = {**like.manifest.data["layers"][0], "first": 0, "count": count}
        files = hash_parts(folder, [TILES, DESCRIPTORS, INDEX, BASEMAP, BASEMAP_TILES, OVERVIEW])
        data = {**like.manifest.data, "count": count, "layers": [layer], "files": files}
        write_json(folder / MANIFEST, seal(data))
    return Gallery.open(path)
