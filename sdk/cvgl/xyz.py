"""A folder of web map tiles (``zoom/x/y``) as one georeferenced raster."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import rasterio

from cvgl.errors import MapError
from cvgl.files import atomic_path

__all__ = ["assemble_tiles"]

# Half the side of the square that web Mercator (EPSG:3857) shows the Earth in, metres.
_HALF_M = math.pi * 6378137.0
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_MOST_PX = 60_000


def assemble_tiles(folder: str | Path, out: str | Path, zoom: int | None = None) -> Path:
    """Write the tiles of one zoom level as a tiled GeoTIFF in EPSG:3857; places without a tile are nodata.

    Rows count from the north, as in XYZ (TMS counts from the south).

    Args:
        folder: that holds ``zoom/x/y.jpg`` (or png, webp).
        out: the GeoTIFF, by atomic rename.
        zoom: of the level; None for the most detailed that is there.

    Raises:
        MapError: no tiles, tiles that cannot be read or of several sizes, or more than fit into one raster.
    """
    folder = Path(folder)
    levels = [int(p.name) for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    if not levels:
        raise MapError("no tiles", file=folder, expected="a folder zoom/x/y.jpg")
    level = max(levels) if zoom is None else zoom
    tiles = {
        (int(column.name), int(file.stem)): file
        for column in sorted((folder / str(level)).glob("*"))
        if column.name.isdigit()
        for file in sorted(column.iterdir())
        if file.suffix.lower() in _SUFFIXES and file.stem.isdigit()
    }
    if not tiles:
        raise MapError("no tiles of this level", file=folder, field="zoom", found=level, expected=f"one of {levels}")
    xs, ys = [x for x, _ in tiles], [y for _, y in tiles]
    left, top = min(xs), min(ys)
    side = _read(next(iter(tiles.values()))).shape[0]
    width, height = (max(xs) - left + 1) * side, (max(ys) - top + 1) * side
    if max(width, height) > _MOST_PX:
        raise MapError(
            "too large for one raster", file=folder, found=f"{width} x {height}", expected=f"{_MOST_PX} pixels a side"
        )
    gsd = 2 * _HALF_M / (2**level * side)
    west, north = left * side * gsd - _HALF_M, _HALF_M - top * side * gsd
    with (
        atomic_path(out) as temporary,
        rasterio.open(
            temporary,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=4,
            dtype="uint8",
            crs="EPSG:3857",
            transform=rasterio.Affine(gsd, 0, west, 0, -gsd, north),
            tiled=True,
            compress="deflate",
            photometric="RGB",
            alpha="yes",
        ) as file,
    ):
        for (x, y), path in tiles.items():
            picture = _read(path)
            if picture.shape[:2] != (side, side):
                raise MapError("of another size", file=path, found=picture.shape[:2], expected=f"{side} x {side}")
            opaque = np.full((side, side, 1), 255, np.uint8)
            planes = np.concatenate([picture[..., ::-1], opaque], axis=2).transpose(2, 0, 1)
            window = rasterio.windows.Window((x - left) * side, (y - top) * side, side, side)
            file.write(np.ascontiguousarray(planes), window=window)
    return Path(out)


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise MapError("not readable as an image", file=path)
    return np.asarray(picture, np.uint8)
