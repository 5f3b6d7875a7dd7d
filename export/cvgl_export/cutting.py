"""Tiles and simulated views of them, cut from pictures of the ground."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cvgl.camera import Camera
from cvgl.sim.views import MapImage, ViewSettings, choose_tile_size, drone_view, reference_tile
from cvgl_train.data.base import DatasetError

from .sizing import cut_px, mask_to_view, to_view
from .tiles import Images, Masks, ParityTiles, Wanted, image_key

__all__ = ["WINDOW_PER_TILE", "Look", "cut", "grid", "piece"]

Look = Callable[[float, float, float, float], MapImage]
"""Easting, northing, side in metres and ground sampling distance to a piece of a map around there."""

WINDOW_PER_TILE = 1.6
_FIELD_OF_VIEW_DEG = 70.0
# As the trained models saw it: the image's middle is off the tile's centre by up to an eighth of a tile.
_OFFSET_PER_TILE = 0.125
# Half of what training draws: a search that finds next to nothing tells next to nothing about an engine.
_LIGHT = 0.5
# Tiles may overlap so that a small map gives enough of them, but not by more than three quarters: the view of one
# must not be a better view of its neighbour.
_STRIDES_PER_TILE = (1.0, 0.5, 0.25)
_LEAST_VALID = 0.6


def cut(
    look: Look, places: NDArray[np.float64], tile_m: float, wanted: Wanted, source: str, file: Path | None = None
) -> ParityTiles:
    """Tiles at some of the places, and a simulated view of each.

    Args:
        look: shows the ground.
        places: (N, 2) easting and northing of the tiles' centres, metres; those with too little data give none.
        tile_m: side of a tile, metres.
        wanted: what for.
        source: where they are from, for people.
        file: the same, for errors.

    Raises:
        DatasetError: fewer than two tiles that differ.
    """
    px = cut_px(wanted.query, wanted.reference)
    lens = Camera.from_field_of_view(1600, 1200, _FIELD_OF_VIEW_DEG)
    height = 100.0 * tile_m / choose_tile_size(lens, 100.0)
    drone = ViewSettings(lens, height, tile_m / px, px, offset_m=_OFFSET_PER_TILE * tile_m, light=_LIGHT)
    order = np.random.default_rng([wanted.seed, 64]).permutation(len(places))
    pairs: list[tuple[int, Images, Masks, Images, Masks]] = []
    seen: set[bytes] = set()
    duplicates = 0
    total = min(wanted.count, len(places))
    for index in order.tolist():
        easting, northing = (float(value) for value in places[index])
        image = look(easting, northing, WINDOW_PER_TILE * tile_m, drone.gsd_m / 2)
        rgb, valid = reference_tile(image, easting, northing, drone)
        if valid.mean() < _LEAST_VALID:
            continue
        tile = to_view(rgb, wanted.reference)
        key = image_key(tile)
        if key in seen:
            duplicates += 1
            continue
        view, covered, _ = drone_view(image, easting, northing, drone, np.random.default_rng([wanted.seed, 65, index]))
        seen.add(key)
        views = to_view(view, wanted.query), mask_to_view(covered, wanted.query)
        pairs.append((index, tile, mask_to_view(valid, wanted.reference), *views))
        wanted.tell(len(pairs), total)
        if len(pairs) == wanted.count:
            break
    if len(pairs) < 2:
        raise DatasetError(
            "too few tiles to prove anything on",
            file=file,
            field="tiles",
            found=f"{len(pairs)}, and {duplicates} equal to one of them",
            expected="two or more that differ and have data",
        )
    # In the order of the grid, so that a name's neighbours are its neighbours on the ground.
    pairs.sort(key=lambda pair: pair[0])
    seen_of_tiles, seen_of_views = (np.stack([pair[part] for pair in pairs]) for part in (2, 4))
    return ParityTiles(
        np.stack([pair[3] for pair in pairs]),
        np.stack([pair[1] for pair in pairs]),
        np.arange(len(pairs)),
        tuple(f"{places[pair[0]][0]:.1f} m east, {places[pair[0]][1]:.1f} m north" for pair in pairs),
        wanted.inputs,
        source,
        query_mask=None if seen_of_views.all() else seen_of_views,
        reference_mask=None if seen_of_tiles.all() else seen_of_tiles,
        duplicates=duplicates,
    )


def grid(bounds: tuple[float, float, float, float], tile_m: float, count: int) -> NDArray[np.float64]:
    """(N, 2) centres of whole tiles on a map, of as little overlap as gives `count` of them."""
    west, south, east, north = bounds
    half = tile_m / 2
    places = np.zeros((0, 2))
    for share in _STRIDES_PER_TILE:
        xs = np.arange(west + half, east - half + 1e-6, share * tile_m)
        ys = np.arange(north - half, south + half - 1e-6, -share * tile_m)
        places = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
        if len(places) >= count:
            break
    return places


def piece(
    colours: NDArray[np.uint8],
    from_gsd: float,
    west: float,
    north: float,
    easting: float,
    northing: float,
    side_m: float,
    gsd: float,
) -> MapImage:
    """A square of a picture, (H, W) grey or (H, W, 3) RGB, resampled; black is where nothing is known."""
    px = math.ceil(side_m / gsd)
    left, top = easting - px * gsd / 2, northing + px * gsd / 2
    # A warp looks up single points: where the picture is finer it is sampled as finely, and averaged.
    finer = max(1, math.ceil(gsd / from_gsd))
    side, ratio = px * finer, gsd / finer / from_gsd
    # Output pixel centres to picture pixel centres.
    matrix = np.array(
        [
            [ratio, 0, (left - west) / from_gsd + ratio / 2 - 0.5],
            [0, ratio, (north - top) / from_gsd + ratio / 2 - 0.5],
        ]
    )
    low = np.clip(np.floor(matrix[:, 2]).astype(int) - 2, 0, None)
    high = np.minimum(np.ceil(matrix[:, 2] + ratio * side).astype(int) + 3, (colours.shape[1], colours.shape[0]))
    rgb = np.zeros((px, px, 3), np.uint8)
    if (high > low).all():
        part = np.ascontiguousarray(colours[low[1] : high[1], low[0] : high[0]])
        matrix[:, 2] -= low
        flags = cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR
        fine = cv2.warpAffine(part, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_CONSTANT)
        small = cv2.resize(fine, (px, px), interpolation=cv2.INTER_AREA)
        rgb[:] = small if small.ndim == 3 else small[..., None]
    return MapImage.of(rgb, np.asarray(rgb.any(axis=2)), gsd, left, top)
