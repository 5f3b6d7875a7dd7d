"""A block to build on: its frame of reference, its materials, and what many land uses have in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import buildings
from . import materials as mat
from .palette import Palette, mix, vary
from .scene import Colour, SceneBuilder
from .shapes import (
    Array,
    blob,
    clip_half_plane,
    clip_segments,
    densify,
    inside_convex,
    outward_normals,
    rectangle,
    smooth_line,
)


@dataclass(frozen=True)
class Site:
    """Where and with what a block is filled. `warp` takes plan coordinates to east, north (both m)."""

    b: SceneBuilder
    rng: np.random.Generator
    palette: Palette
    warp: Callable[[Array], Array]

    def outline(self, polygon: Array, step: float = 12.0) -> Array:
        """A plan polygon in east, north, with enough corners to follow the bent plan."""
        return self.warp(densify(np.vstack([polygon, polygon[:1]]), step)[:-1])

    def patch(
        self,
        polygon: Array,
        colour: Colour,
        material: int,
        layer: float,
        *,
        phase: int = 0,
        width: float = 99.0,
    ) -> None:
        """Paint a plan polygon."""
        self.b.ground(self.outline(polygon), colour, material, layer, phase=phase, width=width)

    def lawn(self, polygon: Array, layer: float = 1.0) -> None:
        """Grass of this place over a plan polygon."""
        self.patch(
            polygon,
            vary(self.rng, self.palette.grass, 8),
            mat.GRASS,
            layer,
            phase=int(self.rng.integers(256)),
        )

    def pave(self, polygon: Array, layer: float = 1.0) -> None:
        """Concrete, paving or asphalt over a plan polygon."""
        options = [
            (self.palette.concrete, mat.CONCRETE),
            (self.palette.pavement, mat.PAVING),
            (self.palette.local_asphalt, mat.ASPHALT),
        ]
        colour, material = options[int(self.rng.integers(3))]
        self.patch(polygon, vary(self.rng, colour, 9), material, layer)

    def scatter(self, polygon: Array, spacing: float, *, even: bool = False) -> Array:
        """Jittered points (N, 2), plan coordinates, about `spacing` metres apart inside a convex polygon.

        Unless `even`, they gather in some places and leave others open, as planted and wild trees do.
        """
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        n = np.maximum(np.ceil((high - low) / spacing).astype(int), 1)
        u, v = np.meshgrid(np.arange(n[0]) + 0.5, np.arange(n[1]) + 0.5)
        grid = np.stack([u.ravel() + 0.5 * (v.ravel() % 2), v.ravel()], axis=1)
        points = low + (grid + self.rng.uniform(-0.55, 0.55, grid.shape)) * spacing
        points = points[inside_convex(polygon, points)]
        if even:
            return points
        waves = self.rng.normal(0, 0.09, (3, 2))
        crowd = np.sin(points @ waves.T + self.rng.uniform(0, 2 * np.pi, 3)).sum(axis=1)
        points = points[self.rng.random(len(points)) < 0.45 + 0.3 * crowd]
        return points + self.rng.normal(0, 0.35 * spacing, points.shape)

    def plant(
        self,
        plan_points: Array,
        radius: tuple[float, float],
        *,
        needle_share: float | None = None,
        slim: float = 2.1,
        tone: float = 9.0,
    ) -> None:
        """Trees at plan points (N, 2), radii drawn between two bounds (m)."""
        n = len(plan_points)
        if n == 0:
            return
        share = self.palette.needle_share if needle_share is None else needle_share
        needle = self.rng.random(n) < share
        r = (radius[0] + (radius[1] - radius[0]) * self.rng.beta(1.3, 1.8, n)) * np.where(needle, 0.75, 1.0)
        colour = np.where(needle[:, None], self.palette.needle, self.palette.leaf)
        colour = colour + self.rng.normal(0, tone, (n, 1)) + self.rng.normal(0, tone / 3, (n, 3))
        self.b.trees(
            self.warp(plan_points),
            r,
            slim * r * np.where(needle, 1.7, 1.0) + 1.0,
            np.clip(colour, 12, 200),
            needle,
        )

    def stain(
        self,
        polygon: Array,
        reach: tuple[float, float],
        ground: Colour,
        colour: Colour,
        material: int,
        layer: float,
        rough: float = 0.4,
    ) -> None:
        """A ragged patch somewhere on the ground of a plan polygon that fades out towards its edge."""
        centre = self.rng.dirichlet(np.ones(len(polygon))) @ polygon
        outer = blob(self.rng, centre, self.rng.uniform(*reach), 36, rough)
        if not inside_convex(polygon, outer).all():
            return
        phase = int(self.rng.integers(256))
        for k, (size, share) in enumerate(((1.0, 0.3), (0.86, 0.6), (0.72, 0.85))):
            piece = centre + size * (outer - centre) * self.rng.uniform(0.96, 1.04, (len(outer), 1))
            tone = mix(ground, colour, share)
            self.patch(piece, tone, material, layer + 0.01 * k, phase=phase)

    def place(self, plan_quad: Array) -> Array | None:
        """The footprint of a plan quad if the ground there is free; it is then taken. None otherwise."""
        quad = self.warp(plan_quad)
        if not self.b.is_free(quad):
            return None
        self.b.occupy(quad)
        return quad

    def height(self, storeys: float) -> float:
        """Height in metres of a number of storeys in this place."""
        return storeys * self.palette.storey_m + float(self.rng.uniform(0, 0.8))


def frontages(polygon: Array, shortest: float) -> list[tuple[Array, Array, Array, float]]:
    """Edges worth building along: (start, direction, inward, length), longest first."""
    normal, _ = outward_normals(polygon)
    out = []
    for i in range(len(polygon)):
        edge = polygon[(i + 1) % len(polygon)] - polygon[i]
        length = float(np.hypot(*edge))
        if length >= shortest:
            out.append((polygon[i], edge / length, -normal[i], length))
    return sorted(out, key=lambda e: -e[3])


def lot(start: Array, direction: Array, inward: Array, s: float, width: float, setback: float, depth: float) -> Array:
    a = start + s * direction + setback * inward
    return np.array([a, a + width * direction, a + width * direction + depth * inward, a + depth * inward])


def depth_here(polygon: Array, start: Array, direction: Array, inward: Array, s: float) -> float:
    """How deep the block is behind a point of its frontage (m)."""
    a, z = clip_segments(polygon, (start + s * direction + 0.01 * inward)[None], inward)
    return float(np.hypot(*(z[0] - a[0]))) if len(a) else 0.0


def bounding(polygon: Array) -> Array:
    edge = polygon[1] - polygon[0]
    direction = edge / max(float(np.hypot(*edge)), 1e-6)
    normal = np.array([-direction[1], direction[0]])
    s, d = polygon @ direction, polygon @ normal
    return np.array(
        [
            a * direction + c * normal
            for a, c in ((s.min(), d.min()), (s.max(), d.min()), (s.max(), d.max()), (s.min(), d.max()))
        ]
    )


def centre_scaled(polygon: Array, factor: float) -> Array:
    """A polygon grown or shrunk about its centre."""
    centre = polygon.mean(axis=0)
    return centre + factor * (polygon - centre)


def stalls(site: Site, quad: Array, polygon: Array) -> None:
    """Rows of marked parking stalls on asphalt inside a plan quad, as far as it lies inside the block."""
    rng, palette = site.rng, site.palette
    ground = quad
    normal, offset = outward_normals(polygon)
    for n, o in zip(normal, offset, strict=True):
        ground = clip_half_plane(ground, n, o)
        if len(ground) < 3:
            return
    outline = site.outline(ground)
    if not site.b.is_free(outline, 0.95):
        return
    site.b.occupy(outline)
    tone = vary(rng, palette.local_asphalt if rng.random() < 0.7 else palette.concrete, 8)
    site.b.ground(outline, tone, mat.ASPHALT, 2.0)
    length, depth = buildings.lengths(quad)
    direction, inward = (quad[1] - quad[0]) / length, (quad[3] - quad[0]) / depth
    chance = rng.uniform(0.1, 0.85)
    y, first = 0.3, True
    while y + 5.0 < depth:
        rows = 1 if first else 2
        for k in range(rows):
            base = y + 5.0 * k
            if base + 5.0 > depth:
                break
            x = np.arange(0.4, length - 2.6, 2.6)
            starts = quad[0] + x[:, None] * direction + base * inward
            centres = starts + 1.3 * direction + 2.5 * inward
            keep = inside_convex(ground, centres, 1.6)
            if rng.random() < 0.8:
                for a in starts[keep]:
                    site.b.lines([site.warp(np.stack([a, a + 4.8 * inward]))], 0.14, palette.mark, mat.MARK, 2.3)
            c = site.warp(centres[keep])
            ahead = site.warp(centres[keep] + inward) - c
            site.b.slots(c, np.arctan2(ahead[:, 1], ahead[:, 0]), chance)
            if rng.random() < 0.25 and keep.any():
                spots = centres[keep][:: int(rng.integers(5, 9))] + 2.5 * inward
                p = site.warp(spots)
                site.b.trees(
                    p,
                    rng.uniform(1.2, 2.4, len(p)),
                    rng.uniform(4, 6, len(p)),
                    np.asarray(palette.leaf),
                    anywhere=True,
                )
        y += 5.0 * rows + 6.2
        first = False


def stacks(site: Site, polygon: Array, count: int, size: tuple[float, float]) -> None:
    """Containers, pallets, skips."""
    rng = site.rng
    tones: list[Colour] = [
        (160, 66, 52),
        (60, 92, 140),
        (80, 120, 84),
        (196, 150, 62),
        (188, 188, 184),
        (120, 82, 62),
    ]
    for _ in range(count):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        quad = site.place(rectangle(centre, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05), rng.uniform(*size), 2.4))
        if quad is not None:
            tone = vary(rng, tones[int(rng.integers(len(tones)))], 14)
            site.b.unit()
            site.b.prism(quad, 0, 2.6, buildings.shade(tone, 0.9), tone)


def paths(site: Site, polygon: Array, count: int) -> None:
    """Winding paths from edge to edge."""
    rng = site.rng
    colour = vary(rng, [site.palette.pavement, site.palette.soil, site.palette.concrete][int(rng.integers(3))], 8)
    width = rng.uniform(1.2, 3.2)
    for _ in range(count):
        ends = []
        for i in rng.choice(len(polygon), 2, replace=False):
            t = rng.uniform(0.1, 0.9)
            ends.append((1 - t) * polygon[i] + t * polygon[(i + 1) % len(polygon)])
        middle = rng.dirichlet(np.ones(len(polygon)), 2) @ polygon
        line = site.warp(smooth_line(np.array([ends[0], *middle, ends[1]]), 4.0))
        site.b.lines([line], width, colour, mat.PAVING, 1.7)
