"""A gallery of many descriptors that no map had to be embedded for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cvgl.files import atomic_folder, hash_files, write_json
from cvgl.gallery import Gallery
from cvgl.gallery.manifest import BASEMAP, DESCRIPTORS, INDEX, OVERVIEW, TILES, seal
from cvgl.manifest import MANIFEST

__all__ = ["synthetic_gallery"]

_SEED = 7


def synthetic_gallery(like: Gallery, count: int, work: Path) -> Gallery:
    """Descriptors clustered as real ones are: real tiles, each disturbed by as much as neighbouring tiles differ.

    Everything but descriptors, index and tile table is the other gallery's, so that it opens and searches as any does;
    its tiles' places mean nothing. One that was made before is opened.

    Args:
        like: gives the real descriptors.
        count: how many.
        work: where it goes.
    """
    import hnswlib

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
    settings = like.manifest.data["index"]
    with atomic_folder(path) as folder:
        shutil.copyfile(like.path / BASEMAP, folder / BASEMAP)
        shutil.copyfile(like.path / OVERVIEW, folder / OVERVIEW)
        np.save(folder / DESCRIPTORS, rows.astype(np.float16))
        np.save(folder / TILES, np.zeros((count, 2)))
        index = hnswlib.Index(space="ip", dim=rows.shape[1])
        index.init_index(count, settings["M"], settings["ef_construction"], _SEED)
        index.add_items(rows.astype(np.float16).astype(np.float32), np.arange(count))
        index.save_index(str(folder / INDEX))
        files = hash_files(folder, [TILES, DESCRIPTORS, INDEX, BASEMAP, OVERVIEW])
        write_json(folder / MANIFEST, seal({**like.manifest.data, "count": count, "files": files}))
    return Gallery.open(path)
