"""What the base model learns from: many small places, each seen on several days.

Procedural worlds (`cvgl.sim`), rendered once as satellite maps, as maps with a drone's light, and through a
drone's camera; and real imagery of several dates, taken as texture at a pseudo scale. Rendered places are
kept in a cache folder, since rendering costs more than training on them.
"""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import MapError
from cvgl.files import atomic_path
from cvgl.geometry import camera_to_enu
from cvgl.sim import STYLES, Appearance, World, render_frame, render_map
from cvgl.sim.views import MapImage, ViewSettings, choose_tile_size, drone_view, reference_tile, relight

from .pairs import Pair, PairBatch, clustered_places, collate, covered_cells

__all__ = ["Place", "PlacePairs", "dated_place", "load_place", "render_place", "render_places"]

TILE_PX = 128
_OFFSET_PER_TILE = 0.13


@dataclass(frozen=True)
class Place:
    """One map area on several days.

    Args:
        images: maps of the area, all of one grid.
        references: how many of them, from the first, may serve as the satellite map.
        settings: the simulated drone over it.
        frames, masks: (N, px, px, 3) uint8 RGB and (N, px, px) rectified views rendered in perspective; N
            may be 0.
        centers: (N, 2) easting and northing of their image centres.
    """

    images: tuple[MapImage, ...]
    references: int
    settings: ViewSettings
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_]
    centers: NDArray[np.float64]

    @property
    def tile_m(self) -> float:
        """Side of a tile, metres."""
        return self.settings.gsd_m * self.settings.tile_px


def random_settings(rng: np.random.Generator, gsd_m: float) -> ViewSettings:
    """A drone whose footprint suits tiles of that ground sampling distance: its camera at random, its height
    from it."""
    aspect = float(rng.choice([9 / 16, 3 / 4]))
    field_of_view = float(rng.uniform(50, 80))
    tile_m = gsd_m * TILE_PX
    shape = Camera.from_field_of_view(1600, round(1600 * aspect), field_of_view)
    height = 100 * tile_m / choose_tile_size(shape, 100.0)
    # Rendered at somewhat more than the tile's resolution: enough for a clean reduction, and cheap.
    width = round(1.6 * 2 * height * math.tan(math.radians(field_of_view / 2)) / gsd_m / 16) * 16
    camera = Camera.from_field_of_view(width, round(width * aspect), field_of_view)
    return ViewSettings(camera, height, gsd_m, TILE_PX, offset_m=_OFFSET_PER_TILE * tile_m)


def render_place(seed: int, path: Path, days: int = 2, frames: int = 24) -> Path:
    """Render a procedural place to an ``.npz``; a finished one is kept.

    Args:
        seed: of everything: the world, its style, its scale, the days, the flights.
        path: of the file.
        days: maps besides the satellite's.
        frames: views in true perspective.
    """
    if path.exists():
        return path
    rng = np.random.default_rng([seed, 5])
    gsd_m = float(np.exp(rng.uniform(math.log(0.5), math.log(1.15))))
    settings = random_settings(rng, gsd_m)
    size = 5.5 * gsd_m * TILE_PX
    world = World.generate(int(rng.integers(2**31)), size, str(rng.choice(STYLES)))
    maps = [render_map(world, gsd_m / 2, Appearance.random(rng, "satellite"))]
    for _ in range(days):
        look = Appearance.random(rng, "drone")
        look = replace(look, view_tilt_deg=float(rng.uniform(0, 12)), view_azimuth_deg=float(rng.uniform(0, 360)))
        maps.append(render_map(world, gsd_m / 2, look))
    views = []
    limit = size / 2 - 0.6 * gsd_m * TILE_PX
    for number in range(frames):
        if number % 8 == 0:
            look = Appearance.random(rng, "drone")
        views.append(_frame(world, settings, look, rng.uniform(-limit, limit, 2), rng))
    camera = settings.camera
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            maps=np.stack(maps),
            gsd=gsd_m,
            height=settings.height_m,
            camera=np.array([camera.width, camera.height, camera.fx]),
            frames=np.stack([v[0] for v in views]),
            masks=np.stack([v[1] for v in views]),
            centers=np.stack([v[2] for v in views]),
        )
    return path


def _frame(
    world: World,
    settings: ViewSettings,
    look: Appearance,
    center: NDArray[np.float64],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.bool_], NDArray[np.float64]]:
    """A frame in true perspective, rectified with an assumed pose that is a little wrong."""
    camera, px = settings.camera, settings.tile_px
    heading = float(rng.uniform(0, 360))
    height = settings.height_m * float(1 + np.clip(rng.normal(0, settings.height_sigma), -0.08, 0.08))
    tilt = min(abs(float(rng.normal(0, settings.tilt_sigma_deg))), settings.tilt_max_deg)
    direction = float(rng.uniform(0, 2 * math.pi))
    true = (
        heading + float(np.clip(rng.normal(0, settings.heading_sigma_deg), -10, 10)),
        tilt * math.cos(direction),
        tilt * math.sin(direction),
    )
    axis = camera_to_enu(camera.mount, *true)[:, 2]
    ahead = axis[:2] * (height / -axis[2])
    image = render_frame(world, camera, (*(center - ahead), height), true, look, rng)
    assumed = camera_to_enu(camera.mount, heading)
    half = (px - 1) / 2
    gsd = settings.gsd_m
    ray = np.array([[gsd, 0, -gsd * half], [0, -gsd, gsd * half], [0, 0, -settings.height_m]])
    homography = camera.matrix @ assumed.T @ ray
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpPerspective(cv2.GaussianBlur(image, (0, 0), 0.6), homography, (px, px), flags=flags)
    seen = cv2.warpPerspective(np.full(image.shape[:2], 255, np.uint8), homography, (px, px), flags=flags) > 254
    patch[~seen] = 0
    return np.ascontiguousarray(patch[..., ::-1]), seen, center


def render_places(seeds: range, folder: Path, workers: int) -> list[Path]:
    """Render places into a cache folder, several at a time; finished ones are kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"place-{seed}.npz" for seed in seeds]
    # spawn: a fork would copy torch's thread pools in an undefined state.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_one_thread) as pool:
        for job in as_completed([pool.submit(render_place, s, p) for s, p in zip(seeds, paths, strict=True)]):
            job.result()
    return paths


def _one_thread() -> None:
    cv2.setNumThreads(1)


def load_place(path: Path) -> Place:
    """Read a place that `render_place` wrote."""
    with np.load(path, allow_pickle=False) as data:
        gsd, size = float(data["gsd"]), data["camera"]
        maps = data["maps"]
        width, height, focal = int(size[0]), int(size[1]), float(size[2])
        camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
        settings = ViewSettings(camera, float(data["height"]), gsd, TILE_PX, offset_m=_OFFSET_PER_TILE * gsd * TILE_PX)
        west, north = -maps.shape[2] * gsd / 4, maps.shape[1] * gsd / 4
        valid = np.ones(maps.shape[1:3], bool)
        images = tuple(MapImage.of(rgb, valid, gsd / 2, west, north) for rgb in maps)
        return Place(images, 1, settings, data["frames"], data["masks"], data["centers"])


def dated_place(paths: list[Path], enlarge: float, seed: int) -> Place:
    """Real imagery of one area on several dates, its pixels taken as texture at a pseudo scale.

    Args:
        paths: GeoTIFFs of one area; all are brought to the first one's grid.
        enlarge: each pixel becomes this many of the place's fine pixels.
        seed: of the simulated drone.

    Raises:
        MapError: a file is not readable as a raster.
    """
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.errors import RasterioError
    from rasterio.vrt import WarpedVRT

    settings = random_settings(np.random.default_rng([seed, 6]), 0.8)
    images = []
    grid: dict[str, object] = {}
    for path in paths:
        try:
            with rasterio.open(path) as dataset:
                grid = grid or {
                    "crs": dataset.crs,
                    "transform": dataset.transform,
                    "width": dataset.width,
                    "height": dataset.height,
                }
                with WarpedVRT(dataset, resampling=Resampling.cubic, add_alpha=True, **grid) as warped:
                    data = warped.read([1, 2, 3, warped.count]).transpose(1, 2, 0)
        except RasterioError as reason:
            raise MapError(f"not readable: {reason}", file=path) from reason
        big = cv2.resize(np.ascontiguousarray(data), None, fx=enlarge, fy=enlarge, interpolation=cv2.INTER_CUBIC)
        images.append(MapImage.of(np.ascontiguousarray(big[..., :3]), big[..., 3] > 127, 0.4))
    px = TILE_PX
    nothing = np.zeros((0, px, px, 3), np.uint8), np.zeros((0, px, px), bool), np.zeros((0, 2))
    return Place(tuple(images), len(images), settings, *nothing)


class PlacePairs:
    """Pairs from many places; the pairs of a place are each other's hard negatives.

    Args:
        places: to draw from.
        weights: how often each is drawn, relative; None for equally often.
        per_batch: places in a batch.
        rendered: share of views taken from the frames rendered in perspective.
    """

    def __init__(
        self,
        places: list[Place],
        weights: list[float] | None = None,
        per_batch: int = 4,
        rendered: float = 0.35,
    ) -> None:
        self.places, self.per_batch, self.rendered = places, per_batch, rendered
        share = np.array(weights or [1.0] * len(places))
        self._share = share / share.sum()
        self._covered = [covered_cells(place.images[0], place.tile_m, 0.8) for place in places]

    def draw(self, rng: np.random.Generator, count: int) -> PairBatch:
        """`count` pairs, ready for a network."""
        chosen = rng.choice(len(self.places), min(self.per_batch, len(self.places)), replace=False, p=self._share)
        pairs: list[Pair] = []
        groups: list[int] = []
        for order, index in enumerate(chosen):
            number = (count - len(pairs)) // (len(chosen) - order)
            pairs += self._pairs(int(index), rng, number)
            groups += [int(index)] * number
        return collate(pairs, [self.places[g].tile_m for g in groups], groups)

    def _pairs(self, index: int, rng: np.random.Generator, count: int) -> list[Pair]:
        place = self.places[index]
        covered, cell = self._covered[index]
        settings = place.settings
        rendered = int(rng.binomial(count, self.rendered)) if len(place.frames) else 0
        rendered = min(rendered, len(place.frames))
        chart = place.images[int(rng.integers(place.references))]
        other = place.images[int(rng.integers(len(place.images)))]
        reference_light = float(rng.uniform(0.0, 0.5))
        pairs: list[Pair] = []
        for number in rng.choice(len(place.frames), rendered, replace=False) if rendered else ():
            center = (float(place.centers[number, 0]), float(place.centers[number, 1]))
            dx, dy = rng.uniform(-settings.offset_m, settings.offset_m, 2)
            spot = (center[0] + float(dx), center[1] + float(dy))
            view = relight(place.frames[number], rng, 0.5)
            view[~place.masks[number]] = 0
            tile, mask = reference_tile(chart, *spot, settings)
            pairs.append((tile, mask, view, place.masks[number], spot, center))
        for x, y in clustered_places(rng, count - rendered, covered, cell, place.tile_m, 0.4):
            spot = (chart.west + float(x), chart.north - float(y))
            view, seen, center = drone_view(other, *spot, settings, rng)
            tile, mask = reference_tile(chart, *spot, settings)
            pairs.append((tile, mask, view, seen, spot, center))
        return [(_lit(p[0], p[1], rng, reference_light), *p[1:]) for p in pairs]


def _lit(tile: NDArray[np.uint8], mask: NDArray[np.bool_], rng: np.random.Generator, light: float) -> NDArray[np.uint8]:
    """Satellite images differ among each other, too: half of them are changed a little."""
    if light < 0.25:
        return tile
    tile = relight(tile, rng, light)
    tile[~mask] = 0
    return tile
