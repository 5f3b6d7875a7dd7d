"""What stands on a block: one function per land use, all given a convex polygon in plan coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from . import buildings
from . import materials as mat
from .palette import Palette, vary
from .scene import Colour, SceneBuilder
from .shapes import (
    Array,
    blob,
    clip_segments,
    densify,
    inset,
    inside_convex,
    offset_line,
    outward_normals,
    rectangle,
    signed_area,
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

    def patch(self, polygon: Array, colour: Colour, material: int, layer: float, *, phase: int = 0,
              width: float = 99.0) -> None:
        """Paint a plan polygon."""
        self.b.ground(self.outline(polygon), colour, material, layer, phase=phase, width=width)

    def lawn(self, polygon: Array, layer: float = 1.0) -> None:
        """Grass of this place over a plan polygon."""
        self.patch(polygon, vary(self.rng, self.palette.grass, 8), mat.GRASS, layer, phase=int(self.rng.integers(256)))

    def pave(self, polygon: Array, layer: float = 1.0) -> None:
        """Concrete, paving or asphalt over a plan polygon."""
        options = [(self.palette.concrete, mat.CONCRETE), (self.palette.pavement, mat.PAVING),
                   (self.palette.local_asphalt, mat.ASPHALT)]
        colour, material = options[int(self.rng.integers(3))]
        self.patch(polygon, vary(self.rng, colour, 9), material, layer)

    def scatter(self, polygon: Array, spacing: float) -> Array:
        """Jittered points (N, 2), plan coordinates, about `spacing` metres apart inside a convex polygon."""
        low, high = polygon.min(axis=0), polygon.max(axis=0)
        n = np.maximum(np.ceil((high - low) / spacing).astype(int), 1)
        u, v = np.meshgrid(np.arange(n[0]) + 0.5, np.arange(n[1]) + 0.5)
        grid = np.stack([u.ravel() + 0.5 * (v.ravel() % 2), v.ravel()], axis=1)
        points = low + (grid + self.rng.uniform(-0.55, 0.55, grid.shape)) * spacing
        return points[inside_convex(polygon, points)]

    def plant(self, plan_points: Array, radius: tuple[float, float], *, needle_share: float | None = None,
              slim: float = 2.1, tone: float = 9.0) -> None:
        """Trees at plan points (N, 2), radii drawn between two bounds (m)."""
        n = len(plan_points)
        if n == 0:
            return
        share = self.palette.needle_share if needle_share is None else needle_share
        needle = self.rng.random(n) < share
        r = self.rng.uniform(*radius, n) * np.where(needle, 0.75, 1.0)
        colour = np.where(needle[:, None], self.palette.needle, self.palette.leaf)
        colour = colour + self.rng.normal(0, tone, (n, 1)) + self.rng.normal(0, tone / 3, (n, 3))
        self.b.trees(self.warp(plan_points), r, slim * r * np.where(needle, 1.7, 1.0) + 1.0, np.clip(colour, 12, 200),
                     needle)

    def stain(self, polygon: Array, reach: tuple[float, float], ground: Colour, colour: Colour, material: int, layer: float,
              rough: float = 0.4) -> None:
        """A ragged patch somewhere on the ground of a plan polygon that fades out towards its edge."""
        centre = self.rng.dirichlet(np.ones(len(polygon))) @ polygon
        outer = blob(self.rng, centre, self.rng.uniform(*reach), 36, rough)
        if not inside_convex(polygon, outer).all():
            return
        phase = int(self.rng.integers(256))
        for k, (size, share) in enumerate(((1.0, 0.3), (0.86, 0.6), (0.72, 0.85))):
            piece = centre + size * (outer - centre) * self.rng.uniform(0.96, 1.04, (len(outer), 1))
            tone = tuple(g + share * (c - g) for g, c in zip(ground, colour, strict=True))
            self.patch(piece, tone, material, layer + 0.01 * k, phase=phase)  # type: ignore[arg-type]

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


def fill(site: Site, use: str, polygon: Array) -> None:
    """Build a block. `polygon` is convex, counter-clockwise, in plan coordinates."""
    _FILL[use](site, polygon)


def _frontages(polygon: Array, shortest: float) -> list[tuple[Array, Array, Array, float]]:
    """Edges worth building along: (start, direction, inward, length), longest first."""
    normal, _ = outward_normals(polygon)
    out = []
    for i in range(len(polygon)):
        edge = polygon[(i + 1) % len(polygon)] - polygon[i]
        length = float(np.hypot(*edge))
        if length >= shortest:
            out.append((polygon[i], edge / length, -normal[i], length))
    return sorted(out, key=lambda e: -e[3])


def _lot(start: Array, direction: Array, inward: Array, s: float, width: float, setback: float, depth: float) -> Array:
    a = start + s * direction + setback * inward
    return np.array([a, a + width * direction, a + width * direction + depth * inward, a + depth * inward])


def _depth_here(polygon: Array, start: Array, direction: Array, inward: Array, s: float) -> float:
    """How deep the block is behind a point of its frontage (m)."""
    a, z = clip_segments(polygon, (start + s * direction + 0.01 * inward)[None], inward)
    return float(np.hypot(*(z[0] - a[0]))) if len(a) else 0.0


def _rows(site: Site, polygon: Array) -> None:
    """Terraces shoulder to shoulder along the streets, yards and sheds behind."""
    rng = site.rng
    site.pave(polygon) if rng.random() < 0.65 else site.lawn(polygon)
    frontage = rng.uniform(4.5, 9.0)
    usual = rng.uniform(9, 22)
    storeys = float(np.clip(rng.normal(3.0, 0.9) * site.palette.height_scale, 1.5, 7))
    gap = rng.uniform(0.02, 0.2)
    for start, direction, inward, length in _frontages(polygon, 12):
        s = rng.uniform(0, 1.5)
        run = 0
        setback, depth, floors = 0.0, usual, storeys
        while s < length - frontage * 0.7:
            if run <= 0:
                run = int(rng.integers(2, 9))
                setback = rng.uniform(0, 1.8) if rng.random() < 0.7 else rng.uniform(2, 5)
                depth = usual * rng.uniform(0.8, 1.25)
                floors = storeys * rng.uniform(0.75, 1.3)
                form, roof = site.palette.roof(rng)
                shared = rng.random() < 0.3
            width = min(frontage * rng.uniform(0.75, 1.4) * (2.0 if rng.random() < 0.1 else 1.0), length - s)
            here = min(depth * rng.uniform(0.88, 1.1), 0.5 * _depth_here(polygon, start, direction, inward, s) - 1.0)
            if here > 4.5 and rng.random() > gap:
                quad = site.place(_lot(start, direction, inward, s, width, setback, here))
                if quad is not None:
                    height = site.height(max(1.0, round(floors + rng.normal(0, 0.6))))
                    if shared and form != "flat":
                        buildings.gable(site.b, rng, quad, height, site.palette.wall(rng), vary(rng, roof, 6),
                                        pitch=0.5, hip=0.0)
                    else:
                        buildings.house(site.b, rng, site.palette, quad, height)
                    if rng.random() < 0.45:
                        back = _lot(start, direction, inward, s + rng.uniform(0, 0.3) * width, width * rng.uniform(0.4, 0.7),
                                    setback + here + rng.uniform(0, 1), rng.uniform(2, 4.5))
                        if inside_convex(polygon, back).all():
                            extra = site.place(back)
                            if extra is not None:
                                buildings.house(site.b, rng, site.palette, extra, site.height(1), windows=False)
            s += width
            run -= 1
    _infill(site, polygon, rng.choice([0.0, 0.3, 0.9]), storeys)
    site.plant(site.scatter(polygon, rng.uniform(7, 18)), (1.0, 3.2))


def _infill(site: Site, polygon: Array, density: float, storeys: float) -> None:
    """Back buildings, workshops and sheds wherever a yard is still free."""
    rng = site.rng
    _, direction, inward, _ = _frontages(polygon, 0.0)[0]
    for centre in site.scatter(polygon, 6.5):
        if rng.random() > density:
            continue
        size = rng.uniform(4, 13, 2)
        plan = _lot(centre, direction, inward, -0.5 * size[0], size[0], -0.5 * size[1], size[1])
        if not inside_convex(polygon, plan).all():
            continue
        quad = site.place(plan)
        if quad is not None:
            floors = max(1.0, round(rng.uniform(0.2, 1.0) * storeys))
            buildings.house(site.b, rng, site.palette, quad, site.height(floors), windows=floors > 1)


def _detached(site: Site, polygon: Array) -> None:
    """Single houses on garden lots: drives, sheds, hedges, pools, trees."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    lot_width = rng.uniform(13, 27)
    house_size = rng.uniform(8, 14)
    tidy = rng.uniform(0, 1)
    pools = 0.25 if rng.random() < 0.25 else 0.03
    for start, direction, inward, length in _frontages(polygon, 16):
        s = rng.uniform(0.5, 4)
        setback = rng.uniform(2.5, 9)
        while s < length - 9:
            width = lot_width * rng.uniform(0.75, 1.35)
            deep = 0.5 * _depth_here(polygon, start, direction, inward, min(s + 0.5 * width, length))
            lot = _lot(start, direction, inward, s, min(width, length - s), 0.0, max(deep, 2.0))
            inner = site.rng.random()
            if inner < 0.75:
                site.patch(lot, vary(rng, palette.grass, 13), mat.GRASS, 1.5, phase=int(rng.integers(256)))
            elif inner < 0.87:
                site.pave(lot, 1.5)
            if rng.random() < 0.5:
                _hedge(site, lot[1], lot[2])
            here = min(house_size * rng.uniform(0.75, 1.25), deep - setback - 1)
            across = min(house_size * rng.uniform(0.85, 1.5), width - 3)
            s0 = s + rng.uniform(1, max(1.1, width - across - 1))
            s += width
            if here < 5.5 or across < 5.5 or rng.random() < 0.06:
                continue
            front = setback + rng.normal(0, 1.8) * (1 - tidy)
            plan = _lot(start, direction, inward, s0, across, max(front, 0.8), here)
            turn = rng.normal(0, 0.25) * (1 - tidy) * (rng.random() < 0.5)
            quad = site.warp(plan)
            centre = quad.mean(axis=0)
            c, sn = np.cos(turn), np.sin(turn)
            quad = centre + (quad - centre) @ np.array([[c, sn], [-sn, c]])
            if not site.b.is_free(quad):
                continue
            site.b.occupy(quad)
            height = site.height(1.0 if rng.random() < 0.4 else 2.0)
            buildings.house(site.b, rng, palette, quad, height)
            if rng.random() < 0.5:
                u0, u1 = sorted(rng.uniform(0, 1, 2)) if rng.random() < 0.3 else (0.0, rng.uniform(0.35, 0.55))
                wing = site.warp(_lot(start, direction, inward, s0 + u0 * across, max((u1 - u0) * across, 4),
                                      max(front, 0.8) + 0.8 * here, rng.uniform(3.5, 8)))
                buildings.house(site.b, rng, palette, wing, height * rng.uniform(0.6, 1.0))
                site.b.occupy(wing)
            _garden(site, plan, start, direction, inward, s0, across, front, here, deep, pools)
    site.plant(site.scatter(polygon, rng.uniform(8, 22)), (1.0, 4.2))


def _garden(site: Site, plan: Array, start: Array, direction: Array, inward: Array, s0: float, across: float, front: float,
            here: float, deep: float, pools: float) -> None:
    """Drive, terrace, shed or pool of a detached house."""
    rng, palette = site.rng, site.palette
    drive = _lot(start, direction, inward, s0 + rng.uniform(-2.8, across - 3), rng.uniform(2.6, 5.5), -0.5,
                 max(front, 0.8) + rng.uniform(0, here))
    colour = [palette.concrete, palette.local_asphalt, palette.pavement][int(rng.integers(3))]
    site.patch(drive, vary(rng, colour, 12), mat.CONCRETE, 1.8)
    middle = site.warp(drive.mean(axis=0))
    ahead = site.warp(drive.mean(axis=0) + inward) - middle
    site.b.slots(middle[None], np.array([np.arctan2(ahead[1], ahead[0])]), 0.45)
    if rng.random() < 0.6:
        terrace = _lot(start, direction, inward, s0 + rng.uniform(0, 0.5) * across, rng.uniform(3, 7), front + here - 0.3,
                       rng.uniform(2, 5))
        site.patch(terrace, vary(rng, palette.pavement, 14), mat.PAVING, 1.8)
    back = deep - front - here
    if back > 7 and rng.random() < pools:
        site.patch(_lot(start, direction, inward, s0 + 0.2 * across, rng.uniform(5, 9), front + here + 3.2, 4),
                   vary(rng, palette.pavement, 10), mat.PAVING, 1.8)
        site.patch(_lot(start, direction, inward, s0 + 0.2 * across + 0.8, rng.uniform(3.5, 6.5), front + here + 3.9, 2.6),
                   vary(rng, (84, 172, 196), 12), mat.POOL, 1.9)
    elif back > 5 and rng.random() < 0.6:
        shed = site.place(_lot(start, direction, inward, s0 + rng.uniform(-2, across - 2), rng.uniform(2.2, 4.5),
                               deep - rng.uniform(3.5, 6), rng.uniform(2, 3.5)))
        if shed is not None:
            buildings.house(site.b, rng, palette, shed, 2.4, windows=False, detail=False)


def _hedge(site: Site, a: Array, z: Array) -> None:
    length = float(np.hypot(*(z - a)))
    n = int(length / 1.5)
    if n > 2:
        t = np.linspace(0, 1, n)[:, None]
        points = site.warp(a + (z - a) * t + site.rng.normal(0, 0.15, (n, 2)))
        r = site.rng.uniform(0.7, 1.1, n)
        site.b.trees(points, r, 1.6 * r, np.asarray(site.palette.leaf) + site.rng.normal(0, 4, (n, 1)))


def _apartments(site: Site, polygon: Array) -> None:
    """Slabs and towers in green or paved grounds with parking."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon) if rng.random() < 0.6 else site.pave(polygon)
    storeys = float(np.clip(rng.gamma(4, 1.6) * palette.height_scale, 3, 14))
    for start, direction, inward, length in _frontages(polygon, 25):
        s = rng.uniform(3, 8)
        while s < length - 18:
            width = min(rng.uniform(16, 52), length - s - 2)
            depth = rng.uniform(10, 16)
            setback = rng.uniform(3, 12)
            s += width + rng.uniform(4, 16)
            plan = _lot(start, direction, inward, s - width, width, setback, depth)
            if not inside_convex(polygon, plan).all():
                continue
            quad = site.place(plan)
            if quad is None:
                continue
            height = site.height(round(storeys * rng.uniform(0.7, 1.25)))
            wall, roof = palette.wall(rng), palette.roof(rng, flat_only=True)[1]
            buildings.flat(site.b, rng, quad, height, wall, roof)
            if rng.random() < 0.4:
                wing = site.warp(_lot(start, direction, inward, s - width, rng.uniform(9, 14), setback + depth,
                                      rng.uniform(8, 22)))
                if site.b.is_free(wing):
                    site.b.occupy(wing)
                    buildings.flat(site.b, rng, wing, height, wall, roof)
            if rng.random() < 0.5:
                _stalls(site, _lot(start, direction, inward, s - width, width, setback + depth + 2, 11.0), polygon)
    _paths(site, polygon, 2)
    site.plant(site.scatter(polygon, rng.uniform(8, 16)), (1.5, 4.5))


def _commercial(site: Site, polygon: Array) -> None:
    """Large irregular buildings filling a block, some with courts."""
    rng, palette = site.rng, site.palette
    site.pave(polygon)
    storeys = float(np.clip(rng.gamma(3, 1.5) * palette.height_scale, 1, 13))
    for start, direction, inward, length in _frontages(polygon, 14):
        s = rng.uniform(0, 3)
        while s < length - 10:
            width = min(rng.uniform(11, 38), length - s)
            depth = min(rng.uniform(12, 34), 0.5 * _depth_here(polygon, start, direction, inward, s) - 0.5)
            if depth > 7:
                quad = site.place(_lot(start, direction, inward, s, width, rng.uniform(0, 2.5), depth))
                if quad is not None:
                    height = site.height(max(1, round(storeys * rng.uniform(0.5, 1.6))))
                    wall, roof = palette.wall(rng), palette.roof(rng, flat_only=True)[1]
                    buildings.flat(site.b, rng, quad, height, wall, roof, clutter=1.5)
                    if rng.random() < 0.35 and min(width, depth) > 14:
                        u, v = rng.uniform(0.05, 0.4, 2)
                        _tower(site, buildings.part(quad, u, u + 0.5, v, v + 0.5), height, wall, roof)
            s += width + (rng.uniform(0, 0.5) if rng.random() < 0.7 else rng.uniform(3, 9))
    middle = inset(polygon, 30.0)
    if len(middle) >= 3 and signed_area(middle) > 300:
        _stalls(site, middle[:4] if len(middle) == 4 else _bounding(middle), polygon)
    site.plant(site.scatter(polygon, 16.0), (1.2, 3.0))


def _tower(site: Site, quad: Array, base: float, wall: Colour, roof: Colour) -> None:
    """A set-back upper part on a building."""
    top = base + site.height(float(site.rng.integers(1, 6)))
    site.b.prism(quad, base, top, wall, vary(site.rng, roof, 15), base=(base, roof), windows=True)


def _bounding(polygon: Array) -> Array:
    edge = polygon[1] - polygon[0]
    direction = edge / max(float(np.hypot(*edge)), 1e-6)
    normal = np.array([-direction[1], direction[0]])
    s, d = polygon @ direction, polygon @ normal
    return np.array([a * direction + c * normal for a, c in
                     ((s.min(), d.min()), (s.max(), d.min()), (s.max(), d.max()), (s.min(), d.max()))])


def _stalls(site: Site, quad: Array, polygon: Array) -> None:
    """Rows of marked parking stalls on asphalt inside a plan quad, as far as it lies inside the block."""
    rng, palette = site.rng, site.palette
    ground = quad
    normal, offset = outward_normals(polygon)
    from .shapes import clip_half_plane
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
                site.b.trees(p, rng.uniform(1.2, 2.4, len(p)), rng.uniform(4, 6, len(p)), np.asarray(palette.leaf),
                             anywhere=True)
        y += 5.0 * rows + 6.2
        first = False


def _car_park(site: Site, polygon: Array) -> None:
    """A parking area with planted edges."""
    site.lawn(polygon)
    inner = inset(polygon, site.rng.uniform(1.0, 3.0))
    if len(inner) >= 3:
        _stalls(site, _bounding(inner), inner)
    site.plant(site.scatter(polygon, 8.0), (1.3, 3.0))


def _industrial(site: Site, polygon: Array) -> None:
    """Halls in paved yards with trucks, tanks, stacks."""
    rng, palette = site.rng, site.palette
    site.pave(polygon)
    for start, direction, inward, length in _frontages(polygon, 25)[:3]:
        s = rng.uniform(3, 9)
        while s < length - 16:
            width = min(rng.uniform(16, 75), length - s - 2)
            depth = min(rng.uniform(18, 60), _depth_here(polygon, start, direction, inward, s) - 8)
            setback = rng.uniform(3, 14)
            s += width + rng.uniform(3, 14)
            if depth < 12:
                continue
            plan = _lot(start, direction, inward, s - width, width, setback, depth)
            if not inside_convex(polygon, plan, -1.0).all():
                continue
            quad = site.place(plan)
            if quad is None:
                continue
            buildings.hall(site.b, rng, palette, quad)
            if rng.random() < 0.5:
                office = site.place(_lot(start, direction, inward, s - width, rng.uniform(8, 18), setback - 8, 8))
                if office is not None:
                    buildings.flat(site.b, rng, office, site.height(2), palette.wall(rng), palette.roof(rng, flat_only=True)[1])
    for _ in range(int(rng.poisson(1.5))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        radius = rng.uniform(2.5, 9)
        square = site.warp(rectangle(centre, 0.0, 2 * radius, 2 * radius))
        if site.b.is_free(square) and inside_convex(polygon, centre[None], radius + 2)[0]:
            site.b.occupy(square)
            site.b.unit()
            buildings.tank(site.b, rng, square.mean(axis=0), radius, 0.0, rng.uniform(5, 15))
    _stalls(site, _bounding(inset(polygon, 6.0)) if len(inset(polygon, 6.0)) >= 3 else polygon[:4], polygon) \
        if rng.random() < 0.25 and len(polygon) >= 4 else None
    _stacks(site, polygon, int(rng.poisson(5)), (2.4, 8.0))
    site.plant(site.scatter(polygon, 22.0), (1.3, 3.2))


def _stacks(site: Site, polygon: Array, count: int, size: tuple[float, float]) -> None:
    """Containers, pallets, skips."""
    rng = site.rng
    tones: list[Colour] = [(160, 66, 52), (60, 92, 140), (80, 120, 84), (196, 150, 62), (188, 188, 184), (120, 82, 62)]
    for _ in range(count):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        quad = site.place(rectangle(centre, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05), rng.uniform(*size), 2.4))
        if quad is not None:
            tone = vary(rng, tones[int(rng.integers(len(tones)))], 14)
            site.b.unit()
            site.b.prism(quad, 0, 2.6, buildings.shade(tone, 0.9), tone)


def _containers(site: Site, polygon: Array) -> None:
    """A yard of stacked containers in bays."""
    rng = site.rng
    site.pave(polygon)
    tones: list[Colour] = [(160, 66, 52), (60, 92, 140), (80, 120, 84), (196, 150, 62), (200, 200, 196), (120, 82, 62),
                           (176, 96, 60), (50, 70, 96)]
    frame = _bounding(polygon)
    length, depth = buildings.lengths(frame)
    direction, inward = (frame[1] - frame[0]) / length, (frame[3] - frame[0]) / depth
    y = rng.uniform(3, 8)
    while y < depth - 6:
        x = rng.uniform(3, 10)
        tiers = int(rng.integers(1, 4))
        while x < length - 14:
            step = 12.4 if rng.random() < 0.7 else 6.3
            if rng.random() < 0.82:
                for k in range(int(rng.integers(1, 4))):
                    quad_plan = _lot(frame[0], direction, inward, x, step - 0.3, y + 2.6 * k, 2.45)
                    if inside_convex(polygon, quad_plan, 1.0).all():
                        quad = site.place(quad_plan)
                        if quad is not None:
                            tone = vary(rng, tones[int(rng.integers(len(tones)))], 10)
                            site.b.unit()
                            site.b.prism(quad, 0, 2.6 * int(rng.integers(1, tiers + 1)), buildings.shade(tone, 0.9), tone)
            x += step
        y += rng.uniform(10, 19)


def _paths(site: Site, polygon: Array, count: int) -> None:
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


def _park(site: Site, polygon: Array) -> None:
    """Lawns, paths, clumps of trees, now and then a pond, a pavilion, a playground."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    span = np.sqrt(signed_area(polygon))
    for _ in range(int(rng.integers(2, 7))):
        site.stain(polygon, (0.08 * span, 0.25 * span), palette.grass, vary(rng, palette.grass, 12), mat.GRASS, 1.2, 0.25)
    _paths(site, polygon, int(rng.integers(2, 5)))
    if rng.random() < 0.45:
        centre = rng.dirichlet(np.ones(len(polygon)) * 3) @ polygon
        pond = blob(rng, centre, rng.uniform(0.1, 0.22) * span, 20)
        if inside_convex(polygon, pond, 2.0).all():
            outline = site.outline(pond, 4.0)
            site.b.ground(centre_scaled(outline, 1.12), vary(rng, palette.soil, 10), mat.SOIL, 1.75)
            site.b.ground(outline, palette.water, mat.WATER, 1.8)
            site.b.occupy(outline)
    if rng.random() < 0.6:
        centre = rng.dirichlet(np.ones(len(polygon)) * 3) @ polygon
        plaza = blob(rng, centre, rng.uniform(6, 16), 16, 0.1)
        site.patch(plaza, vary(rng, palette.pavement, 14), mat.PAVING, 1.78)
        hut = site.place(rectangle(centre, rng.uniform(0, 3), rng.uniform(4, 9), rng.uniform(4, 8)))
        if hut is not None:
            buildings.gable(site.b, rng, hut, 3.2, palette.wall(rng), palette.roof(rng)[1], hip=1.0)
    if rng.random() < 0.4:
        _court(site, polygon)
    for _ in range(int(rng.integers(3, 9))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        clump = centre + rng.normal(0, rng.uniform(5, 16), (int(rng.integers(4, 28)), 2))
        site.plant(clump[inside_convex(polygon, clump)], (1.8, 5.0))
    site.plant(site.scatter(polygon, rng.uniform(14, 30)), (1.6, 5.2))


def centre_scaled(polygon: Array, factor: float) -> Array:
    """A polygon grown or shrunk about its centre."""
    centre = polygon.mean(axis=0)
    return centre + factor * (polygon - centre)


def _court(site: Site, polygon: Array) -> None:
    """A painted ball court."""
    rng = site.rng
    length, width = [(28.0, 15.0), (34.0, 17.0), (40.0, 20.0)][int(rng.integers(3))]
    centre = rng.dirichlet(np.ones(len(polygon)) * 3) @ polygon
    frame = rectangle(centre, rng.choice([0, np.pi / 2]) + rng.normal(0, 0.1), length, width)
    if not inside_convex(polygon, frame, 1.0).all() or site.place(frame) is None:
        return
    tones: list[Colour] = [(58, 110, 150), (70, 122, 88), (168, 84, 62), (120, 116, 112), (86, 100, 160)]
    first, second = rng.choice(len(tones), 2, replace=False)
    site.patch(frame, vary(rng, tones[first], 8), mat.SYNTHETIC, 2.0)
    inner = centre_scaled(frame, 0.82)
    site.patch(inner, vary(rng, tones[second], 8), mat.SYNTHETIC, 2.1)
    loop = np.vstack([inner, inner[:1]])
    middle = np.stack([0.5 * (inner[0] + inner[1]), 0.5 * (inner[3] + inner[2])])
    angle = np.linspace(0, 2 * np.pi, 17)
    circle = centre + 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    site.b.lines([site.warp(loop[i:i + 2]) for i in range(4)] + [site.warp(middle), site.warp(circle)], 0.14,
                 (236, 236, 232), mat.MARK, 2.2)


def _sports(site: Site, polygon: Array) -> None:
    """A football pitch, often inside a running track, with stands and courts."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    centre = polygon.mean(axis=0)
    _, direction, _, _ = _frontages(polygon, 0.0)[0]
    room = inset(polygon, 3.0)
    angle = float(np.arctan2(direction[1], direction[0]))
    for scale in (1.0, 0.85, 0.7, 0.55, 0.42):
        track = _stadium(centre, angle, 84 * scale, 44 * scale)
        if len(room) >= 3 and inside_convex(room, track).all() and site.b.is_free(site.outline(track)):
            break
    else:
        _court(site, polygon)
        _park(site, polygon)
        return
    site.b.occupy(site.outline(track))
    with_track = rng.random() < 0.6
    grass = vary(rng, (82, 112, 62), 10)
    if with_track:
        tone = vary(rng, [(170, 88, 68), (150, 74, 62), (84, 108, 150), (178, 108, 84)][int(rng.integers(4))], 8)
        site.b.ground(site.outline(track, 5.0), tone, mat.SYNTHETIC, 2.0)
        for k in range(1, 6):
            lane = _stadium(centre, angle, 84 * scale, (44 - 1.22 * k * 1.2) * scale)
            loop = site.warp(np.vstack([lane, lane[:1]]))
            site.b.lines([loop[i:i + 2] for i in range(len(loop) - 1)], 0.08, (226, 214, 206), mat.MARK, 2.1)
        site.b.ground(site.outline(_stadium(centre, angle, 84 * scale, 35.5 * scale), 5.0), grass, mat.GRASS, 2.2)
    pitch = rectangle(centre, angle, 100 * scale, 62 * scale)
    stripes = int(rng.integers(6, 16))
    for k in range(stripes):
        piece = buildings.part(pitch, k / stripes, (k + 1) / stripes, 0, 1)
        site.patch(piece, buildings.shade(grass, 1.0 + (0.09 if k % 2 else 0.0)), mat.GRASS, 2.3)
    white: Colour = (236, 238, 234)
    boxes = [(0.0, 1.0, 0.0, 1.0), (0.0, 0.16, 0.2, 0.8), (0.84, 1.0, 0.2, 0.8), (0.0, 0.055, 0.36, 0.64),
             (0.945, 1.0, 0.36, 0.64), (0.0, 0.5, 0.0, 1.0)]
    for u0, u1, v0, v1 in boxes:
        box = buildings.part(centre_scaled(pitch, 0.95), u0, u1, v0, v1)
        loop = site.warp(np.vstack([box, box[:1]]))
        site.b.lines([loop[i:i + 2] for i in range(4)], 0.14, white, mat.MARK, 2.4)
    ring = np.linspace(0, 2 * np.pi, 25)
    site.b.lines([site.warp(centre + 9.15 * scale * np.stack([np.cos(ring), np.sin(ring)], axis=1))], 0.14, white,
                 mat.MARK, 2.4)
    for mouth in (0.02, 0.98):
        worn = blob(rng, buildings.at(pitch, mouth, 0.5), 5 * scale)
        site.patch(worn, vary(rng, palette.soil, 10), mat.SOIL, 2.35)
    if rng.random() < 0.6:
        normal = np.array([-np.sin(angle), np.cos(angle)])
        stand = site.place(rectangle(centre + (50 * scale) * normal, angle, rng.uniform(30, 70) * scale, 9))
        if stand is not None:
            buildings.shed(site.b, rng, stand, 7.0, palette.wall(rng), palette.roof(rng)[1], windows=False)
    for _ in range(int(rng.integers(0, 4))):
        _court(site, polygon)
    site.plant(site.scatter(polygon, rng.uniform(9, 18)), (1.6, 4.2))


def _stadium(centre: Array, angle: float, straight: float, radius: float) -> Array:
    """The outline of a running track: two straights and two half circles."""
    t = np.linspace(-np.pi / 2, np.pi / 2, 14)
    right = np.stack([0.5 * straight + radius * np.cos(t), radius * np.sin(t)], axis=1)
    left = -right
    outline = np.vstack([right, left])
    c, s = np.cos(angle), np.sin(angle)
    return centre + outline @ np.array([[c, s], [-s, c]])


def _school(site: Site, polygon: Array) -> None:
    """Long winged buildings round a yard with a court."""
    rng, palette = site.rng, site.palette
    site.pave(polygon) if rng.random() < 0.5 else site.lawn(polygon)
    wall, roof = palette.wall(rng), palette.roof(rng)
    height = site.height(float(rng.integers(2, 5)))
    depth = rng.uniform(10, 15)
    for start, direction, inward, length in _frontages(polygon, 40)[: int(rng.integers(1, 4))]:
        s0, setback = rng.uniform(5, 12), rng.uniform(4, 12)
        quad_plan = _lot(start, direction, inward, s0, min(length - 2 * s0, rng.uniform(35, 90)), setback, depth)
        if not inside_convex(polygon, quad_plan).all():
            continue
        quad = site.place(quad_plan)
        if quad is None:
            continue
        if roof[0] == "flat":
            buildings.flat(site.b, rng, quad, height, wall, roof[1])
        else:
            buildings.gable(site.b, rng, quad, height, wall, roof[1], pitch=0.4, hip=rng.choice([0, 1]))
    for _ in range(3):
        _court(site, polygon)
    yard = blob(rng, polygon.mean(axis=0), 0.2 * np.sqrt(signed_area(polygon)), 18, 0.15)
    if inside_convex(polygon, yard).all():
        site.patch(yard, vary(rng, palette.grass, 14), mat.GRASS, 1.3, phase=int(rng.integers(256)))
    site.plant(site.scatter(polygon, rng.uniform(9, 16)), (1.6, 4.5))


def _field(site: Site, polygon: Array) -> None:
    """A crop: broad strips, rows, tramlines, headland, wet patches, hedge or ditch at the edges."""
    rng, palette = site.rng, site.palette
    margin = rng.uniform(0.5, 3.0)
    site.lawn(polygon)
    field = inset(polygon, margin)
    if len(field) < 3:
        return
    phase = int(rng.integers(256))
    base = vary(rng, (112, 108, 72) if rng.random() < 0.6 else palette.soil, 12)
    site.patch(field, base, mat.CROP, 1.1, phase=phase)
    edge = field[1] - field[0]
    angle = float(np.arctan2(edge[1], edge[0])) + (0.0 if rng.random() < 0.8 else rng.normal(0, 0.3))
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    reach = field @ normal
    for _ in range(int(rng.integers(3, 14))):
        site.stain(field, (3, 24), base, buildings.shade(base, rng.uniform(0.84, 1.16)), mat.CROP, 1.2)

    def strips(step: float, width: float, tone: Callable[[], Colour], layer: float, inner: Array) -> None:
        offsets = np.arange(reach.min() + rng.uniform(0, step), reach.max(), step)
        first, last = clip_segments(inner, offsets[:, None] * normal, direction)
        for a, z in zip(first, last, strict=True):
            line = site.warp(densify(np.stack([a, z]), 25.0))
            if site.b.in_reach(line):
                site.b.lines([line], width, tone(), mat.CROP, layer, phase=phase)

    kind = rng.random()
    if kind < 0.55:
        step = rng.uniform(4, 22)
        amount = rng.uniform(0.02, 0.07)
        strips(step, step * rng.uniform(0.4, 1.0), lambda: buildings.shade(base, 1 + amount * rng.standard_normal()), 1.3,
               field)
    if kind > 0.35:
        step = rng.uniform(0.9, 3.2)
        factor = rng.choice([0.8, 0.87, 1.12])
        strips(step, 0.45 * step, lambda: buildings.shade(base, factor + 0.02 * rng.standard_normal()), 1.4, field)
    if rng.random() < 0.6:
        step = rng.uniform(10, 30)
        for shift in (-0.9, 0.9):
            inner = inset(field, rng.uniform(3, 7))
            if len(inner) >= 3:
                offsets = np.arange(reach.min() + 0.5 * step, reach.max(), step) + shift
                first, last = clip_segments(inner, offsets[:, None] * normal, direction)
                for a, z in zip(first, last, strict=True):
                    site.b.lines([site.warp(densify(np.stack([a, z]), 25.0))], 0.45, buildings.shade(base, 0.86), mat.CROP,
                                 1.5, phase=phase)
    for i in range(len(polygon)):
        if rng.random() < 0.3:
            a, z = polygon[i], polygon[(i + 1) % len(polygon)]
            n = int(np.hypot(*(z - a)) / rng.uniform(2.5, 9))
            if n > 1:
                t = rng.uniform(0, 1, (n, 1))
                site.plant(a + (z - a) * t + rng.normal(0, 0.8, (n, 2)), (0.9, 3.6))
    if rng.random() < 0.3:
        site.plant(rng.dirichlet(np.ones(len(field)), int(rng.integers(1, 4))) @ field, (3.0, 5.5), needle_share=0.1)
    if rng.random() < 0.08:
        centre = rng.dirichlet(np.ones(len(field)) * 2) @ field
        hut = site.place(rectangle(centre, angle, rng.uniform(4, 12), rng.uniform(4, 8)))
        if hut is not None:
            buildings.house(site.b, rng, palette, hut, 3.2, windows=False)


def _meadow(site: Site, polygon: Array) -> None:
    """Grassland with trodden tracks, wet and dry patches, bushes."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    for _ in range(int(rng.integers(4, 18))):
        colour, material = (palette.grass, mat.GRASS) if rng.random() < 0.85 else (palette.soil, mat.SOIL)
        site.stain(polygon, (3, 30), palette.grass, vary(rng, colour, 12), material, 1.2)
    if rng.random() < 0.7:
        ends = rng.dirichlet(np.ones(len(polygon)) * 0.4, 4) @ polygon
        line = site.warp(smooth_line(ends, 5.0))
        for d in (-0.8, 0.8):
            site.b.lines([offset_line(line, d)], 0.5, vary(rng, palette.soil, 10), mat.SOIL, 1.6)
    for _ in range(int(rng.integers(1, 6))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        clump = centre + rng.normal(0, rng.uniform(3, 14), (int(rng.integers(2, 22)), 2))
        site.plant(clump[inside_convex(polygon, clump)], (0.8, 4.2))


def _forest(site: Site, polygon: Array) -> None:
    """Closed or open woodland of mixed sizes, with clearings and a track."""
    rng, palette = site.rng, site.palette
    floor = vary(rng, buildings.shade(palette.leaf, 0.85), 5)
    site.patch(polygon, floor, mat.FOREST_FLOOR, 1.0)
    size = rng.uniform(2.0, 4.2)
    needle = float(np.clip(palette.needle_share + rng.normal(0, 0.3), 0, 1))
    points = site.scatter(polygon, size * rng.uniform(1.15, 1.9))
    keep = np.ones(len(points), bool)
    for _ in range(int(rng.integers(0, 5))):
        centre = rng.dirichlet(np.ones(len(polygon))) @ polygon
        radius = rng.uniform(5, 26)
        clearing = blob(rng, centre, radius, 24, 0.5)
        if inside_convex(polygon, clearing).all():
            keep &= np.hypot(*(points - centre).T) > 0.8 * radius
            meadow = tuple(0.5 * (g + f) for g, f in zip(palette.grass, floor, strict=True))
            site.patch(clearing, vary(rng, meadow, 7), mat.GRASS, 1.2, phase=int(rng.integers(256)))  # type: ignore[arg-type]
    if rng.random() < 0.5:
        line = smooth_line(rng.dirichlet(np.ones(len(polygon)) * 0.4, 3) @ polygon, 6.0)
        site.b.lines([site.warp(line)], rng.uniform(2, 3.5), vary(rng, palette.soil, 8), mat.SOIL, 1.5)
        gap = np.min(np.hypot(*(points[:, None] - line[None, ::2]).transpose(2, 0, 1)), axis=1) if len(points) else keep
        keep &= gap > 2.8
    # Stands differ in age across a wood.
    wave = np.sin(points @ rng.normal(0, 0.03, 2) + rng.uniform(0, 6))
    young = wave > rng.uniform(0.3, 1.2)
    site.plant(points[keep & ~young], (0.7 * size, 1.35 * size), needle_share=needle, tone=10)
    site.plant(points[keep & young], (0.35 * size, 0.7 * size), needle_share=needle, tone=8)


def _orchard(site: Site, polygon: Array) -> None:
    """Trees or vines in rows over grass or bare soil."""
    rng, palette = site.rng, site.palette
    bare = rng.random() < 0.6
    site.patch(polygon, vary(rng, palette.soil if bare else palette.grass, 9), mat.SOIL if bare else mat.GRASS, 1.0,
               phase=int(rng.integers(256)))
    inner = inset(polygon, 2.5)
    if len(inner) < 3:
        return
    row, step = rng.uniform(3.0, 8.0), rng.uniform(2.2, 7.0)
    radius = min(0.42 * min(row, step), 2.8)
    edge = inner[1] - inner[0]
    direction = edge / np.hypot(*edge)
    normal = np.array([-direction[1], direction[0]])
    reach_n, reach_d = inner @ normal, inner @ direction
    v, u = np.meshgrid(np.arange(reach_n.min() + 1, reach_n.max(), row), np.arange(reach_d.min() + 1, reach_d.max(), step))
    points = u.reshape(-1, 1) * direction + v.reshape(-1, 1) * normal
    points = points + rng.normal(0, 0.12 * radius + 0.1, points.shape)
    points = points[inside_convex(inner, points) & (rng.random(len(points)) < rng.uniform(0.75, 0.99))]
    site.plant(points, (0.7 * radius, 1.15 * radius), needle_share=0.0, slim=1.5, tone=6)


def _scrub(site: Site, polygon: Array) -> None:
    """Dry open land: soil, rocks, terraces, scattered bushes."""
    rng, palette = site.rng, site.palette
    ground = vary(rng, palette.soil, 8)
    site.patch(polygon, ground, mat.SOIL, 1.0)
    for _ in range(int(rng.integers(6, 30))):
        dry = rng.random() < 0.6
        site.stain(polygon, (2, 26), ground, vary(rng, palette.grass if dry else ground, 13), mat.GRASS if dry else mat.SOIL,
                   1.1)
    if rng.random() < 0.6:
        _paths(site, polygon, int(rng.integers(1, 4)))
    points = site.scatter(polygon, rng.uniform(3.5, 9))
    density = 0.5 + 0.5 * np.sin(points @ rng.normal(0, 0.06, 2) + rng.uniform(0, 6)) * np.sin(points @ rng.normal(0, 0.05, 2))
    site.plant(points[rng.random(len(points)) < density], (0.5, 2.4), needle_share=0.0, slim=1.3, tone=12)


def _farm(site: Site, polygon: Array) -> None:
    """A farmyard: house, barns, silos, machinery, trees."""
    rng, palette = site.rng, site.palette
    site.lawn(polygon)
    centre = polygon.mean(axis=0)
    yard = blob(rng, centre, rng.uniform(14, 28), 18)
    site.patch(yard, vary(rng, palette.soil if rng.random() < 0.6 else palette.concrete, 9), mat.SOIL, 1.3)
    angle = rng.uniform(0, np.pi)
    for k in range(int(rng.integers(3, 8))):
        turn = angle + rng.choice([0, np.pi / 2]) + rng.normal(0, 0.05)
        where = centre + rng.uniform(8, 32) * np.array([np.cos(2.4 * k + angle), np.sin(2.4 * k + angle)])
        size = (rng.uniform(9, 13), rng.uniform(8, 10)) if k == 0 else (rng.uniform(12, 42), rng.uniform(8, 18))
        plan = rectangle(where, turn, *size)
        if inside_convex(polygon, plan, 1.0).all():
            quad = site.place(plan)
            if quad is not None:
                buildings.gable(site.b, rng, quad, rng.uniform(3.5, 6.5), palette.wall(rng), palette.roof(rng)[1],
                                pitch=rng.uniform(0.3, 0.8))
    for _ in range(int(rng.integers(0, 4))):
        where = centre + rng.normal(0, 18, 2)
        ring = site.place(rectangle(where, 0, 5, 5))
        if ring is not None:
            site.b.unit()
            buildings.tank(site.b, rng, ring.mean(axis=0), 2.4, 0.0, rng.uniform(6, 12))
    _stacks(site, centre_scaled(yard, 0.9), 4, (2.0, 6.0))
    site.plant(site.scatter(polygon, rng.uniform(9, 20)), (1.5, 4.8))


def _greenhouses(site: Site, polygon: Array) -> None:
    """Foil tunnels in parallel."""
    rng = site.rng
    site.patch(polygon, vary(rng, site.palette.soil, 9), mat.SOIL, 1.0)
    frame = _bounding(inset(polygon, 3.0)) if len(inset(polygon, 3.0)) >= 3 else _bounding(polygon)
    length, depth = buildings.lengths(frame)
    direction, inward = (frame[1] - frame[0]) / length, (frame[3] - frame[0]) / depth
    x = 2.0
    while x < length - 10:
        width, y = rng.uniform(12, 36), 2.0
        while y < depth - 15:
            deep = rng.uniform(22, 60)
            plan = _lot(frame[0], direction, inward, x, width, y, deep)
            y += deep + rng.uniform(2, 6)
            if rng.random() < 0.85 and inside_convex(polygon, plan, 0.5).all():
                quad = site.place(plan)
                if quad is not None:
                    buildings.greenhouse(site.b, rng, quad)
        x += width + rng.uniform(1.5, 4)


def _solar(site: Site, polygon: Array) -> None:
    """A solar farm."""
    rng = site.rng
    site.lawn(polygon)
    inner = inset(polygon, 6.0)
    if len(inner) < 3:
        return
    pitch = rng.uniform(5, 9)
    angle = rng.normal(0, 0.08) - getattr(site.warp, "angle", 0.0)
    direction = np.array([np.cos(angle), np.sin(angle)])
    normal = np.array([-direction[1], direction[0]])
    reach = inner @ normal
    colour = vary(rng, (42, 54, 92), 6)
    first, last = clip_segments(inner, np.arange(reach.min(), reach.max(), pitch)[:, None] * normal, direction)
    for a, z in zip(first, last, strict=True):
        length = float(np.hypot(*(z - a)))
        s = 0.0
        while s < length - 8:
            run = min(rng.uniform(18, 40), length - s)
            quad = site.place(_lot(a, direction, normal, s, run, 0, 0.5 * pitch))
            if quad is not None:
                site.b.unit()
                site.b.face(buildings.lift(quad, np.array([0.8, 0.8, 2.2, 2.2])), vary(rng, colour, 2), mat.GLASS)
            s += run + 1.5


def _bare(site: Site, polygon: Array) -> None:
    """Cleared or building ground: tracks, heaps, a few machines."""
    rng, palette = site.rng, site.palette
    ground = vary(rng, palette.soil, 12)
    site.patch(polygon, ground, mat.SOIL, 1.0)
    for _ in range(int(rng.integers(5, 22))):
        green = rng.random() < 0.35
        site.stain(polygon, (2, 19), ground, vary(rng, palette.grass if green else ground, 16),
                   mat.GRASS if green else mat.SOIL, 1.1)
    for _ in range(int(rng.integers(1, 5))):
        line = site.warp(smooth_line(rng.dirichlet(np.ones(len(polygon)) * 0.7, 4) @ polygon, 5.0))
        tone = buildings.shade(ground, rng.uniform(0.85, 1.15))
        site.b.lines([offset_line(line, d) for d in (-1.0, 1.0)], 0.6, tone, mat.SOIL, 1.3)
    _stacks(site, polygon, int(rng.poisson(4)), (2.4, 9.0))
    if rng.random() < 0.4:
        start, direction, inward, length = _frontages(polygon, 0.0)[0]
        shell = _lot(start, direction, inward, 0.25 * length, min(0.4 * length, 40), 8, 18)
        if inside_convex(polygon, shell).all():
            quad = site.place(shell)
            if quad is not None:
                buildings.flat(site.b, rng, quad, site.height(float(rng.integers(1, 5))), palette.concrete, palette.concrete)
    site.plant(site.scatter(polygon, 18.0), (0.6, 2.2))


_FILL: dict[str, Callable[[Site, Array], None]] = {
    "rows": _rows, "detached": _detached, "apartments": _apartments, "commercial": _commercial, "industrial": _industrial,
    "park": _park, "sports": _sports, "school": _school, "field": _field, "meadow": _meadow, "orchard": _orchard,
    "forest": _forest, "scrub": _scrub, "farm": _farm, "greenhouses": _greenhouses, "car_park": _car_park, "bare": _bare,
    "containers": _containers, "solar": _solar,
}
