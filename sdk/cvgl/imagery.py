"""Satellite imagery as users have it: a georeferenced raster, read by windows of the local tangent plane."""

from __future__ import annotations

import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

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

__all__ = ["MapSource"]

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
_COLOURS = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


class MapSource:
    """A georeferenced raster, opened by :meth:`open`; a context manager. Not for several threads at once.

    Attributes:
        path: of the file.
        local: the local tangent plane; its origin is the map's centre.
        bounds: (west, south, east, north) of the map's outline in metres of ``local``.
        native_gsd: ground sampling distance of the raster itself at its centre, m/px.
        source: the file's name.
        attribution: who is to be named, from the file's tags; empty if they do not say.
    """

    def __init__(self, path: Path, dataset: Any) -> None:
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
        self.local = LocalFrame(float(latitude[0]), float(longitude[0]))
        # The datum is named, so that maps on another one are shifted: unnamed, it would be taken as theirs.
        self._crs = self.local.crs.replace("+ellps=WGS84", "+datum=WGS84")
        self.bounds = self._outline()
        self.native_gsd = self._native_gsd()
        self._low, self._high = 0.0, 255.0
        self._content = self._survey()

    @classmethod
    def open(cls, path: str | Path) -> MapSource:
        """Open a map: any raster GDAL reads, any CRS and geotransform, grey, RGB or RGBA (of more bands the
        first three), any depth. Nodata values, alpha and mask bands are respected, and black connected to the
        map's edge is taken as nodata.

        Raises:
            MapError: no file, not an image, truncated, without georeference, too small, nothing but nodata.
        """
        path = Path(path)
        if not path.exists():
            raise MapError("no such file", file=path)
        dataset = None
        try:
            dataset = rasterio.open(path)
            return cls(path, dataset)
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
        """A north-up window of the map.

        Args:
            west, north: outer corner of the window's first pixel (not its centre), metres in ``local``.
            width, height: of the window, pixels.
            gsd: of the window, m/px; the map is averaged over each pixel's area where that reduces it.

        Returns:
            rgb (height, width, 3) uint8, black where not valid; valid (height, width) bool.

        Raises:
            MapError: the file is damaged there.
        """
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
            with self._fitting(ratio) as dataset:
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
        """Let go of the file."""
        self._dataset.close()

    def __enter__(self) -> MapSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        west, south, east, north = self.bounds
        return (
            f"<MapSource {self.source}: {east - west:.0f} x {north - south:.0f} m at"
            f" {self.native_gsd:.3g} m/px around {self.local.latitude:.6f}, {self.local.longitude:.6f}>"
        )

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

    def _fitting(self, ratio: float) -> Any:
        """The raster, or the coarsest of its overviews that is still much finer than what is asked for."""
        level = None
        for index, factor in enumerate(self._dataset.overviews(self._bands[0])):
            if factor * _OVERVIEW_MARGIN <= ratio:
                level = index
        return rasterio.open(self.path) if level is None else rasterio.open(self.path, overview_level=level)

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


def _innermost(reason: BaseException) -> str:
    """GDAL's own words: rasterio wraps them in sentences that only point at them."""
    while reason.__cause__ is not None:
        reason = reason.__cause__
    return (str(reason).splitlines() or [type(reason).__name__])[0].replace(os.sep * 2, os.sep)
