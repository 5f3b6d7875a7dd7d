"""What a simulated flight flies over: a map, a procedural world, or the basemap of the mission itself."""

from __future__ import annotations

import json
import math
from collections import OrderedDict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
from cv2 import INTER_LINEAR, WARP_INVERSE_MAP, remap, warpPerspective
from numpy.typing import NDArray

from cvgl.basemap import Basemap
from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.geo import LocalFrame
from cvgl.geometry import camera_to_enu
from cvgl.imagery import MapSource
from cvgl.sim.appearance import Appearance
from cvgl.sim.closed.route import Bounds
from cvgl.sim.flight import WORLD_TAG
from cvgl.sim.render import render_frame
from cvgl.sim.scene import World
from cvgl.sim.views import relight

__all__ = ["BasemapSource", "Ground", "MapGround", "Source", "WorldGround", "open_ground"]

_BLOCK_PX = 512
_BLOCKS = 256
# A map is read about as fine as the camera sees, and no finer than it is.
_FINER = 0.9
# Rays closer to the horizon look up the ground at this slope: far away, but somewhere.
_FLATTEST = 0.15


class Source(Protocol):
    """A map to read windows from: :class:`cvgl.imagery.MapSource`, or what reads like it."""

    local: LocalFrame
    bounds: Bounds
    native_gsd: float

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """RGB (height, width, 3) and where there is data, see :meth:`cvgl.imagery.MapSource.read`."""


class Ground(Protocol):
    """What is flown over.

    Attributes:
        local: the tangent plane of all positions.
        bounds: of what is known of it, metres.
    """

    local: LocalFrame
    bounds: Bounds

    def view(
        self,
        camera: Camera,
        position: NDArray[np.float64],
        attitude: tuple[float, float, float],
        day: int,
        frame: int,
        light: float,
    ) -> NDArray[np.uint8]:
        """What a camera sees, BGR (H, W, 3).

        Args:
            camera: its size is the picture's.
            position: (3,) easting, northing and height above ground, metres.
            attitude: heading, pitch and roll of the camera's carrier, degrees.
            day: seed of light, season and sensor, the same all through a flight.
            frame: number of the frame in its flight, for what is new in every frame.
            light: how much the day differs from the map's.
        """


class MapGround:
    """Flat ground that looks like a map; beyond the map's edges lies its mirror image, which is another place.

    Args:
        source: the map.
        camera: that will look at it, at its size.
        height_m: about which it will be, above ground: with the camera it says in what detail to read.
    """

    def __init__(self, source: Source, camera: Camera, height_m: float) -> None:
        self.local, self.bounds = source.local, source.bounds
        self._source = source
        self._gsd = max(source.native_gsd, _FINER * height_m / camera.fx)
        west, south, east, north = source.bounds
        self._size = np.array([math.floor((east - west) / self._gsd), math.floor((north - south) / self._gsd)])
        if self._size.min() < 2:
            raise MapError("too small to fly over", field="bounds", found=source.bounds)
        self._blocks: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()

    def view(
        self,
        camera: Camera,
        position: NDArray[np.float64],
        attitude: tuple[float, float, float],
        day: int,
        frame: int,
        light: float,
    ) -> NDArray[np.uint8]:
        """See :class:`Ground`. Things that stand up look flat, as they lie in the map."""
        rotation = camera_to_enu(camera.mount, *attitude)
        picture = self._plainly(camera, rotation, position)
        if picture is None:
            picture = self._anyhow(camera, rotation, position)
        if light > 0:
            picture = relight(picture, np.random.default_rng(day), light, np.random.default_rng([day, frame]))
        if camera.model == "fisheye" or any(camera.distortion):
            # Where the lens draws nothing.
            picture[np.isnan(_rays(camera)[:, 0]).reshape(camera.height, camera.width)] = 0
        return np.ascontiguousarray(picture[..., ::-1])

    def _plainly(
        self, camera: Camera, rotation: NDArray[np.float64], position: NDArray[np.float64]
    ) -> NDArray[np.uint8] | None:
        """What an ideal lens sees of the map, RGB, by one homography; None where the lens bends, or the map ends."""
        if camera.model != "pinhole" or any(camera.distortion):
            return None
        scale = position[2] / self._gsd
        at = (position[0] - self.bounds[0]) / self._gsd - 0.5, (self.bounds[3] - position[1]) / self._gsd - 0.5
        to_map = np.array([[scale, 0.0, -at[0]], [0.0, -scale, -at[1]], [0.0, 0.0, -1.0]])
        chain = to_map @ rotation @ np.linalg.inv(camera.matrix)
        corners = np.array([[x, y, 1.0] for x in (0, camera.width - 1) for y in (0, camera.height - 1)]) @ chain.T
        if corners[:, 2].min() < _FLATTEST:
            return None
        ends = corners[:, :2] / corners[:, 2:]
        if ends.min() < 0.0 or (ends > self._size - 1).any():
            return None
        left, top = map(int, ends.min(axis=0))
        part = self._part(left, top, *(math.ceil(end) + 1 for end in ends.max(axis=0).tolist()))
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        flags = INTER_LINEAR | WARP_INVERSE_MAP
        return np.asarray(warpPerspective(part, shift @ chain, (camera.width, camera.height), flags=flags), np.uint8)

    def _anyhow(
        self, camera: Camera, rotation: NDArray[np.float64], position: NDArray[np.float64]
    ) -> NDArray[np.uint8]:
        """What any lens sees of the map and its mirror images, RGB."""
        rays = _rays(camera) @ rotation.T
        rays[np.isnan(rays[:, 2])] = 0.0
        ground = rays[:, :2] * (position[2] / np.maximum(-rays[:, 2:], _FLATTEST)) + position[:2]
        x = (ground[:, 0] - self.bounds[0]) / self._gsd - 0.5
        y = (self.bounds[3] - ground[:, 1]) / self._gsd - 0.5
        shape = (camera.height, camera.width)
        columns, rows = (
            _mirrored(at, int(count)).reshape(shape).astype(np.float32)
            for at, count in zip((x, y), self._size, strict=True)
        )
        left, top = int(columns.min()), int(rows.min())
        part = self._part(left, top, math.ceil(float(columns.max())) + 1, math.ceil(float(rows.max())) + 1)
        return np.asarray(remap(part, columns - left, rows - top, INTER_LINEAR), np.uint8)

    def _part(self, left: int, top: int, right: int, bottom: int) -> NDArray[np.uint8]:
        out = np.empty((bottom - top, right - left, 3), np.uint8)
        for row in range(top // _BLOCK_PX, (bottom - 1) // _BLOCK_PX + 1):
            for column in range(left // _BLOCK_PX, (right - 1) // _BLOCK_PX + 1):
                block = self._block(row, column)
                x, y = column * _BLOCK_PX, row * _BLOCK_PX
                x0, x1, y0, y1 = max(x, left), min(x + _BLOCK_PX, right), max(y, top), min(y + _BLOCK_PX, bottom)
                out[y0 - top : y1 - top, x0 - left : x1 - left] = block[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def _block(self, row: int, column: int) -> NDArray[np.uint8]:
        """A square of the map; kept, since the next frame looks at about the same."""
        key = (row, column)
        if key not in self._blocks:
            west = self.bounds[0] + column * _BLOCK_PX * self._gsd
            north = self.bounds[3] - row * _BLOCK_PX * self._gsd
            rgb, valid = self._source.read(west, north, _BLOCK_PX, _BLOCK_PX, self._gsd)
            if not valid.all():
                # An edge against black would be seen by every frame there and by no real one.
                rgb[~valid] = rgb[valid].mean(axis=0) if valid.any() else 128
            self._blocks[key] = rgb
            if len(self._blocks) > _BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(key)
        return self._blocks[key]


class WorldGround:
    """A procedural world, rendered for every frame on the flight's day: what stands up leans and casts shadows.

    Args:
        world: the place.
        latitude, longitude: of its origin, WGS84 degrees.
    """

    def __init__(self, world: World, latitude: float, longitude: float) -> None:
        half = world.size_m / 2
        self.local = LocalFrame(latitude, longitude)
        self.bounds: Bounds = (-half, -half, half, half)
        self._world = world

    def view(
        self,
        camera: Camera,
        position: NDArray[np.float64],
        attitude: tuple[float, float, float],
        day: int,
        frame: int,
        light: float,
    ) -> NDArray[np.uint8]:
        """See :class:`Ground`; light 0 is the day that :class:`cvgl.sim.Appearance` has by default."""
        look = Appearance.random(np.random.default_rng(day), "drone") if light > 0 else Appearance()
        look = replace(look, effect_seed=(look.effect_seed + frame) % 2**31)
        return np.asarray(render_frame(self._world, camera, position, attitude, look), np.uint8)


class BasemapSource:
    """The grey basemap of a mission as a map to fly over.

    Args:
        basemap: of the mission's gallery.
        local: its tangent plane.
    """

    def __init__(self, basemap: Basemap, local: LocalFrame) -> None:
        self.local, self.bounds, self.native_gsd = local, basemap.bounds, basemap.gsd
        self._basemap = basemap

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As :meth:`cvgl.imagery.MapSource.read`, with bilinear samples."""
        columns, _ = self._basemap.to_pixel(west + (np.arange(width) + 0.5) * gsd, north)
        _, rows = self._basemap.to_pixel(west, north - (np.arange(height) + 0.5) * gsd)
        left, top = math.floor(columns[0]), math.floor(rows[0])
        part = self._basemap.read(left, top, math.ceil(columns[-1]) - left + 2, math.ceil(rows[-1]) - top + 2)
        x, y = np.meshgrid((columns - left).astype(np.float32), (rows - top).astype(np.float32))
        grey = np.asarray(remap(part, x, y, INTER_LINEAR), np.uint8)
        known = remap(np.where(part > 0, 255, 0).astype(np.uint8), x, y, INTER_LINEAR) == 255
        return np.repeat(np.where(known, grey, 0)[..., None], 3, axis=2).astype(np.uint8), np.asarray(known)


def open_ground(
    path: str | Path | None, basemap: Basemap, local: LocalFrame, camera: Camera, height_m: float
) -> Ground:
    """The ground for a mission.

    Args:
        path: of a map; one that :func:`cvgl.sim.write_map` wrote is rendered as the world that it shows. None for the
            mission's own basemap, which is grey and already as coarse as registration wants it: an easy ground.
        basemap, local: of the mission's gallery.
        camera: of the mission, at the size of the frames.
        height_m: that is planned.

    Raises:
        MapError: the map cannot be used.
    """
    if path is None:
        return MapGround(BasemapSource(basemap, local), camera, height_m)
    world = _world_of(Path(path))
    return MapGround(MapSource.open(path), camera, height_m) if world is None else world


def _world_of(path: Path) -> WorldGround | None:
    """The world that a map shows, if its file tells one."""
    import rasterio
    from rasterio.errors import RasterioError

    try:
        with rasterio.open(path) as file:
            told = file.tags().get(WORLD_TAG)
    except (RasterioError, OSError):
        # Opening it as a map says what is wrong.
        return None
    if told is None:
        return None
    try:
        place = json.loads(told)
        world = World.generate(int(place["seed"]), float(place["size_m"]), str(place["style"]))
        return WorldGround(world, float(place["latitude"]), float(place["longitude"]))
    except (ValueError, KeyError, TypeError) as reason:
        raise MapError(f"tells no world that can be made: {reason}", file=path, field=WORLD_TAG) from reason


@lru_cache(maxsize=4)
def _rays(camera: Camera) -> NDArray[np.float64]:
    """(H W, 3) rays of all pixels in camera coordinates."""
    columns, rows = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    return camera.rays(np.column_stack([columns.ravel(), rows.ravel()]))


def _mirrored(at: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Pixels along one axis, those outside 0..count-1 mirrored at its ends as often as it takes."""
    end = count - 1
    return np.asarray(end - np.abs(end - np.mod(at, 2 * end)))
