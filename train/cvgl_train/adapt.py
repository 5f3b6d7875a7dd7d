"""Adaptation: minutes of training on a mission's own map, so that its places are told apart from each other.

No photo of the place is needed: the gallery's tiles are learnt against simulated views of the same map (see
`cvgl.sim.views`), starting from the base model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.errors import CvglError, MapError
from cvgl.files import write_json
from cvgl.imagery import MapSource
from cvgl.sim.views import MapImage, ViewSettings, choose_tile_size

from .models.nano import average, load_weights, save_weights
from .pairs import MapPairs
from .training.loop import Progress
from .training.stream import FitSettings, fit

__all__ = ["AdaptRecipe", "Adapted", "adapt", "base_weights", "read_map", "view_settings"]

_STRIP_ROWS = 512
_IN_MEMORY = 300_000_000
_OFFSET_PER_TILE = 0.13


@dataclass(frozen=True)
class Adapted:
    """What an adaptation made.

    Args:
        weights: file that `cvgl_train.models.nano.load_weights` and `cvgl_export.onnx.export_bundle` take.
        tile_size_m: side of the tiles it was trained for, metres.
        gsd_m: their ground sampling distance, m/px.
        record: settings, steps, seconds, the curve of retrieval on simulated views.
    """

    weights: Path
    tile_size_m: float
    gsd_m: float
    record: dict[str, Any]


@dataclass(frozen=True)
class AdaptRecipe:
    """What is adapted to which map; the fields are those of `recipes/nano-adapt.yaml`, which explains them."""

    map: str
    camera: str
    height_m: float = 120.0
    init: str | None = None
    minutes: float = 10.0
    seed: int = 0
    device: str = "auto"
    out: str = "runs/nano-adapt"


def base_weights() -> Path:
    """The base model's weights that ship with the SDK."""
    return Path(str(files("cvgl") / "models" / "cvgl-nano.npz"))


def view_settings(camera: Camera, height_m: float, tile_size_m: float, tile_px: int) -> ViewSettings:
    """The simulated drone of an adaptation: that camera at that height, errors as flights have them."""
    return ViewSettings(camera, height_m, tile_size_m / tile_px, tile_px, offset_m=_OFFSET_PER_TILE * tile_size_m)


def adapt(
    source: MapSource,
    camera: Camera,
    height_m: float,
    init_weights: str | Path | None = None,
    minutes: float = 10.0,
    out_dir: str | Path = "adapted",
    *,
    tile_size_m: float | None = None,
    seed: int = 0,
    device: str = "auto",
    settings: FitSettings | None = None,
    resume: bool = True,
    progress: Progress | None = None,
) -> Adapted:
    """Train the embedding on a map.

    Args:
        source: the map.
        camera: the drone's.
        height_m: planned height above ground, metres.
        init_weights: to start from; None for the base model that ships.
        minutes: of training time, whatever else the machine does; what a killed run had used counts.
        out_dir: for the checkpoint, `weights.npz` and `record.json`.
        tile_size_m: side of a tile; None for `choose_tile_size(camera, height_m)`.
        seed: of everything random.
        device: "auto", "cpu", "cuda".
        settings: how to train; `minutes` here overrides theirs.
        resume: go on from a checkpoint in `out_dir`, if there is one.
        progress: called about once a second with the share that is done and the latest line of the curve.

    Raises:
        MapError: the map is smaller than a tile, or damaged.
        ModelError: the weights are not usable, the device is not there, or `out_dir` holds another run's
            checkpoint.
        CvglError: a height or a time that is not above 0.
    """
    if not height_m > 0:
        raise CvglError("not a height above ground", field="height_m", found=height_m, expected="metres, above 0")
    out = Path(out_dir)
    start = Path(init_weights) if init_weights is not None else base_weights()
    net = load_weights(start)
    px = net.config.input_px
    tile = tile_size_m if tile_size_m is not None else choose_tile_size(camera, height_m)
    drone = view_settings(camera, height_m, tile, px)
    out.mkdir(parents=True, exist_ok=True)
    pairs = MapPairs(read_map(source, drone.gsd_m / 2, out / "map.npy"), drone)
    how = _with_minutes(settings or ADAPT_SETTINGS, minutes)
    try:
        record = fit(net, pairs, out, how, seed=seed, device=device, resume=resume, progress=progress)
    finally:
        (out / "map.npy").unlink(missing_ok=True)
    net = average(load_weights(start), net, START_SHARE)
    record["start_share"] = START_SHARE
    record["map"] = source.source
    record["tile_size_m"], record["gsd_m"], record["height_m"] = tile, drone.gsd_m, height_m
    record["start"] = start.name
    weights = out / "weights.npz"
    save_weights(net, weights)
    write_json(out / "record.json", record)
    return Adapted(weights, tile, drone.gsd_m, record)


ADAPT_SETTINGS = FitSettings(rate=1e-3, warmup=0.03)
"""A lower rate than from scratch: enough to specialise in minutes, not so much that the base is forgotten."""


START_SHARE = 0.5
"""Share of the start's weights in the result: simulated views are no photos, and what the start knew of other light and
other sensors is worth keeping (measured: train/results/nano-base.md)."""


def _with_minutes(settings: FitSettings, minutes: float) -> FitSettings:
    if not minutes > 0:
        raise CvglError("no time to adapt in", field="minutes", found=minutes, expected="more than 0")
    return replace(settings, minutes=minutes)


def read_map(source: MapSource, gsd_m: float, scratch: Path) -> MapImage:
    """A whole map at a ground sampling distance, read in strips; a large one lies in a file, not in memory.

    Args:
        source: the map.
        gsd_m: metres a pixel.
        scratch: `.npy` for a map of more than 300 million bytes; to be removed by the caller.
    """
    west, south, east, north = source.bounds
    width, height = int(np.ceil((east - west) / gsd_m)), int(np.ceil((north - south) / gsd_m))
    if width < 1 or height < 1:
        raise MapError("too small", file=source.path, found=f"{east - west:.0f} x {north - south:.0f} m")
    shape = (height, width, 4)
    rgba: NDArray[np.uint8]
    if height * width * 4 <= _IN_MEMORY:
        rgba = np.zeros(shape, np.uint8)
    else:
        rgba = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint8, shape=shape)
    for top in range(0, height, _STRIP_ROWS):
        rows = min(_STRIP_ROWS, height - top)
        rgb, valid = source.read(west, north - top * gsd_m, width, rows, gsd_m)
        rgba[top : top + rows, :, :3] = rgb
        rgba[top : top + rows, :, 3] = np.where(valid, 255, 0)
    return MapImage(rgba, gsd_m, west, north)
