"""A georeferenced raster: whatever GDAL reads, such as GeoTIFF, COG, VRT, MBTiles and GeoPackage."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import rasterio
import rasterio.warp
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.imagery.source import MapSource, identity_of, projection

__all__ = ["Raster"]

# Before rasterio 1.4 the second is not one of the first.
_UNREADABLE = (RasterioError, RasterioIOError)
_SMALLEST_SIDE = 32
_SURVEY_SIDE = 2048
# JPEG leaves the black around a map not quite black.
_BORDER_GREY = 8
# An overview may have been made without averaging: it must be this much finer than what is made of it.
_OVERVIEW_MARGIN = 4
# At (nearly) the raster's own resolution an area average would only blur.
_REDUCES = 1.05
_ATTRIBUTION_TAGS = ("TIFFTAG_COPYRIGHT", "COPYRIGHT", "ATTRIBUTION", "attribution", "copyright")
_Kind = TypeVar("_Kind", bound="Raster")
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


class Raster(MapSource):
    """A georeferenced raster, opened by :meth:`open`.

    Args:
        path: of the file.
        dataset: opened by rasterio.
        subject: what rasterio opens once more for every window: the path, or the text of a VRT.
        local: the local tangent plane; None for one around the raster's centre.
    """

    def __init__(self, path: Path, dataset: Any, subject: str, local: LocalFrame | None) -> None:
        self._subject = subject
        self.path = path
        self._dataset = dataset
        self._check_georeference()
        self._bands = self._choose_bands()
        self._alpha = next(
            (i for i, kind in enumerate(dataset.colorinterp, start=1) if kind is ColorInterp.alpha), None
        )
        self.source = path.name
        tags = dataset.tags()
        self.attribution: str = next((tags[name] for name in _ATTRIBUTION_TAGS if tags.get(name)), "")
        longitude, latitude = self._project("EPSG:4326", np.array([dataset.width / 2]), np.array([dataset.height / 2]))
        if not (abs(latitude[0]) <= 90.0 and np.isfinite(longitude).all()):
            raise MapError("the map's centre has no place on Earth", file=path, field="CRS", found=str(dataset.crs))
        self.local = local or LocalFrame(float(latitude[0]), float(longitude[0]))
        self._crs = projection(self.local)
        self.bounds = self._outline()
        self.native_gsd = self._native_gsd()
        self._low, self._high = 0.0, 255.0
        self._levels: dict[int | None, Any] = {}
        self._content = self._survey()

    @classmethod
    def open_raster(cls: type[_Kind], path: Path, local: LocalFrame | None = None, subject: str | None = None) -> _Kind:
        """Open a raster: any that GDAL reads, any CRS and geotransform, grey, RGB or RGBA (of more bands the
        first three), palettes, any depth. Nodata values, alpha and mask bands are respected, and black connected to
        the map's edge is taken as nodata.

        Args:
            path: of the file.
            local: the local tangent plane; None for one around the raster's centre.
            subject: what is opened instead of the file itself.

        Raises:
            MapError: not an image, truncated, without georeference, too small, nothing but nodata.
        """
        dataset = None
        subject = subject or _first_raster(path)
        try:
            dataset = rasterio.open(subject)
            return cls(path, dataset, subject, local)
        except _UNREADABLE as reason:
            if dataset is not None:
                dataset.close()
            raise MapError(f"not readable as an image: {_innermost(reason)}", file=path) from reason
        except MapError:
            if dataset is not None:
                dataset.close()
            raise

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As :meth:`MapSource.read`."""
        transform = Affine(gsd, 0.0, west, 0.0, -gsd, north)
        ratio = gsd / self.native_gsd
        options = {
            "crs": self._crs,
            "transform": transform,
            "width": width,
            "height": height,
            "resampling": Resampling.average if ratio > _REDUCES else Resampling.cubic,
            # The default of an eighth of a pixel would be a visible share of what refinement measures.
            "tolerance": 0.02,
            "add_alpha": self._alpha is None,
            "DST_ALPHA_MAX": "255",
        }
        try:
            dataset = self._fitting(ratio)
            # Left alone, GDAL takes it from each window's shape, and windows would join with a seam.
            scale = f"{self._dataset.width / dataset.width / ratio:.9f}"
            with WarpedVRT(dataset, XSCALE=scale, YSCALE=scale, **options) as warped:
                data = warped.read([*self._bands, self._alpha or warped.count])
        except _UNREADABLE as reason:
            raise MapError(f"damaged, or not readable here: {_innermost(reason)}", file=self.path) from reason
        valid = data[-1] > 127
        if self._content is not None:
            valid &= self._covered(self._content, transform, width, height, gsd)
        rgb = self._to_uint8(data[:-1])
        rgb[~valid] = 0
        return rgb, valid

    def close(self) -> None:
        """As :meth:`MapSource.close`."""
        for dataset in self._levels.values():
            dataset.close()
        self._levels.clear()
        self._dataset.close()

    def identity(self) -> str:
        """As :meth:`MapSource.identity`."""
        return identity_of([self.path, *(Path(name) for name in self._dataset.files)])

    def _check_georeference(self) -> None:
        dataset = self._dataset
        if dataset.width < _SMALLEST_SIDE or dataset.height < _SMALLEST_SIDE:
            raise MapError(
                "too small",
                file=self.path,
                field="size",
                found=f"{dataset.width} x {dataset.height}",
                expected=f"at least {_SMALLEST_SIDE} pixels a side",
            )
        if dataset.crs is None:
            raise MapError("no georeference", file=self.path, field="CRS", expected="a coordinate system")
        if dataset.transform.is_identity or dataset.transform.determinant == 0.0:
            raise MapError(
                "no georeference",
                file=self.path,
                field="geotransform",
                found=tuple(dataset.transform)[:6],
                expected="where the pixels lie",
            )

    def _choose_bands(self) -> list[int]:
        """Numbers of the bands that show red, green and blue, or of the one that shows grey."""
        kinds = self._dataset.colorinterp
        if kinds[0] is ColorInterp.palette:
            raise MapError(
                "palette colours cannot be averaged",
                file=self.path,
                field="band 1",
                expected="RGB (gdal_translate -expand rgb makes it)",
            )
        if any(np.dtype(kind).kind not in "uif" for kind in self._dataset.dtypes):
            raise MapError(
                "not an image",
                file=self.path,
                field="data type",
                found=self._dataset.dtypes[0],
                expected="real numbers",
            )
        if all(colour in kinds for colour in _COLOURS):
            return [kinds.index(colour) + 1 for colour in _COLOURS]
        opaque = [i for i, kind in enumerate(kinds, start=1) if kind is not ColorInterp.alpha]
        if not opaque:
            raise MapError("no band but alpha", file=self.path, field="bands", expected="grey or red, green, blue")
        return opaque[:3] if len(opaque) >= 3 else opaque[:1]

    def _project(
        self, crs: str, columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Corner-based pixel coordinates of the raster to x, y of a coordinate system."""
        t = self._dataset.transform
        xs, ys = t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
        x, y = rasterio.warp.transform(self._dataset.crs, crs, xs, ys)
        return np.asarray(x), np.asarray(y)

    def _outline(self) -> tuple[float, float, float, float]:
        # The edges bend between coordinate systems: their middle may lie further out than their corners.
        steps = np.linspace(0.0, 1.0, 33)
        zero, one = np.zeros_like(steps), np.ones_like(steps)
        columns = np.concatenate([steps, steps, zero, one]) * self._dataset.width
        rows = np.concatenate([zero, one, steps, steps]) * self._dataset.height
        x, y = self._project(self._crs, columns, rows)
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            raise MapError(
                "the map's outline has no place on Earth",
                file=self.path,
                field="geotransform",
                found=tuple(self._dataset.bounds),
            )
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def _native_gsd(self) -> float:
        column, row = self._dataset.width / 2, self._dataset.height / 2
        x, y = self._project(self._crs, np.array([column, column + 1, column]), np.array([row, row, row + 1]))
        return math.sqrt(abs((x[1] - x[0]) * (y[2] - y[0]) - (x[2] - x[0]) * (y[1] - y[0])))

    def _survey(self) -> NDArray[np.uint8] | None:
        """One coarse look at the whole map: its grey levels, if deeper than 8 bits, and its black border.

        Returns:
            (h + 2, w + 2) uint8, 0 on the black border and 255 elsewhere, over the raster's own extent and
            one pixel around it; None where there is no such border.
        """
        dataset = self._dataset
        scale = min(1.0, _SURVEY_SIDE / max(dataset.width, dataset.height))
        shape = (max(1, round(dataset.height * scale)), max(1, round(dataset.width * scale)))
        image = dataset.read(self._bands, out_shape=(len(self._bands), *shape), resampling=Resampling.average).astype(
            np.float32
        )
        image = np.nan_to_num(image, nan=0.0, posinf=0.0, neginf=0.0)
        valid = dataset.dataset_mask(out_shape=shape) > 0
        eight_bit = all(dataset.dtypes[band - 1] == "uint8" for band in self._bands)
        # Where values go below zero, zero is not black.
        positive = valid.any() and image[:, valid].min() >= 0
        black = (image.max(axis=0) <= (_BORDER_GREY if eight_bit else 0)) & positive
        border = _black_border(black, valid)
        seen = valid & ~border
        if not seen.any():
            raise MapError("nothing but nodata", file=self.path)
        if not eight_bit:
            self._low, self._high = (float(level) for level in np.percentile(image[:, seen], (0.5, 99.5)))
            if self._high <= self._low:
                raise MapError("every pixel has the same value", file=self.path, found=self._low)
        if not border.any():
            return None
        # The border's rim is mixed with it, by the averaging above and by JPEG. Drawn out by one pixel, since
        # the outermost pixels of a window reach over the map's edge.
        rim = cv2.dilate(border.astype(np.uint8), np.ones((3, 3), np.uint8))
        return np.pad(np.where(rim, 0, 255).astype(np.uint8), 1, mode="edge")

    def _covered(
        self, content: NDArray[np.uint8], transform: Affine, width: int, height: int, gsd: float
    ) -> NDArray[np.bool_]:
        """(height, width) where a window's pixels have (nearly) nothing of the black border in them."""
        if self._inside(content, transform, width, height):
            return np.ones((height, width), bool)
        rows, columns = content.shape[0] - 2, content.shape[1] - 2
        t, sx, sy = self._dataset.transform, self._dataset.width / columns, self._dataset.height / rows
        corner = t.c - t.a * sx - t.b * sy, t.f - t.d * sx - t.e * sy
        reduces = gsd > self.native_gsd * max(sx, sy)
        share = np.zeros((height, width), np.uint8)
        rasterio.warp.reproject(
            content,
            share,
            src_transform=Affine(t.a * sx, t.b * sy, corner[0], t.d * sx, t.e * sy, corner[1]),
            src_crs=self._dataset.crs,
            dst_transform=transform,
            dst_crs=self._crs,
            resampling=Resampling.average if reduces else Resampling.nearest,
        )
        return share > 230

    def _inside(self, content: NDArray[np.uint8], transform: Affine, width: int, height: int) -> bool:
        """Whether a window is far from the black border; outside of the raster there is no border either."""
        steps = np.linspace(0.0, 1.0, 17)
        zero, one = np.zeros_like(steps), np.ones_like(steps)
        columns = np.concatenate([steps, steps, zero, one]) * width
        rows = np.concatenate([zero, one, steps, steps]) * height
        # Windows are north-up.
        xs, ys = transform.c + transform.a * columns, transform.f + transform.e * rows
        x, y = (np.asarray(values) for values in rasterio.warp.transform(self._crs, self._dataset.crs, xs, ys))
        if not (np.isfinite(x).all() and np.isfinite(y).all()):
            return False
        back = ~self._dataset.transform
        # In pixels of ``content``, of which the first belongs to its rim; two more for the bend of the edges.
        across = (content.shape[1] - 2) / self._dataset.width * (back.a * x + back.b * y + back.c) + 1
        down = (content.shape[0] - 2) / self._dataset.height * (back.d * x + back.e * y + back.f) + 1
        left, top = max(0, math.floor(across.min()) - 2), max(0, math.floor(down.min()) - 2)
        around = content[top : max(0, math.ceil(down.max()) + 2), left : max(0, math.ceil(across.max()) + 2)]
        return bool(around.all())

    def _fitting(self, ratio: float) -> Any:
        """The raster, or the coarsest of its overviews that is still much finer than what is asked for."""
        level = None
        for index, factor in enumerate(self._dataset.overviews(self._bands[0])):
            if factor * _OVERVIEW_MARGIN <= ratio:
                level = index
        # They stay open: blocks of the file that two windows share are decoded once.
        if level not in self._levels:
            options = {} if level is None else {"overview_level": level}
            self._levels[level] = rasterio.open(self._subject, **options)
        return self._levels[level]

    def _to_uint8(self, bands: NDArray[Any]) -> NDArray[np.uint8]:
        if bands.dtype != np.uint8 or (self._low, self._high) != (0.0, 255.0):
            scaled = (np.nan_to_num(bands.astype(np.float32)) - self._low) * (255.0 / (self._high - self._low))
            bands = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        rgb = bands if len(bands) == 3 else np.repeat(bands, 3, axis=0)
        return np.ascontiguousarray(rgb.transpose(1, 2, 0))


def _black_border(black: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(H, W) the black that is connected to the edge of the image, directly or through nodata."""
    count, labels = cv2.connectedComponents((black | ~valid).astype(np.uint8), connectivity=8)
    outer = np.zeros(count, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        outer[edge] = True
    outer[0] = False
    return outer[labels] & black & valid


def _first_raster(path: Path) -> str:
    """What to open: a file may hold several rasters (GeoPackage), of which the first is taken."""
    try:
        with rasterio.open(path) as dataset:
            if dataset.count == 0 and dataset.subdatasets:
                return str(dataset.subdatasets[0])
    except _UNREADABLE:
        pass  # whoever opens it next says why
    return str(path)


def _innermost(reason: BaseException) -> str:
    """GDAL's own words: rasterio wraps them in sentences that only point at them."""
    while reason.__cause__ is not None:
        reason = reason.__cause__
    return (str(reason).splitlines() or [type(reason).__name__])[0].replace(os.sep * 2, os.sep)
