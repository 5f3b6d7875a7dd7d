"""UAV-VisLoc: eleven flights over China and the satellite maps below them."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.geo import LocalFrame

from .base import CrossViewSet, DatasetError
from .folders import image, need_choice, need_file, need_folder, need_images, need_number
from .windows import Area, Mosaic, MosaicWindow, need_pixels, need_positive, positioned_set

__all__ = ["RANGES", "SPLITS", "read_uav_visloc"]

TREE = (
    "UAV-VisLoc has NN/drone/NN_0001.JPG, NN/NN.csv and NN/satelliteNN.tif for NN from 01 to 11 and "
    "'satellite_ coordinates_range.csv'"
)

RANGES = ("satellite_ coordinates_range.csv", "satellite_coordinates_range.csv")
"""The file of the maps' corners: as the archive has it, with a blank, and as its description writes it."""

SPLITS = {"train": ("01", "03", "05", "08"), "test": ("02", "04", "11")}
"""Flights of each split, as the GTA-UAV authors' preparation script has them: the dataset itself publishes no split."""

_RANGE_COLUMNS = ("mapname", "LT_lat_map", "LT_lon_map", "RB_lat_map", "RB_lon_map")
_FLIGHT_COLUMNS = ("filename", "lat", "lon", "height")


def read_uav_visloc(
    root: Path | str,
    split: str = "test",
    *,
    flights: Sequence[str | int] | None = None,
    tile_m: float = 300.0,
    stride_m: float | None = None,
    tile_px: int = 256,
) -> CrossViewSet:
    """A split of UAV-VisLoc (Xu et al. 2024, arXiv:2405.11936; github.com/IntelliSensing/UAV-VisLoc).

    The official tree, ``NN`` being the flight, 01 to 11::

        NN/drone/NN_0001.JPG ...            the photos
        NN/NN.csv                           num, filename, date, lat, lon, height, Omega, Kappa, Phi1, Phi2
        NN/satelliteNN.tif                  the map; of flight 09 satellite09_01-01.tif to _02-02.tif (row-column)
        satellite_ coordinates_range.csv    mapname, LT_lat_map, LT_lon_map, RB_lat_map, RB_lon_map, region

    (07.csv ends with height.) A map's pixels have equal steps in latitude and in longitude between its corners in the
    last file, so they are not square on the ground; a georeference in the map itself is not read. The dataset has no
    tiles: here they are squares of the ground, on a grid inside the map. A photo matches the tile whose centre is
    nearest to its position, and tiles that overlap that one are neither true nor false. Photos that lie in no tile are
    left out.

    The positions are those where photos were planned, and off by 24 to 48 m on average against the dataset's own maps
    (measured by a user on maps 02, 04, 10 and 11: issue 5 of the repository): errors below 20 m measure the labels.
    Heights are as published, which does not say above what (issue 6).

    Args:
        root: the folder of the flights.
        split: "train" or "test", see `SPLITS`.
        flights: numbers of flights to read in place of the split's.
        tile_m: side of a tile on the ground.
        stride_m: from tile to tile; None for half a tile.
        tile_px: side of a tile as an image.

    Raises:
        DatasetError: a tree or a table that is not the official one, or a map too small for a tile, as flight 07's
            strip of 50 m is.
    """
    root = need_folder(Path(root), TREE)
    need_choice(split, "split", tuple(SPLITS))
    tile_m = need_positive(tile_m, "tile_m")
    stride_m = tile_m / 2 if stride_m is None else need_positive(stride_m, "stride_m")
    need_pixels(tile_px, "tile_px")
    wanted = [_flight_name(number) for number in (SPLITS[split] if flights is None else flights)]
    if not wanted:
        raise DatasetError("no flights", field="flights", found=flights, expected="numbers from 1 to 11")
    ranges = next((root / name for name in RANGES if (root / name).is_file()), root / RANGES[0])
    corners = _read_corners(ranges)
    areas = []
    for flight in wanted:
        name = f"satellite{flight}.tif"
        if name not in corners:
            raise DatasetError("a map without its corners", file=ranges, field="mapname", expected=f"a row of {name}")
        areas.append(_area(root, flight, corners[name], tile_m, stride_m, tile_px))
    return positioned_set("uav-visloc", split, areas, root)


def _flight_name(number: str | int) -> str:
    text = f"{int(number):02d}" if str(number).isdecimal() else ""
    if not text or not 1 <= int(text) <= 11:
        raise DatasetError("no such flight", field="flights", found=number, expected="numbers from 1 to 11")
    return text


Corners = tuple[float, float, float, float]
"""Latitude and longitude of the upper left corner, then of the lower right one."""


def _read_corners(path: Path) -> dict[str, Corners]:
    corners = {}
    for line, cells in _read_table(path, _RANGE_COLUMNS):
        top, left, bottom, right = (need_number(cells[name], path, f"{line}, {name}") for name in _RANGE_COLUMNS[1:])
        if not (90 >= top > bottom >= -90 and -180 <= left < right <= 180):
            raise DatasetError(
                "not the corners of a map",
                file=path,
                field=line,
                found=(top, left, bottom, right),
                expected="the north-western and the south-eastern, degrees",
            )
        corners[cells["mapname"]] = (top, left, bottom, right)
    return corners


def _area(root: Path, flight: str, corners: Corners, tile_m: float, stride_m: float, tile_px: int) -> Area:
    folder = need_folder(root / flight, TREE)
    mosaic = _mosaic(folder, flight)
    top, left, bottom, right = corners
    local = LocalFrame((top + bottom) / 2, (left + right) / 2)
    windows, centres = _tiles(mosaic, local, corners, tile_m, stride_m, tile_px, f"{flight}/satellite{flight}.tif")
    table = folder / f"{flight}.csv"
    names, places, heights = [], [], []
    for line, cells in _read_table(table, _FLIGHT_COLUMNS):
        latitude, longitude, height = (
            need_number(cells[name], table, f"{line}, {name}") for name in _FLIGHT_COLUMNS[1:]
        )
        if not (abs(latitude) <= 90 and abs(longitude) <= 180):
            raise DatasetError("no place on Earth", file=table, field=line, found=(latitude, longitude))
        names.append(f"{flight}/drone/{cells['filename']}")
        places.append(np.hstack(local.to_local(latitude, longitude)))
        heights.append(height)
    need_images(root, names, table, TREE)
    return Area(
        local, tile_m, [image(root, name) for name in names], np.array(places), np.array(heights), windows, centres
    )


def _mosaic(folder: Path, flight: str) -> Mosaic:
    """The map, which the archive has in one file or, where that would be too large, in a grid of files."""
    whole = folder / f"satellite{flight}.tif"
    if whole.is_file():
        return Mosaic.of([[whole]])
    rows: dict[int, dict[int, Path]] = {}
    for path in folder.iterdir():
        part = re.fullmatch(rf"satellite{flight}_(\d+)-(\d+)\.tif", path.name)
        if part:
            rows.setdefault(int(part[1]), {})[int(part[2])] = path
    if not rows:
        need_file(whole, TREE)
    columns = range(1, 1 + max(max(row) for row in rows.values()))
    for row in range(1, 1 + max(rows)):
        for column in columns:
            need_file(rows.get(row, {}).get(column, folder / f"satellite{flight}_{row:02d}-{column:02d}.tif"), TREE)
    return Mosaic.of([[rows[row][column] for column in columns] for row in sorted(rows)])


def _tiles(
    mosaic: Mosaic, local: LocalFrame, corners: Corners, tile_m: float, stride_m: float, tile_px: int, name: str
) -> tuple[list[MosaicWindow], NDArray[np.float64]]:
    """Windows on a grid that begins at the map's north-western corner and ends at its edges, and their centres."""
    top, left, bottom, right = corners
    # A degree is long in the north: the map's extent is taken through its middle, where it is true on average.
    wide = np.ptp(local.to_local([local.latitude] * 2, [left, right])[0])
    high = np.ptp(local.to_local([bottom, top], [local.longitude] * 2)[1])
    east, north = mosaic.width / wide, mosaic.height / high
    width, height = round(tile_m * east), round(tile_m * north)
    if not (0 < width <= mosaic.width and 0 < height <= mosaic.height):
        raise DatasetError(
            "no tile fits the map",
            file=mosaic.pieces[0].path,
            field="tile_m",
            found=tile_m,
            expected=f"at most {min(wide, high):.0f} m",
        )
    windows, centres = [], []
    for row in _starts(mosaic.height, height, stride_m * north):
        for column in _starts(mosaic.width, width, stride_m * east):
            latitude = top + (row + height / 2) / mosaic.height * (bottom - top)
            longitude = left + (column + width / 2) / mosaic.width * (right - left)
            windows.append(MosaicWindow(mosaic, column, row, width, height, tile_px, f"{name}@{column},{row}"))
            centres.append(np.hstack(local.to_local(latitude, longitude)))
    return windows, np.array(centres)


def _starts(whole: int, part: int, step: float) -> list[int]:
    """Where parts begin so that they cover the whole; the last one ends with it, however close to its neighbour."""
    starts = [round(number * step) for number in range(int((whole - part) / step) + 1)]
    starts = [start for start in starts if start <= whole - part]
    if starts[-1] + part < whole:
        starts.append(whole - part)
    return starts


def _read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file, each with "line N" for errors and the cells of those columns."""
    try:
        with open(need_file(path, TREE), encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as reason:
        raise DatasetError(f"not readable as CSV: {reason}", file=path) from reason
    header = [name.strip() for name in rows[0]] if rows else []
    for name in columns:
        if name not in header:
            raise DatasetError("missing column", file=path, field=name, found=header, expected=", ".join(columns))
    where = {name: header.index(name) for name in columns}
    found = []
    for number, row in enumerate(rows[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        if len(row) <= max(where.values()):
            raise DatasetError(
                "cells missing", file=path, field=f"line {number}", found=row, expected=f"{len(header)} cells"
            )
        found.append((f"line {number}", {name: row[index].strip() for name, index in where.items()}))
    if not found:
        raise DatasetError("no rows", file=path, expected=", ".join(columns))
    return found
