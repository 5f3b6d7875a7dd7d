"""A folder of images whose corners stand in a table."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import rasterio
from rasterio.errors import RasterioError, RasterioIOError

from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.imagery.raster import Raster
from cvgl.imagery.source import identity_of

__all__ = ["Images"]

_TABLE = "bounds.csv"
_ATTRIBUTION = "attribution.txt"
# Column by the words that its name is made of; tables name the corners differently.
_SIDES = {
    "north": (("top", "lat"), ("north",), ("max", "lat")),
    "west": (("left", "lon"), ("west",), ("min", "lon")),
    "south": (("bottom", "lat"), ("south",), ("min", "lat")),
    "east": (("right", "lon"), ("east",), ("max", "lon")),
}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class _Placed:
    """An image and where its outer corners lie, degrees."""

    path: Path
    north: float
    west: float
    south: float
    east: float
    width: int
    height: int
    bands: int


class Images(Raster):
    """A folder of images and ``bounds.csv``: file name, and latitude and longitude of two opposite corners.

    Rows whose file is absent are passed over; one that is there with another suffix (the table says png, the folder has
    jpg) is taken. Where images overlap, the later row is seen. ``attribution.txt``, if there, is who is to be named.
    """

    _images: list[_Placed]

    @staticmethod
    def fits(path: Path) -> bool:
        """Whether a folder is of this kind."""
        return (path / _TABLE).is_file()

    @classmethod
    def open_images(cls, path: Path, local: LocalFrame | None = None) -> Images:
        """Open a folder.

        Raises:
            MapError: a table that cannot be read, with its line; no image of it is there; one is damaged.
        """
        images = _read_table(path / _TABLE)
        source = cls.open_raster(path, local, _vrt(images))
        source._images = images
        credit = path / _ATTRIBUTION
        source.attribution = credit.read_text(encoding="utf-8").strip() if credit.is_file() else ""
        return source

    def identity(self) -> str:
        """As :meth:`MapSource.identity`."""
        return identity_of([self.path / _TABLE, *(image.path for image in self._images)])


def _read_table(file: Path) -> list[_Placed]:
    try:
        with open(file, newline="", encoding="utf-8-sig") as lines:
            rows = [
                [cell.strip().strip('"').strip() for cell in row] for row in csv.reader(lines, skipinitialspace=True)
            ]
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise MapError(f"not readable as a table: {reason}", file=file) from reason
    if not rows:
        raise MapError("an empty table", file=file)
    names = [name.lower() for name in rows[0]]
    columns = {side: _column(names, side, file) for side in _SIDES}
    images = []
    for line, row in enumerate(rows[1:], start=2):
        if not any(row):
            continue
        if len(row) < len(names):
            raise MapError("too few columns", file=file, field=f"line {line}", found=len(row), expected=str(len(names)))
        try:
            corners = {side: float(row[column]) for side, column in columns.items()}
        except ValueError:
            raise MapError("not a number", file=file, field=f"line {line}", found=row) from None
        sound = (
            all(math.isfinite(value) for value in corners.values())
            and -90 <= corners["south"] < corners["north"] <= 90
            and -180 <= corners["west"] < corners["east"] <= 180
        )
        if not sound:
            raise MapError("not the corners of an image", file=file, field=f"line {line}", found=corners)
        image = _find(file.parent, row[0])
        if image is not None:
            width, height, bands = _size(image)
            images.append(_Placed(image, width=width, height=height, bands=bands, **corners))
    if not images:
        raise MapError("none of its images is there", file=file)
    return images


def _column(names: list[str], side: str, file: Path) -> int:
    for words in _SIDES[side]:
        for column, name in enumerate(names):
            if all(word in name for word in words):
                return column
    raise MapError("no column for a corner", file=file, field=side, found=names)


def _find(folder: Path, name: str) -> Path | None:
    if Path(name).name != name or not name:
        return None
    for candidate in (folder / name, *((folder / name).with_suffix(suffix) for suffix in _SUFFIXES)):
        if candidate.is_file():
            return candidate
    return None


def _size(path: Path) -> tuple[int, int, int]:
    import warnings

    from rasterio.errors import NotGeoreferencedWarning

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path) as image:
                return image.width, image.height, image.count
    except (RasterioError, RasterioIOError) as reason:
        raise MapError(f"not readable as an image: {reason}", file=path) from reason


def _vrt(images: list[_Placed]) -> str:
    """All images as one raster of degrees, as fine as the finest of them; GDAL reads what a window needs."""
    west, east = min(i.west for i in images), max(i.east for i in images)
    south, north = min(i.south for i in images), max(i.north for i in images)
    across = min((i.east - i.west) / i.width for i in images)
    down = min((i.north - i.south) / i.height for i in images)
    width, height = round((east - west) / across), round((north - south) / down)
    bands = []
    for number, colour in enumerate(("Red", "Green", "Blue", "Alpha"), start=1):
        sources = []
        for i in images:
            source_band = min(number, i.bands) if i.bands >= 3 or number == 4 else 1
            rectangle = (
                f'<SrcRect xOff="0" yOff="0" xSize="{i.width}" ySize="{i.height}"/>'
                f'<DstRect xOff="{(i.west - west) / across!r}" yOff="{(north - i.north) / down!r}"'
                f' xSize="{(i.east - i.west) / across!r}" ySize="{(i.north - i.south) / down!r}"/>'
            )
            name = f'<SourceFilename relativeToVRT="0">{escape(str(i.path.resolve()))}</SourceFilename>'
            if number < 4:
                sources.append(
                    f'<ComplexSource resampling="cubic">{name}<SourceBand>{source_band}</SourceBand>{rectangle}'
                    "</ComplexSource>"
                )
            else:
                # Opaque wherever there is an image: its first band times nothing, plus 255.
                sources.append(
                    f"<ComplexSource>{name}<SourceBand>1</SourceBand>{rectangle}"
                    "<ScaleOffset>255</ScaleOffset><ScaleRatio>0</ScaleRatio></ComplexSource>"
                )
        bands.append(
            f'<VRTRasterBand dataType="Byte" band="{number}"><ColorInterp>{colour}</ColorInterp>'
            + "".join(sources)
            + "</VRTRasterBand>"
        )
    return (
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS dataAxisToSRSAxisMapping="2,1">EPSG:4326</SRS>'
        f"<GeoTransform>{west!r}, {across!r}, 0, {north!r}, 0, {-down!r}</GeoTransform>"
        + "".join(bands)
        + "</VRTDataset>"
    )
