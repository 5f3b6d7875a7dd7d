"""What every kind of satellite imagery is to the rest: windows of the local tangent plane."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cvgl.errors import MapError
from cvgl.geo import LocalFrame

__all__ = ["MapSource", "identity_of", "projection"]


class MapSource(ABC):
    """Georeferenced imagery, opened by :meth:`open`; a context manager. Not for several threads at once.

    Attributes:
        path: of the file or folder.
        local: the local tangent plane; its origin is the map's centre unless another was asked for.
        bounds: (west, south, east, north) of the map's outline in metres of ``local``.
        native_gsd: ground sampling distance of the imagery itself at its centre, m/px.
        source: the file's name.
        attribution: who is to be named; empty if the map does not say.
    """

    path: Path
    local: LocalFrame
    bounds: tuple[float, float, float, float]
    native_gsd: float
    source: str
    attribution: str

    @staticmethod
    def open(path: str | Path | Sequence[str | Path], local: LocalFrame | None = None) -> MapSource:
        """Open a map of any kind.

        - a file that GDAL reads as a raster: GeoTIFF, COG, VRT, MBTiles, GeoPackage and others;
        - a folder of web map tiles, ``z/x/y.png`` (or jpg, jpeg, webp), rows counted from the north (XYZ) or, where a
          ``tilemapresource.xml`` or a ``tms`` scheme in ``metadata.json`` says so, from the south (TMS);
        - a folder of images with their corners in ``bounds.csv``;
        - several of these: where the first has no data the second is read, and so on.

        Args:
            path: of the map, or of several, the most important first.
            local: the local tangent plane; None for one around the centre of the (first) map.

        Raises:
            MapError: no file, not an image, truncated, without georeference, too small, nothing but nodata.
        """
        from cvgl.imagery.images import Images
        from cvgl.imagery.mosaic import Mosaic
        from cvgl.imagery.raster import Raster
        from cvgl.imagery.webtiles import WebTiles

        if not isinstance(path, (str, Path)):
            return Mosaic.of([Path(one) for one in path], local)
        path = Path(path)
        if not path.exists():
            raise MapError("no such file", file=path)
        if Images.fits(path):
            return Images.open_images(path, local)
        if WebTiles.fits(path):
            return WebTiles(path, local)
        return Raster.open_raster(path, local)

    @abstractmethod
    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """A north-up window of the map; only what it shows is read.

        Args:
            west, north: outer corner of the window's first pixel (not its centre), metres in ``local``.
            width, height: of the window, pixels.
            gsd: of the window, m/px; the map is averaged over each pixel's area where that reduces it.

        Returns:
            rgb (height, width, 3) uint8, black where not valid; valid (height, width) bool.

        Raises:
            MapError: the map is damaged there.
        """

    @abstractmethod
    def identity(self) -> str:
        """Tells this map from any other, and from itself once it was changed: from names, sizes and times of its
        files, not from their content."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the files."""

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


def projection(local: LocalFrame) -> str:
    """The local tangent plane for GDAL. The datum is named, so that maps on another one are shifted: unnamed, it would
    be taken as theirs."""
    return local.crs.replace("+ellps=WGS84", "+datum=WGS84")


def identity_of(files: Iterable[Path]) -> str:
    """SHA-256 over names, sizes and times of files."""
    digest = hashlib.sha256()
    for file in sorted({Path(file).resolve() for file in files}):
        if file.is_file():
            stat = file.stat()
            digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
    return digest.hexdigest()
