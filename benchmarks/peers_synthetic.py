"""A gallery of many descriptors that no map had to be embedded for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from cvgl.gallery import Gallery
from cvgl.gallery.manifest import BASEMAP, BASEMAP_TILES, OVERVIEW, TABLE, TILES
from cvgl.gallery.work import Work
from cvgl.gallery.write import LayerTiles, Search, finish, write_indices, write_tiles

__all__ = ["synthetic_gallery"]

_SEED = 7


def synthetic_gallery(like: Gallery, count: int, work: Path) -> Gallery:
    """Descriptors clustered as real ones are: real tiles, each disturbed by as much as neighbouring tiles differ.

    What the basemap shows is the other gallery's; its tiles' places mean nothing. It is indexed, opened and searched as
    any is. One that was made before is opened.

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
    manifest = like.manifest
    sample = manifest.layers[0]
    layer = LayerTiles(sample.tile_size_m, sample.tile_px, sample.gsd_m, sample.stride_m, sample.heading_deg, count)
    dimension = rows.shape[1]
    with Work.open(path, {"count": count}, True) as making:
        if not making.done(TILES):
            for name in (BASEMAP, BASEMAP_TILES, OVERVIEW):
                shutil.copyfile(like.path / name, making.gallery / name)
            write_tiles(making.gallery, np.zeros(count, TABLE), [stored], dimension, "float16")
        searched = write_indices(making, [layer], dimension, "float16", lambda _stage, _done, _total: None, Search())
        finish(
            making,
            model=(manifest.model_name, manifest.model_fingerprint),
            dimension=dimension,
            layers=[layer],
            searched=searched,
            local=like.local,
            bounds=manifest.bounds,
            source=manifest.source,
            attribution=manifest.attribution,
            stored={"stored": "float16"},
            basemap=manifest.basemap,
            overview=manifest.data["overview"],
        )
    return Gallery.open(path)
