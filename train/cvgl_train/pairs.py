"""Batches of (reference tile, drone view) pairs from maps, with spatially hard negatives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from cvgl.errors import MapError
from cvgl.sim.views import MapImage, ViewSettings, drone_view, reference_tile

from .models.nano import normalise

__all__ = ["MapPairs", "PairBatch", "PairSource", "clustered_places", "collate", "covered_cells"]

Pair = tuple[
    NDArray[np.uint8],
    NDArray[np.bool_],
    NDArray[np.uint8],
    NDArray[np.bool_],
    tuple[float, float],
    tuple[float, float],
]
"""Reference rgb and mask, query rgb and mask, their positions in metres (easting, northing)."""


@dataclass(frozen=True)
class PairBatch:
    """B pairs, ready for a network.

    Args:
        images: (2 B, 3, H, W) normalised input; the references first.
        references, queries: (B, 2) positions in units of the tile's side.
        groups: (B,) the map each pair is from.
    """

    images: torch.Tensor
    references: torch.Tensor
    queries: torch.Tensor
    groups: torch.Tensor


class PairSource(Protocol):
    """Something batches can be drawn from; the same generator state gives the same batch."""

    def draw(self, rng: np.random.Generator, count: int) -> PairBatch:
        """`count` pairs."""


def collate(pairs: list[Pair], tile_sizes: list[float], groups: list[int]) -> PairBatch:
    """Pairs to a batch; `tile_sizes` in metres are those of each pair's map."""
    scale = 1 / np.array(tile_sizes)[:, None]
    return PairBatch(
        normalise(
            np.stack([p[0] for p in pairs] + [p[2] for p in pairs]),
            np.stack([p[1] for p in pairs] + [p[3] for p in pairs]),
        ),
        torch.from_numpy(np.array([p[4] for p in pairs]) * scale),
        torch.from_numpy(np.array([p[5] for p in pairs]) * scale),
        torch.tensor(groups),
    )


def clustered_places(
    rng: np.random.Generator,
    count: int,
    covered: NDArray[np.bool_],
    cell: float,
    tile: float,
    clustered: float,
) -> NDArray[np.float64]:
    """(count, 2) places on a map: single ones, and clusters of eight that are each other's hard negatives.

    Args:
        covered: (H, W) cells of the map, row 0 in the north, where a tile may have its centre.
        cell: side of a cell, metres; positions are metres east and south of the north-west corner.
        tile: side of a tile, metres; a cluster's members lie 0.22 to 0.8 of it from its first.
        clustered: share of draws that start a cluster.
    """
    rows, columns = np.nonzero(covered)
    if len(rows) == 0:
        raise MapError("the map has no place for a tile", field="size", expected="data over most of one tile or more")
    height, width = covered.shape
    places: list[tuple[float, float]] = []
    while len(places) < count:
        start = int(rng.integers(len(rows)))
        x, y = (columns[start] + rng.random()) * cell, (rows[start] + rng.random()) * cell
        places.append((x, y))
        if rng.random() >= clustered:
            continue
        for _ in range(7):
            angle, distance = rng.uniform(0, 2 * math.pi), rng.uniform(0.22, 0.8) * tile
            near_x, near_y = x + distance * math.cos(angle), y + distance * math.sin(angle)
            row, column = int(near_y // cell), int(near_x // cell)
            if 0 <= row < height and 0 <= column < width and covered[row, column]:
                places.append((near_x, near_y))
    return np.array(places[:count])


def covered_cells(image: MapImage, tile_m: float, share: float) -> tuple[NDArray[np.bool_], float]:
    """Where on a map a tile's centre may lie: (H, W) cells of a tenth of a tile, and their side in metres.

    A tile needs data over `share` of its area, as in the gallery.
    """
    import cv2

    cell_px = max(1, round(tile_m / 10 / image.gsd_m))
    height, width = image.rgba.shape[0] // cell_px, image.rgba.shape[1] // cell_px
    if height < 1 or width < 1:
        return np.zeros((1, 1), bool), cell_px * image.gsd_m
    alpha = np.ascontiguousarray(image.rgba[: height * cell_px, : width * cell_px, 3])
    data = cv2.resize(alpha, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    around = cv2.boxFilter(data, -1, (11, 11), borderType=cv2.BORDER_CONSTANT)
    return (around >= share) & (data > 0.5), cell_px * image.gsd_m


class MapPairs:
    """Pairs from one map: the gallery's own tiles against simulated views of them.

    Args:
        image: the map, at half the tiles' ground sampling distance.
        settings: what the simulated drone does.
        clustered: share of draws that start a cluster of neighbours.
    """

    def __init__(self, image: MapImage, settings: ViewSettings, clustered: float = 0.5) -> None:
        self.image, self.settings, self.clustered = image, settings, clustered
        self.tile_m = settings.gsd_m * settings.tile_px
        self._covered, self._cell = covered_cells(image, self.tile_m, 0.55)

    def pairs(self, rng: np.random.Generator, count: int) -> list[Pair]:
        """`count` pairs as images."""
        places = clustered_places(rng, count, self._covered, self._cell, self.tile_m, self.clustered)
        pairs: list[Pair] = []
        for x, y in places:
            place = (self.image.west + float(x), self.image.north - float(y))
            tile, mask = reference_tile(self.image, *place, self.settings)
            view, seen, center = drone_view(self.image, *place, self.settings, rng)
            pairs.append((tile, mask, view, seen, place, center))
        return pairs

    def draw(self, rng: np.random.Generator, count: int) -> PairBatch:
        """`count` pairs, ready for a network."""
        return collate(self.pairs(rng, count), [self.tile_m] * count, [0] * count)
