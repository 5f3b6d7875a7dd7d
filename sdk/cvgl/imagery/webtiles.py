"""A folder of web map tiles: ``z/x/y.png``, in Web Mercator."""

from __future__ import annotations

import hashlib
import json
import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio.warp
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.transform import Affine

from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.imagery.source import MapSource, projection

__all__ = ["WebTiles"]

_MERCATOR = "EPSG:3857"
_HALF = math.pi * 6378137.0
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_HELD = 256
# As for rasters: at (nearly) the imagery's own resolution an area average would only blur.
_REDUCES = 1.05
# Of the window's outline that is brought into Web Mercator, and how far around it is read.
_STEPS = 17
_MARGIN_PX = 4
_TMS = "tms"


class WebTiles(MapSource):
    """Tiles of one or more zoom levels; the finest is the map, coarser ones serve windows that reduce it much.

    ``metadata.json``, if there, may say ``scheme`` ("xyz" or "tms") and ``attribution``, as MBTiles and TileJSON do.

    Args:
        path: the folder with the zoom levels.
        local: the local tangent plane; None for one around the tiles' centre.

    Raises:
        MapError: no tile is there, or the first is damaged.
    """

    def __init__(self, path: Path, local: LocalFrame | None = None) -> None:
        self.path, self.source = path, path.name
        about = _metadata(path / "metadata.json")
        self.attribution = str(about.get("attribution", ""))
        self._tms = about.get("scheme") == _TMS or (path / "tilemapresource.xml").is_file()
        self._levels = {int(p.name): p for p in path.iterdir() if p.is_dir() and p.name.isdigit()}
        self._zoom, self._files = self._finest()
        some = next(iter(self._files.values()))
        self._held: OrderedDict[tuple[int, int, int], NDArray[np.uint8] | None] = OrderedDict()
        self._side = self._decode(some).shape[0]
        columns, rows = ([place[axis] for place in self._files] for axis in (0, 1))
        size = 2 * _HALF / 2**self._zoom
        west, east = min(columns) * size - _HALF, (max(columns) + 1) * size - _HALF
        north, south = _HALF - min(rows) * size, _HALF - (max(rows) + 1) * size
        (longitude,), (latitude,) = rasterio.warp.transform(
            _MERCATOR, "EPSG:4326", [(west + east) / 2], [(south + north) / 2]
        )
        self.local = local or LocalFrame(latitude, longitude)
        self._crs = projection(self.local)
        self.native_gsd = size / self._side * math.cos(math.radians(latitude))
        steps = np.linspace(0.0, 1.0, 33)
        xs = np.concatenate([west + steps * (east - west)] * 2 + [np.full(33, west), np.full(33, east)])
        ys = np.concatenate([np.full(33, south), np.full(33, north)] + [south + steps * (north - south)] * 2)
        x, y = (np.asarray(values) for values in rasterio.warp.transform(_MERCATOR, self._crs, xs, ys))
        self.bounds = float(x.min()), float(y.min()), float(x.max()), float(y.max())

    @staticmethod
    def fits(path: Path) -> bool:
        """Whether a folder is of this kind."""
        return path.is_dir() and any(p.is_dir() and p.name.isdigit() for p in path.iterdir())

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As :meth:`MapSource.read`."""
        zoom = self._zoom_for(gsd)
        image, transform = self._mercator(west, north, width, height, gsd, zoom)
        out = np.zeros((4, height, width), np.uint8)
        if image is None:
            return np.zeros((height, width, 3), np.uint8), np.zeros((height, width), bool)
        own = self.native_gsd * 2 ** (self._zoom - zoom)
        rasterio.warp.reproject(
            np.ascontiguousarray(image.transpose(2, 0, 1)),
            out,
            src_transform=transform,
            src_crs=_MERCATOR,
            dst_transform=Affine(gsd, 0.0, west, 0.0, -gsd, north),
            dst_crs=self._crs,
            src_alpha=4,
            dst_alpha=4,
            resampling=Resampling.average if gsd / own > _REDUCES else Resampling.cubic,
            tolerance=0.02,
            # Left alone, GDAL takes it from each window's shape, and windows would join with a seam.
            XSCALE=f"{own / gsd:.9f}",
            YSCALE=f"{own / gsd:.9f}",
        )
        valid = out[3] > 127
        rgb = np.ascontiguousarray(out[:3].transpose(1, 2, 0))
        rgb[~valid] = 0
        return rgb, valid

    def identity(self) -> str:
        """As :meth:`MapSource.identity`."""
        digest = hashlib.sha256(str(self.path.resolve()).encode())
        for place, file in sorted(self._files.items()):
            stat = file.stat()
            digest.update(f"{place} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def close(self) -> None:
        """As :meth:`MapSource.close`."""
        self._held.clear()

    def _finest(self) -> tuple[int, dict[tuple[int, int], Path]]:
        """The finest level with tiles, and its files by column and row counted from the north."""
        for zoom in sorted(self._levels, reverse=True):
            files = {}
            for column in self._levels[zoom].iterdir():
                if column.is_dir() and column.name.isdigit():
                    for file in column.iterdir():
                        if file.suffix.lower() in _SUFFIXES and file.stem.isdigit():
                            files[int(column.name), self._row(int(file.stem), zoom)] = file
            if files:
                return zoom, files
        raise MapError("no tile z/x/y in it", file=self.path, expected=", ".join(_SUFFIXES))

    def _row(self, row: int, zoom: int) -> int:
        return 2**zoom - 1 - row if self._tms else row

    def _zoom_for(self, gsd: float) -> int:
        """The coarsest level that is still four times finer than what is asked for: a level may have been made
        without averaging."""
        ratio = gsd / self.native_gsd
        return min(
            (zoom for zoom in self._levels if zoom <= self._zoom and 2 ** (self._zoom - zoom) * 4 <= ratio),
            default=self._zoom,
        )

    def _mercator(
        self, west: float, north: float, width: int, height: int, gsd: float, zoom: int
    ) -> tuple[NDArray[np.uint8] | None, Affine]:
        """RGBA of the tiles under a window, and where it lies; None where there are none."""
        steps = np.linspace(0.0, 1.0, _STEPS)
        xs, ys = np.meshgrid(west + steps * width * gsd, north - steps * height * gsd)
        x, y = rasterio.warp.transform(self._crs, _MERCATOR, xs.ravel(), ys.ravel())
        pixel = 2 * _HALF / 2**zoom / self._side
        margin = _MARGIN_PX + math.ceil(gsd / self.native_gsd)
        left, right = math.floor((min(x) + _HALF) / pixel) - margin, math.ceil((max(x) + _HALF) / pixel) + margin
        top, bottom = math.floor((_HALF - max(y)) / pixel) - margin, math.ceil((_HALF - min(y)) / pixel) + margin
        transform = Affine(pixel, 0.0, left * pixel - _HALF, 0.0, -pixel, _HALF - top * pixel)
        image, side = None, self._side
        for row in range(top // side, (bottom - 1) // side + 1):
            for column in range(left // side, (right - 1) // side + 1):
                tile = self._tile(zoom, column, row)
                if tile is None:
                    continue
                if image is None:
                    image = np.zeros((bottom - top, right - left, 4), np.uint8)
                y0, x0 = row * side - top, column * side - left
                low, high = max(y0, 0), min(y0 + side, bottom - top)
                first, last = max(x0, 0), min(x0 + side, right - left)
                image[low:high, first:last] = tile[low - y0 : high - y0, first - x0 : last - x0]
        return image, transform

    def _tile(self, zoom: int, column: int, row: int) -> NDArray[np.uint8] | None:
        key = zoom, column, row
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        file: Path | None
        if zoom == self._zoom:
            file = self._files.get((column, row))
        else:
            stem = self._levels[zoom] / str(column) / str(self._row(row, zoom))
            candidates = (stem.with_name(stem.name + suffix) for suffix in _SUFFIXES)
            file = next((candidate for candidate in candidates if candidate.is_file()), None)
        tile = None if file is None else self._decode(file)
        if tile is not None and tile.shape[0] != self._side:
            raise MapError("tiles of different sizes", file=file, found=tile.shape[0], expected=str(self._side))
        self._held[key] = tile
        while len(self._held) > _HELD:
            self._held.popitem(last=False)
        return tile

    def _decode(self, file: Path) -> NDArray[np.uint8]:
        """(side, side, 4) RGBA."""
        try:
            data = np.fromfile(file, np.uint8)
        except OSError as reason:
            raise MapError(f"not readable: {reason.strerror}", file=file) from reason
        tile = cv2.imdecode(data, cv2.IMREAD_UNCHANGED) if len(data) else None
        if tile is None or tile.dtype != np.uint8 or tile.shape[0] != tile.shape[1]:
            raise MapError("damaged, or not a square tile", file=file)
        if tile.ndim == 2:
            return cv2.cvtColor(tile, cv2.COLOR_GRAY2RGBA)
        code = cv2.COLOR_BGR2RGBA if tile.shape[2] == 3 else cv2.COLOR_BGRA2RGBA
        return np.asarray(cv2.cvtColor(tile, code), np.uint8)


def _metadata(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as reason:
        raise MapError(f"not readable as JSON: {reason}", file=file) from reason
    return value if isinstance(value, dict) else {}
