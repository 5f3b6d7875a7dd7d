"""The scene: flat ground shapes, solids made of faces, trees, and places where vehicles may stand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from . import materials as mat
from .shapes import Array, counter_clockwise, offset_line

if TYPE_CHECKING:
    from collections.abc import Sequence

Colour = tuple[float, float, float]
STYLES = ("suburban", "dense", "rural", "industrial", "mixed")


@dataclass(frozen=True)
class Shapes:
    """P polygons in ENU metres, in painting order.

    vertices (V, 3) float32; start (P + 1,) int64 index of each polygon's first vertex; colour (P, 3) RGB
    0-255; material, phase (P,) uint8; width (P,) metres, the smallest extent (shapes thinner than a pixel are
    left out); bounds (P, 4) west, south, east, north.
    """

    vertices: NDArray[np.float32]
    start: NDArray[np.int64]
    colour: NDArray[np.float32]
    material: NDArray[np.uint8]
    phase: NDArray[np.uint8]
    width: NDArray[np.float32]
    bounds: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.start) - 1


@dataclass(frozen=True)
class Solids:
    """Buildings and other bodies: U units, each a run of outward-looking planar faces.

    faces: the polygons; normal (P, 3) unit outward; base (P,) the height their shadow falls on (m) and under
    (P, 3) the colour of that roof (base 0: the ground); cast (P,) whether they throw a shadow at all; wall
    (P,) whether windows belong on it; first (P,) the first face of the part it belongs to; unit (P,) which
    body; unit_start (U + 1,); unit_bounds (U, 4); unit_height (U,) m.
    """

    faces: Shapes
    normal: NDArray[np.float32]
    base: NDArray[np.float32]
    under: NDArray[np.float32]
    cast: NDArray[np.bool_]
    wall: NDArray[np.bool_]
    first: NDArray[np.int64]
    unit: NDArray[np.int64]
    unit_start: NDArray[np.int64]
    unit_bounds: NDArray[np.float32]
    unit_height: NDArray[np.float32]


@dataclass(frozen=True)
class Trees:
    """N trees: xy (N, 2) m, radius, height (N,) m, colour (N, 3) RGB, needle (N,) bool, seed (N,) uint32."""

    xy: NDArray[np.float32]
    radius: NDArray[np.float32]
    height: NDArray[np.float32]
    colour: NDArray[np.float32]
    needle: NDArray[np.bool_]
    seed: NDArray[np.uint32]


@dataclass(frozen=True)
class Slots:
    """N places a vehicle may occupy: xy (N, 2) m, angle (N,) rad counter-clockwise from east, chance (N,)
    0-1."""

    xy: NDArray[np.float32]
    angle: NDArray[np.float32]
    chance: NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """A procedural place in a local east-north-up frame, its origin at the centre, the ground at height 0."""

    seed: int
    size_m: float
    style: str
    background: Colour
    ground: Shapes = field(repr=False)
    solids: Solids = field(repr=False)
    trees: Trees = field(repr=False)
    slots: Slots = field(repr=False)

    @staticmethod
    def generate(seed: int, size_m: float = 800.0, style: str = "mixed") -> World:
        """Build the place of this seed: the same arguments give the same place, on every machine.

        `size_m` is the side of the square in metres (100 or more); `style` one of "suburban", "dense",
        "rural", "industrial", "mixed". Raises ValueError for others.
        """
        from .layout import build

        if style not in STYLES:
            raise ValueError(f"style: found {style!r}, expected one of {', '.join(STYLES)}")
        if not size_m >= 100:
            raise ValueError(f"size_m: found {size_m}, expected 100 or more metres")
        return build(int(seed), float(size_m), style)


class SceneBuilder:
    """Collects shapes while a world is laid out; `finish` freezes them into arrays."""

    def __init__(self, size_m: float, rng: np.random.Generator) -> None:
        self.size_m = size_m
        self.rng = rng
        self.reach = 0.5 * size_m + 60.0
        """Half the side of the square in which anything is kept (m): objects just outside still lean into
        view."""
        self._raster_gsd = 0.5
        side = int(np.ceil(2 * self.reach / self._raster_gsd))
        self.occupied = np.zeros((side, side), np.uint8)
        self._barrier = np.zeros_like(self.occupied)
        self._ground: list[tuple[float, Array, Colour, int, int, float]] = []
        self._faces: list[
            tuple[Array, Colour, int, int, Array, tuple[float, Colour] | None, bool, bool, float, int]
        ] = []
        self._units: list[int] = []
        self._trees: list[Array] = []
        self._slots: list[Array] = []

    # Occupancy: what has been built on, so that nothing else is put there.

    def _raster(self, polygon: Array) -> NDArray[np.int32]:
        return np.round((polygon + self.reach) / self._raster_gsd).astype(np.int32)

    def occupy(self, polygon: Array) -> None:
        """Mark a polygon (N, 2) as built on."""
        cv2.fillPoly(self.occupied, [self._raster(polygon)], 255)

    def is_free(self, polygon: Array, shrink: float = 0.88) -> bool:
        """Whether a polygon, shrunk about its centre, lies on free ground within reach."""
        center = polygon.mean(axis=0)
        # Neighbours wall to wall share raster cells: narrow polygons are shrunk by more than a cell.
        narrow = float(np.min(np.hypot(*(np.roll(polygon, -1, axis=0) - polygon).T))) if len(polygon) == 4 else 99.0
        shrink = min(shrink, max(1 - 3.2 * self._raster_gsd / max(narrow, 0.1), 0.4))
        pixels = self._raster(center + shrink * (polygon - center))
        low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
        if low.min() < 0 or high.max() > len(self.occupied):
            return False
        mask = np.zeros((high[1] - low[1], high[0] - low[0]), np.uint8)
        cv2.fillPoly(mask, [pixels - low], 255)
        return not np.any(mask & self.occupied[low[1] : high[1], low[0] : high[0]])

    def free_points(self, points: Array) -> NDArray[np.bool_]:
        """Which of the points (N, 2) are on free ground within reach."""
        return self._on_raster(self.occupied, points)

    def in_reach(self, polygon: Array) -> bool:
        """Whether any part of the polygon's bounding box is within reach."""
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        return bool(np.all(low < self.reach) and np.all(high > -self.reach))

    def close_barriers(self) -> None:
        """What is occupied by now (rivers, railways) takes no trees and cars of the streets that meet it."""
        self._barrier = self.occupied.copy()

    def _on_raster(self, raster: NDArray[np.uint8], points: Array) -> NDArray[np.bool_]:
        pixels = self._raster(points)
        inside = np.all((pixels >= 0) & (pixels < len(raster)), axis=1)
        result = np.zeros(len(points), bool)
        result[inside] = raster[pixels[inside, 1], pixels[inside, 0]] == 0
        return result

    # Shapes.

    def ground(
        self,
        polygon: Array,
        colour: Colour,
        material: int,
        layer: float,
        *,
        phase: int = 0,
        width: float = 99.0,
    ) -> None:
        """A flat polygon (N, 2); higher layers are painted later."""
        if len(polygon) >= 3 and self.in_reach(polygon):
            self._ground.append((layer, polygon, colour, material, phase, width))

    def lines(
        self,
        lines: Array | Sequence[Array],
        width: float,
        colour: Colour,
        material: int,
        layer: float,
        *,
        phase: int = 0,
    ) -> None:
        """Painted strips of `width` metres along polylines, each (K, 2)."""
        for line in lines:
            left, right = offset_line(line, 0.5 * width), offset_line(line, -0.5 * width)
            self.ground(np.concatenate([right, left[::-1]]), colour, material, layer, phase=phase, width=width)

    def unit(self) -> None:
        """Begin a new body: the faces that follow belong to it, painted in the order they come."""
        self._units.append(len(self._faces))

    def face(
        self,
        vertices: Array,
        colour: Colour,
        material: int,
        *,
        base: tuple[float, Colour] | None = None,
        cast: bool = True,
        wall: bool = False,
        phase: int = 0,
        width: float = 99.0,
        first: int | None = None,
    ) -> None:
        """One planar face (N, 3), counter-clockwise seen from outside.

        `base` = (height, colour) of the roof its shadow falls on; without one it falls on the ground. `first`
        is the first face of the part it belongs to, before which the shadow on that roof is painted.
        """
        a, b, c = vertices[0], vertices[1], vertices[2]
        u, v = b - a, c - a
        normal = np.array([u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]])
        length = float(np.sqrt(normal @ normal))
        if length > 1e-6:
            self._faces.append(
                (
                    vertices,
                    colour,
                    material,
                    phase,
                    normal / length,
                    base,
                    cast,
                    wall,
                    width,
                    len(self._faces) if first is None else first,
                )
            )

    def prism(
        self,
        polygon: Array,
        low: float,
        high: float,
        wall: Colour,
        roof: Colour,
        *,
        material: int = mat.ROOF,
        wall_material: int = mat.WALL,
        base: tuple[float, Colour] | None = None,
        cast: bool = True,
        windows: bool = False,
    ) -> None:
        """Upright walls around a convex polygon (N, 2) and a flat top, from height `low` to `high` (m)."""
        p = counter_clockwise(polygon)
        first = len(self._faces)
        q = np.roll(p, -1, axis=0)
        for a, b in zip(p, q, strict=True):
            self.face(
                np.array([[*a, low], [*b, low], [*b, high], [*a, high]]),
                wall,
                wall_material,
                base=base,
                cast=cast,
                wall=windows,
                first=first,
            )
        self.face(np.column_stack([p, np.full(len(p), high)]), roof, material, base=base, cast=cast, first=first)

    def trees(
        self,
        xy: Array,
        radius: Array,
        height: Array,
        colour: Array,
        needle: bool | NDArray[np.bool_] = False,
        *,
        anywhere: bool = False,
    ) -> None:
        """Trees at xy (N, 2), not beyond reach nor on occupied ground (with `anywhere` not on barriers)."""
        if len(xy) == 0:
            return
        table = np.column_stack(
            [xy, radius, height, np.broadcast_to(colour, (len(xy), 3)), np.broadcast_to(needle, (len(xy),))]
        )
        self._trees.append(table[self._on_raster(self._barrier, xy) if anywhere else self.free_points(xy)])

    def slots(self, xy: Array, angle: Array, chance: Array | float) -> None:
        """Places for vehicles, see `Slots`."""
        table = np.column_stack([xy, np.broadcast_to(angle, (len(xy),)), np.broadcast_to(chance, (len(xy),))])
        self._slots.append(table[self._on_raster(self._barrier, xy)])

    def finish(self, seed: int, style: str, background: Colour) -> World:
        """Freeze everything collected into a World."""
        self._ground.sort(key=lambda g: g[0])
        ground = _shapes(
            [np.column_stack([g[1], np.zeros(len(g[1]))]) for g in self._ground],
            [g[2] for g in self._ground],
            [g[3] for g in self._ground],
            [g[4] for g in self._ground],
            [g[5] for g in self._ground],
        )
        f = self._faces
        faces = _shapes([x[0] for x in f], [x[1] for x in f], [x[2] for x in f], [x[3] for x in f], [x[8] for x in f])
        unit_start = np.array([*self._units, len(f)], np.int64)
        unit_start = np.concatenate([unit_start[:-1][np.diff(unit_start) > 0], unit_start[-1:]])
        count = len(unit_start) - 1
        unit = np.repeat(np.arange(count), np.diff(unit_start))
        if count:
            low = np.minimum.reduceat(faces.bounds[:, :2], unit_start[:-1], axis=0)
            high = np.maximum.reduceat(faces.bounds[:, 2:], unit_start[:-1], axis=0)
            top = np.maximum.reduceat(faces.vertices[:, 2], faces.start[unit_start[:-1]])
        else:
            low = high = np.zeros((0, 2), np.float32)
            top = np.zeros(0, np.float32)
        solids = Solids(
            faces,
            np.array([x[4] for x in f], np.float32).reshape(-1, 3),
            np.array([x[5][0] if x[5] else 0.0 for x in f], np.float32),
            np.array([x[5][1] if x[5] else (0, 0, 0) for x in f], np.float32).reshape(-1, 3),
            np.array([x[6] for x in f], bool),
            np.array([x[7] for x in f], bool),
            np.array([x[9] for x in f], np.int64),
            unit,
            unit_start,
            np.hstack([low, high]),
            top,
        )
        t = np.concatenate([np.zeros((0, 8)), *self._trees]).astype(np.float32)
        seeds = np.random.default_rng([seed, 5]).integers(0, 2**32, len(t), dtype=np.uint32)
        trees = Trees(t[:, :2].copy(), t[:, 2].copy(), t[:, 3].copy(), t[:, 4:7].copy(), t[:, 7] > 0.5, seeds)
        s = np.concatenate([np.zeros((0, 4)), *self._slots]).astype(np.float32)
        slots = Slots(s[:, :2].copy(), s[:, 2].copy(), s[:, 3].copy())
        return World(seed, self.size_m, style, background, ground, solids, trees, slots)


def _shapes(
    polygons: list[Array], colour: list[Colour], material: list[int], phase: list[int], width: list[float]
) -> Shapes:
    count = np.array([len(p) for p in polygons], np.int64)
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    vertices = np.concatenate([np.zeros((0, 3)), *polygons]).astype(np.float32)
    if len(polygons):
        low = np.minimum.reduceat(vertices[:, :2], start[:-1], axis=0)
        high = np.maximum.reduceat(vertices[:, :2], start[:-1], axis=0)
    else:
        low = high = np.zeros((0, 2), np.float32)
    return Shapes(
        vertices,
        start,
        np.array(colour, np.float32).reshape(-1, 3),
        np.array(material, np.uint8),
        np.array(phase).astype(np.uint8),
        np.array(width, np.float32),
        np.hstack([low, high]),
    )
