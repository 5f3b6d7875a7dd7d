"""A satellite map alone as a dataset: its tiles against simulated drone views of the same spots."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cvgl.calibrate import window
from cvgl.camera import Camera
from cvgl.errors import CameraError, MapError
from cvgl.sim.views import ViewSettings, choose_tile_size, drone_view

from .base import CrossViewSet, DatasetError, ImageSource
from .folders import need_choice
from .windows import Area, as_dataset_error, map_tiles, need_pixels, need_positive, open_map, positioned_set

__all__ = ["SimulatedView", "read_map_set"]

_OFFSET_PER_TILE = 0.125
# Tilted by ten degrees, a view reaches a quarter further than a level one.
_WINDOW_PER_TILE = 1.6
_FIELD_OF_VIEW_DEG = 70.0


@dataclass(frozen=True)
class SimulatedView:
    """What a simulated drone sees of a map, rectified; always the same.

    Args:
        path: of the map.
        easting, northing: where the middle of the image is, metres of the map's local frame.
        settings: the simulated drone.
        seed, number: of its pose, light and clutter.
    """

    path: Path
    easting: float
    northing: float
    settings: ViewSettings
    seed: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.path.name}@{self.easting:.1f},{self.northing:.1f}#{self.number}"

    def read(self) -> NDArray[np.uint8]:
        """(px, px, 3) RGB, black outside the camera's footprint."""
        drone = self.settings
        side = _WINDOW_PER_TILE * drone.tile_px * drone.gsd_m
        try:
            image = window(open_map(self.path), self.easting, self.northing, side, drone.gsd_m / 2)
        except MapError as reason:
            raise as_dataset_error(reason) from reason
        rng = np.random.default_rng([self.seed, 51, self.number])
        return drone_view(image, self.easting, self.northing, drone, rng)[0]


def read_map_set(
    root: Path | str,
    split: str = "test",
    *,
    tile_m: float | None = None,
    stride_m: float | None = None,
    tile_px: int = 128,
    camera: Path | str | None = None,
    height_m: float | None = None,
    views: int = 4,
    test_share: float = 0.3,
    light: float = 1.0,
    seed: int = 0,
) -> CrossViewSet:
    """A map against itself: no drone image is needed.

    References are tiles of the map; each has some simulated views (`cvgl.sim.views.drone_view`: errors of heading,
    height and tilt, another light and season, things that move), rectified as the SDK rectifies frames. A view is a
    function of its number and of the seed, so it is the same whenever it is read. It is centred up to an eighth of a
    tile from its tile's centre, east and north, and matches the tile whose centre is nearest; tiles that overlap that
    one are neither true nor false.

    Train and test share no ground: the map is cut by a line across its longer axis, test being the eastern or the
    southern part, and tiles stay half a tile away from the line, which views do not cross.

    Args:
        root: the path of a GeoTIFF.
        split: "train" or "test".
        tile_m: side of a tile on the ground; None for what suits the camera at `height_m`, and 100 m without either.
        stride_m: from tile to tile; None for a tile, so that tiles do not overlap.
        tile_px: side of tiles and views as images.
        camera: a camera.yaml; None for one of 4 : 3 with 70 degrees.
        height_m: of the flight above ground; None for what suits the tile.
        views: of each tile.
        test_share: of the map's longer axis.
        light: strength of the changes of light, 0 to 1.
        seed: of the views.

    Raises:
        DatasetError: a map or a camera that cannot be read, unusable options, or a part of the map too small for a
            tile.
    """
    path = Path(root)
    need_choice(split, "split", ("train", "test"))
    need_pixels(tile_px, "tile_px")
    need_pixels(views, "views")
    for name, value, low, high in (("test_share", test_share, 0.0, 1.0), ("light", light, 0.0, 1.0)):
        if not low <= value <= high:
            raise DatasetError("not usable", field=name, found=value, expected=f"a number from {low:g} to {high:g}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise DatasetError("not usable", field="seed", found=seed, expected="a whole number, 0 or more")
    try:
        lens = Camera.from_field_of_view(1600, 1200, _FIELD_OF_VIEW_DEG) if camera is None else Camera.from_yaml(camera)
    except CameraError as reason:
        raise as_dataset_error(reason) from reason
    if tile_m is None:
        tile_m = 100.0 if height_m is None else choose_tile_size(lens, need_positive(height_m, "height_m"))
    tile_m = need_positive(tile_m, "tile_m")
    if height_m is None:
        height_m = 100.0 * tile_m / choose_tile_size(lens, 100.0)
    height_m = need_positive(height_m, "height_m")
    stride_m = tile_m if stride_m is None else need_positive(stride_m, "stride_m")
    source = open_map(path)
    bounds = _part(path, source.bounds, split, test_share, tile_m)
    tiles, centres = map_tiles(path, bounds, tile_m, stride_m, tile_px)
    # Where views are centred is drawn here, so that it is known.
    drone = ViewSettings(lens, height_m, tile_m / tile_px, tile_px, offset_m=0.0, light=float(light))
    places = np.repeat(centres, views, axis=0)
    reach = _OFFSET_PER_TILE * tile_m
    places += np.random.default_rng([seed, 52]).uniform(-reach, reach, places.shape)
    queries: list[ImageSource] = [
        SimulatedView(path, easting, northing, drone, seed, number)
        for number, (easting, northing) in enumerate(places.tolist())
    ]
    area = Area(
        source.local,
        tile_m,
        queries,
        places,
        np.full(len(queries), height_m),
        tiles,
        centres,
    )
    return positioned_set("map", split, [area], path)


def _part(
    path: Path, bounds: tuple[float, float, float, float], split: str, test_share: float, tile_m: float
) -> tuple[float, float, float, float]:
    """(west, south, east, north) that the centres of a split's tiles cover."""
    west, south, east, north = bounds
    # Half a tile from the map's edges, to be whole, and a whole one from the line: half for the tile, half for views.
    half = tile_m / 2
    if east - west >= north - south:
        line = east - test_share * (east - west)
        part = (west + half, south + half, line - tile_m, north - half)
        if split == "test":
            part = (line + tile_m, south + half, east - half, north - half)
    else:
        line = south + test_share * (north - south)
        part = (west + half, line + tile_m, east - half, north - half)
        if split == "test":
            part = (west + half, south + half, east - half, line - tile_m)
    if part[2] < part[0] or part[3] < part[1]:
        raise DatasetError(
            f"the {split} part of the map is too small for a tile",
            file=path,
            field="tile_m, test_share",
            found=(tile_m, test_share),
            expected=f"a map larger than {east - west:.0f} x {north - south:.0f} m, or smaller tiles",
        )
    return part
