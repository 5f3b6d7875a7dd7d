"""Missions of any number of tiles, for benchmarks: a procedural place that is flown over, amid others that are not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

import cvgl
from cvgl.camera import Camera
from cvgl.files import atomic_folder
from cvgl.footprint import footprint_sides
from cvgl.gallery import build_gallery
from cvgl.gallery.build import Grid, plan_grid
from cvgl.geo import LocalFrame
from cvgl.mission import CAMERA, GALLERY, MODEL, write_mission_file
from cvgl.model import Model
from cvgl.settings import Decision, Settings
from cvgl.sim import World, render_map, write_flight
from cvgl.sim.views import choose_tile_size

__all__ = ["CAMERA_640", "Mosaic", "SampledModel", "make_mission"]

CAMERA_640 = Camera.from_field_of_view(640, 480, 62.0)
_HEIGHT_M = 80.0
_PLACE = (47.0, 9.5)
_WORLD_M = 480.0
_GSD_M = 0.5
_STYLE = "suburban"
_SEED, _OTHER_SEEDS = 5, (77, 78, 79)
_SAMPLE = 1500


class SampledModel:
    """A model that embeds the tiles around a mosaic's middle, and some of the others; the rest are made up from those.

    Embedding 100 000 tiles takes most of an hour on two slow cores and would change nothing of what is measured. What
    is made up lies around a real descriptor, as neighbouring tiles do, so that an index over it is as easy to search.

    Args:
        model: the real one.
        grid: of the tiles, which must be asked for in its order.
        near_m: tiles whose centre is this close to the middle, along each axis, are embedded.
        sample: so many others are embedded too, the first ones.
    """

    def __init__(self, model: Model, grid: Grid, near_m: float, sample: int) -> None:
        self._model, self._rng, self._asked = model, np.random.default_rng(0), 0
        centres = np.array([grid.centre(column, row) for row in range(grid.rows) for column in range(grid.columns)])
        self._real = np.abs(centres).max(axis=1) <= near_m
        self._real[:sample] = True
        self._pool = np.empty((0, model.descriptor_size), np.float32)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def embed_inputs(self, inputs: NDArray[np.float32], view: str = "query") -> NDArray[np.float32]:
        """As :meth:`cvgl.Model.embed_inputs`, for the next tiles of the grid."""
        real = self._real[self._asked : self._asked + len(inputs)]
        self._asked += len(inputs)
        found = np.empty((len(inputs), self._model.descriptor_size), np.float32)
        if real.any():
            found[real] = self._model.embed_inputs(inputs[real], view)
            self._pool = np.concatenate([self._pool, found[real]])
        made_up = self._pool[self._rng.integers(len(self._pool), size=int((~real).sum()))]
        # Half as long as the descriptor itself, as far apart as tiles are that show the same kind of place.
        made_up = made_up + self._rng.normal(0, 0.5 / math.sqrt(found.shape[1]), made_up.shape).astype(np.float32)
        found[~real] = made_up / np.linalg.norm(made_up, axis=1, keepdims=True)
        return found


class Mosaic:
    """A map as :class:`cvgl.imagery.MapSource` reads it, without a file: one world in the middle, others around it.

    The others are turned and mirrored in turn, so that few of them make a large map without its middle coming twice.

    Args:
        side_m: of the map.
        middle: (H, H, 3) RGB of the world in the middle, 0.5 m/px.
        others: pictures of other worlds of the same size.
    """

    def __init__(self, side_m: float, middle: NDArray[np.uint8], others: list[NDArray[np.uint8]]) -> None:
        self.path = Path("mosaic")
        self.source, self.attribution = "procedural mosaic", "generated, no rights reserved"
        self.local = LocalFrame(*_PLACE)
        self.native_gsd = _GSD_M
        self.bounds = (-side_m / 2, -side_m / 2, side_m / 2, side_m / 2)
        self._middle, self._block = middle, len(middle)
        self._others = [
            np.ascontiguousarray(np.rot90(picture[:, ::mirror], turns))
            for picture in others
            for mirror in (1, -1)
            for turns in range(4)
        ]

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As :meth:`cvgl.imagery.MapSource.read`."""
        # Native pixels from the middle of the map, the outer corner of the middle block's first one being (0, 0).
        half = self._block / 2
        left, top = west / _GSD_M + half, -north / _GSD_M + half
        first_column, first_row = math.floor(left) - 1, math.floor(top) - 1
        columns = math.ceil(left + width * gsd / _GSD_M) + 2 - first_column
        rows = math.ceil(top + height * gsd / _GSD_M) + 2 - first_row
        native = self._native(first_column, first_row, columns, rows)
        step = gsd / _GSD_M
        back = np.array(
            [
                [step, 0, left - first_column + step / 2 - 0.5],
                [0, step, top - first_row + step / 2 - 0.5],
            ]
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(native, back, (width, height), flags=flags), np.ones((height, width), bool)

    def _native(self, column: int, row: int, columns: int, rows: int) -> NDArray[np.uint8]:
        window = np.empty((rows, columns, 3), np.uint8)
        for y in range(row // self._block, (row + rows - 1) // self._block + 1):
            for x in range(column // self._block, (column + columns - 1) // self._block + 1):
                turn = (7 * x + 3 * y) % len(self._others)
                picture = self._middle if x == y == 0 else self._others[turn]
                at_row, at_column = y * self._block - row, x * self._block - column
                low_row, high_row = max(at_row, 0), min(at_row + self._block, rows)
                low_column, high_column = max(at_column, 0), min(at_column + self._block, columns)
                window[low_row:high_row, low_column:high_column] = picture[
                    low_row - at_row : high_row - at_row, low_column - at_column : high_column - at_column
                ]
        return window


def make_mission(
    out: Path,
    tiles: int,
    *,
    frames: int = 20,
    camera: Camera = CAMERA_640,
    stride_m: float = 20.0,
    basemap_pixels: int = 172,
    threads: int = 1,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[Path, Path]:
    """A mission of about ``tiles`` tiles with the model that ships, and a flight over its middle; used again if there.

    Nothing is calibrated: the default laws of chance stand, which were measured on many maps.

    Args:
        out: gets ``mission/`` and ``flight/``.
        tiles: wanted; the grid is square.
        frames: of the flight, 80 m above ground.
        camera: that takes them.
        stride_m: from tile to tile.
        basemap_pixels: across the short side of what the camera sees; the default is cvgl-prepare's.
        threads: of the embedding.
        progress: as :func:`cvgl.gallery.build_gallery` calls it.

    Returns:
        The folders of mission and flight.
    """
    mission, flight = out / "mission", out / "flight"
    world = World.generate(_SEED, _WORLD_M, _STYLE)
    if not flight.is_dir():
        latitude, longitude = _PLACE
        write_flight(
            world, flight, camera, latitude=latitude, longitude=longitude, frames=frames, height_m=_HEIGHT_M, seed=3
        )
    if mission.is_dir():
        return mission, flight
    others = [render_map(World.generate(seed, _WORLD_M, _STYLE), _GSD_M) for seed in _OTHER_SEEDS]
    bundle = Path(cvgl.__file__).parent / "models" / "cvgl-nano.cvgl"
    tile_m = choose_tile_size(camera, _HEIGHT_M)
    with atomic_folder(mission) as folder:
        shutil.copytree(bundle, folder / MODEL)
        model = Model.open(folder / MODEL, threads)
        tile_gsd = tile_m / model.views["reference"].input_size[0]
        step = max(1, round(stride_m / tile_gsd)) * tile_gsd
        # One step of slack: the grid counts its first column as well.
        side = (math.ceil(math.sqrt(tiles)) - 0.5) * step
        mosaic = Mosaic(side, render_map(world, _GSD_M), others)
        grid = plan_grid(mosaic.bounds, tile_m, step, model.views["reference"].input_size[0])
        build_gallery(
            mosaic,  # type: ignore[arg-type]
            SampledModel(model, grid, _WORLD_M / 2, _SAMPLE),  # type: ignore[arg-type]
            folder / GALLERY,
            tile_size_m=tile_m,
            stride_m=step,
            basemap_gsd_m=footprint_sides(camera, _HEIGHT_M)[0] / basemap_pixels,
            progress=progress,
        )
        camera.to_yaml(folder / CAMERA)
        write_mission_file(folder, _HEIGHT_M, Settings(), Decision(), {"made": "for a benchmark, not calibrated"})
    return mission, flight
