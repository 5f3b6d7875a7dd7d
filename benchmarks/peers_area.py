"""Missions of growing area around one real map: the same flight, lost in ever more ground.

The real map lies in the middle of a plane that is paved with procedural towns, each about a kilometre a side and each
with its own picture; 25 of them, and then the same again. Tiles, descriptors, index and basemap are what
``build_gallery`` makes of that plane, the laws of chance what ``fit_decision`` measures on it, as in ``cvgl-prepare``.
What repeats is not embedded twice: descriptors are kept by the tile's content, on disk, so that a run that was
interrupted goes on where it stopped. A tile that repeats takes several of the places among retrieval's candidates, so
that the largest of these maps is harder than as large a map without repetition would be.
"""

from __future__ import annotations

import hashlib
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from towns import CELL_STRIDES, rendering, town

from cvgl.calibrate import fit_decision
from cvgl.errors import GalleryError
from cvgl.files import atomic_folder
from cvgl.gallery import build_gallery, read_manifest
from cvgl.geo import LocalFrame
from cvgl.imagery import MapSource
from cvgl.localizer import Localizer
from cvgl.mission import CAMERA, GALLERY, MISSION, MODEL, Mission, write_mission_file
from cvgl.model import Model
from cvgl.settings import Decision

__all__ = ["Plane", "make_missions", "open_plane"]

# Rows and columns of towns before they repeat.
_PERIOD = 5
_TRIALS, _SEED = 150, 0

Report = Callable[[str, int, int], None]


class Plane:
    """A map without end, read as :class:`cvgl.imagery.MapSource` is: procedural towns with a real map in the middle.

    Args:
        real: the map in the middle; the plane has its local tangent plane.
        towns: (P, P) pictures (side, side, 3) RGB, each ``cell_m`` a side, repeated without end.
        cell_m: side of a town, metres; one of them is centred on the tangent plane's origin.
        side_m: of the square that counts as this map, metres, its middle at the origin.
        tile_gsd: at which tiles are cut, m/px: towns are reduced to it by averaging.
    """

    def __init__(
        self, real: MapSource, towns: list[list[NDArray[np.uint8]]], cell_m: float, side_m: float, tile_gsd: float
    ) -> None:
        self.path = real.path
        self.source = f"{real.source} among procedural towns"
        self.attribution = real.attribution
        self.local: LocalFrame = real.local
        half = side_m / 2
        self.bounds = (-half, -half, half, half)
        self.native_gsd = cell_m / len(towns[0][0])
        self._real = real
        self._cell_m = cell_m
        self._period = len(towns)
        # By detail: whole periods, so that a read is two lookups.
        reduced = [[_reduced(town, round(cell_m / tile_gsd)) for town in row] for row in towns]
        self._details = [_joined(towns), _joined(reduced)]

    def read(
        self, west: float, north: float, width: int, height: int, gsd: float
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """As :meth:`cvgl.imagery.MapSource.read`; towns by their nearest pixel in the detail that is closest."""
        period_m = self._period * self._cell_m
        paved = min(self._details, key=lambda detail: abs(math.log(period_m / len(detail) / gsd)))
        pixel = period_m / len(paved)
        # The first town's corner is half a town north-west of the origin.
        east = west + (np.arange(width) + 0.5) * gsd + self._cell_m / 2
        south = self._cell_m / 2 - (north - (np.arange(height) + 0.5) * gsd)
        columns, rows = (np.floor(at / pixel).astype(np.int64) % len(paved) for at in (east, south))
        rgb = paved[rows[:, None], columns[None, :]]
        self._lay(rgb, west, north, gsd)
        return rgb, np.ones((height, width), bool)

    def _lay(self, rgb: NDArray[np.uint8], west: float, north: float, gsd: float) -> None:
        """The real map over the towns, where the window reaches it."""
        height, width = rgb.shape[:2]
        bounds = self._real.bounds
        left, right = (math.floor((bounds[0] - west) / gsd), math.ceil((bounds[2] - west) / gsd))
        top, bottom = (math.floor((north - bounds[3]) / gsd), math.ceil((north - bounds[1]) / gsd))
        left, right, top, bottom = max(left, 0), min(right, width), max(top, 0), min(bottom, height)
        if left >= right or top >= bottom:
            return
        part = np.s_[top:bottom, left:right]
        real, valid = self._real.read(west + left * gsd, north - top * gsd, right - left, bottom - top, gsd)
        rgb[part][valid] = real[valid]


class _Remembering:
    """A model that embeds no tile twice; descriptors are kept in a file by the SHA-256 of what the network takes.

    Args:
        model: embeds what is new.
        file: of records, appended to.
    """

    def __init__(self, model: Model, file: Path) -> None:
        self._model = model
        self.name, self.path, self.fingerprint = model.name, model.path, model.fingerprint
        self.descriptor_size, self.views = model.descriptor_size, model.views
        self._file = file
        self._kind = np.dtype([("key", "S32"), ("descriptor", np.float32, (model.descriptor_size,))])
        self._known: dict[bytes, NDArray[np.float32]] = {}
        self.embedded = 0
        if file.is_file():
            # An interrupted run may have left part of a record.
            whole = file.stat().st_size // self._kind.itemsize
            for record in np.fromfile(file, self._kind, count=whole):
                self._known[bytes(record["key"]).ljust(32, b"\0")] = record["descriptor"]
            with file.open("r+b") as opened:
                opened.truncate(whole * self._kind.itemsize)

    def inputs_of(self, patches: NDArray[np.uint8], masks: NDArray[Any], view: str = "query") -> NDArray[np.float32]:
        """As :meth:`cvgl.model.Model.inputs_of`."""
        return self._model.inputs_of(patches, masks, view)

    def embed_inputs(self, inputs: NDArray[np.float32], view: str = "query") -> NDArray[np.float32]:
        """As :meth:`cvgl.model.Model.embed_inputs`."""
        keys = [hashlib.sha256(one.tobytes()).digest() for one in inputs]
        new = list({key: index for index, key in enumerate(keys) if key not in self._known}.values())
        if new:
            found = self._model.embed_inputs(inputs[new], view)
            records = np.empty(len(new), self._kind)
            records["key"], records["descriptor"] = [keys[index] for index in new], found
            with self._file.open("ab") as opened:
                records.tofile(opened)
            self._known.update({keys[index]: row for index, row in zip(new, found, strict=True)})
            self.embedded += len(new)
        return np.stack([self._known[key] for key in keys])


def make_missions(
    mission: Path, map_file: Path, areas_km2: list[float], folder: Path, report: Report, threads: int
) -> dict[float, Path]:
    """Missions like one that stands, over more ground; those that are there already are kept.

    Args:
        mission: gives camera, model, settings, and the sizes of tiles and basemap.
        map_file: the map that it was made of.
        areas_km2: wanted.
        folder: towns, descriptors and missions go here.
        report: called with what is being done, how much of it is done, and how much there is.
        threads: to embed with.

    Returns:
        Missions by the area that they have, km2.

    Raises:
        CvglError: the mission or the map cannot be used.
    """
    sample = read_manifest(mission / GALLERY)
    folder.mkdir(parents=True, exist_ok=True)
    model = Model.open(mission / MODEL, threads=threads, views=("reference",))
    if model.fingerprint != sample.model_fingerprint:
        raise GalleryError("of another model than the mission's", file=sample.path, found=sample.model_name)
    remembering = _Remembering(model, folder / f"descriptors-{model.fingerprint[:12]}.bin")
    cell_m = CELL_STRIDES * sample.stride_m
    period_km2 = (_PERIOD * cell_m / 1000) ** 2
    towns: list[list[NDArray[np.uint8]]] = []

    def make(area: float, laws: Path | None) -> tuple[float, Path]:
        # An even number of strides a side, so that every mission's tiles are the same tiles.
        strides = 2 * round(1000 * math.sqrt(area) / sample.stride_m / 2)
        side_m = strides * sample.stride_m
        area = side_m**2 / 1e6
        path = folder / f"mission-{model.fingerprint[:12]}-{rendering()}-{area:.4g}km2"
        if path.is_dir():
            return area, path
        if not towns:
            towns.extend(_towns(folder, cell_m, sample.basemap.gsd_m, report))
        plane = Plane(real, towns, cell_m, side_m, sample.tile_gsd_m)
        with atomic_folder(path) as work:
            shutil.copytree(mission / MODEL, work / MODEL)
            for name in (CAMERA, MISSION):
                shutil.copyfile(mission / name, work / name)
            build_gallery(
                plane,  # type: ignore[arg-type]  # read as a map is, without being a file
                remembering,  # type: ignore[arg-type]
                work / GALLERY,
                tile_size_m=sample.tile_size_m,
                stride_m=sample.stride_m,
                basemap_gsd_m=sample.basemap.gsd_m,
                progress=lambda stage, done, total: report(f"{area:.4g} km2: {stage}", done, total),
            )
            if laws is None:
                _calibrate(work, plane, area, threads, report)
            else:
                _take_laws(work, laws, area)
        return area, path

    with MapSource.open(map_file) as real:
        # A hair more, so that a period itself is one that repeats nothing, however it was rounded.
        single = [area for area in areas_km2 if area <= 1.001 * period_km2]
        made = dict(make(area, None) for area in single)
        if len(single) < len(areas_km2):
            lender = made[max(made)] if made else make(period_km2, None)[1]
            made |= dict(make(area, lender) for area in areas_km2 if area not in single)
    return made


def open_plane(mission: Path, map_file: Path, folder: Path) -> Plane:
    """The plane that a mission of :func:`make_missions` was made of, to be flown over.

    Args:
        mission: made by it.
        map_file: of the real map in the middle.
        folder: that holds the towns.

    Raises:
        CvglError: the mission or the map cannot be used.
    """
    sample = read_manifest(mission / GALLERY)
    cell_m = CELL_STRIDES * sample.stride_m
    towns = _towns(folder, cell_m, sample.basemap.gsd_m, lambda _stage, _done, _total: None)
    real = MapSource.open(map_file)
    west, _, east, _ = sample.bounds
    return Plane(real, towns, cell_m, east - west, sample.tile_gsd_m)


def _towns(folder: Path, cell_m: float, gsd: float, report: Report) -> list[list[NDArray[np.uint8]]]:
    """Pictures of the towns of a period; those that were rendered before are read."""
    side = round(cell_m / gsd)
    towns: list[list[NDArray[np.uint8]]] = []
    for row in range(_PERIOD):
        towns.append([])
        for column in range(_PERIOD):
            number = row * _PERIOD + column
            towns[-1].append(town(folder, number, cell_m, side))
            report("towns", number + 1, _PERIOD**2)
    return towns


def _calibrate(folder: Path, plane: Plane, area: float, threads: int, report: Report) -> None:
    """Measure the laws of chance on this map and write them into its mission."""
    localizer = Localizer.open(folder, threads=threads)
    decision, evidence = fit_decision(
        localizer,
        plane,  # type: ignore[arg-type]  # read as a map is, without being a file
        trials=_TRIALS,
        seed=_SEED,
        progress=lambda done, total: report(f"{area:.4g} km2: calibrate", done, total),
    )
    _write(localizer, decision, {"made": _made(area), "calibration": evidence})


def _take_laws(folder: Path, other: Path, area: float) -> None:
    """Write another mission's laws of chance into one where none can be measured."""
    decision = Mission.open(other).decision
    _write(Localizer.open(folder, threads=1), decision, {"made": _made(area), "laws_of": other.name})


def _write(localizer: Localizer, decision: Decision, record: dict[str, Any]) -> None:
    mission = localizer.mission
    write_mission_file(mission.path, mission.height_m, mission.settings, decision, record)


def _made(area: float) -> str:
    return f"benchmarks/peers_area.py, {area:.4g} km2"


def _reduced(town: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(town, (side, side), interpolation=cv2.INTER_AREA))


def _joined(towns: list[list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    return np.concatenate([np.concatenate(row, axis=1) for row in towns], axis=0)
